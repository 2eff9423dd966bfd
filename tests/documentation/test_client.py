"""docs/client.md, run from top to bottom as one script against real services and the task of docs/writing-a-task.md."""

from __future__ import annotations

import ast
import asyncio

import pytest

from clients import LocalStack, StackSettings
from tests.documentation.conftest import Desk
from tests.documentation.pages import blocks, free_port

PAGE = "client.md"


def script() -> str:
    return "\n".join(block.text for block in blocks(PAGE) if block.language == "python")


def test_the_blocks_are_one_script() -> None:
    ast.parse(script())
    assert sum(block.language == "python" for block in blocks(PAGE)) >= 10


@pytest.mark.long
async def test_the_page_runs_as_it_stands_there(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "BILEVEL_MODEL"):
        monkeypatch.delenv(variable, raising=False)
    hashing = next(block.text for block in blocks("writing-a-task.md") if block.file == "hashing.py")
    (desk.folder / "hashing.py").write_text(hashing.replace("64 << 20", "1 << 20"))  # the same, quicker
    port = free_port()
    await asyncio.to_thread(desk.serve, [".venv/bin/python", "hashing.py", "--listen", f"127.0.0.1:{port}"])
    async with LocalStack(StackSettings(desk.folder / "stack", trainer=None)) as stack:
        text = script().replace("localhost:7500", f"localhost:{port}")
        text = text.replace("127.0.0.1:7402", stack.inner).replace("127.0.0.1:7403", stack.outer)
        assert "127.0.0.1:7" not in text.replace(stack.inner, "").replace(stack.outer, "")
        (desk.folder / "page.py").write_text(text)
        said = await asyncio.to_thread(desk.run, [".venv/bin/python", "page.py"])
    assert said.count("trial ") >= 6
    for words in ("best seconds: ", "scripted, no language model", "1 + 1.5", "warm start: trial", "INVALID_ARGUMENT"):
        assert words in said
    assert (desk.folder / "studies.db").exists()
