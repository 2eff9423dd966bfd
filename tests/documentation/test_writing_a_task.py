"""docs/writing-a-task.md, followed to the letter in an empty folder."""

from __future__ import annotations

import ast
import json
import shutil

import pytest

from tests.documentation.conftest import Desk
from tests.documentation.pages import blocks, following, free_port, with_ports

PAGE = "writing-a-task.md"
NODE = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="Node.js with npm is not installed"
)


def saved(desk: Desk) -> None:
    """Save every block that the page says to save, the check of the first task included."""
    for block in blocks(PAGE):
        if block.file:
            (desk.folder / block.file).write_text(block.text)
    [check] = [block.text for block in blocks(PAGE) if block.language == "python" and not block.file]
    file = desk.folder / "hashing.py"
    file.write_text(file.read_text().replace('if __name__ == "__main__"', f'{check}\n\nif __name__ == "__main__"'))


def search(command: list[str]) -> list[str]:
    """The page's search in its short form, answering in JSON."""
    trials = command.index("--trials")
    return [*command[:trials], "--trials", "3", "--confirm", "1", "--json", *command[trials + 2 :]]


def test_every_python_block_is_python_and_every_saved_file_is_used() -> None:
    for block in blocks(PAGE):
        if block.language == "python":
            ast.parse(block.text)
    assert [block.file for block in blocks(PAGE) if block.file] == [
        "hashing.py",
        "tasks.toml",
        "sine.py",
        "pieces.mjs",
        "buf.gen.yaml",
    ]
    assert len(next(block.text for block in blocks(PAGE) if block.file == "hashing.py").splitlines()) < 40


@pytest.mark.long
def test_the_first_task_is_tried_described_served_and_searched(desk: Desk) -> None:
    saved(desk)
    ports = {"7500": free_port()}
    attempt, describe, serve, run = (with_ports(words, ports) for words in following(PAGE, "hashing.py").commands)
    assert "outcome: succeeded" in desk.run(attempt)
    shown = desk.run(describe)
    assert "hashing: minimize seconds" in shown
    assert "constraint: buffer must be a multiple of 64" in shown
    desk.serve(serve)
    summary = json.loads(desk.run(search(run)))
    assert (summary["state"], summary["trials"], summary["levels"]) == ("finished", 3, "1 + 1.5 + 2")
    assert summary["confirmation_seeds"] == 1


@pytest.mark.long
def test_the_task_on_another_machine_is_reached_with_tls_and_a_token(desk: Desk) -> None:
    saved(desk)
    certs, token, serve = next(block.commands for block in blocks(PAGE) if not block.language and "certs" in block.text)
    serve_inner, run = following(PAGE, "tasks.toml").commands
    here = {"gpu7.example.org": "localhost", "0.0.0.0": "127.0.0.1", ":7500": f":{free_port()}"}

    def local(text: str) -> str:
        for documented, actual in here.items():
            text = text.replace(documented, actual)
        return text

    desk.run([local(word) for word in certs])
    (desk.folder / "hashing.token").write_text(desk.run(token))
    (desk.folder / "tasks.toml").write_text(local((desk.folder / "tasks.toml").read_text()))
    variables = dict(word.split("=", 1) for word in serve if word.startswith("BILEVEL_"))
    desk.serve([local(word) for word in serve if not word.startswith("BILEVEL_")], **variables)

    model, inner = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    desk.serve([".venv/bin/bilevel", "serve", "researcher", "--listen", model])
    endpoint = {"OPENAI_BASE_URL": f"http://{model}/v1", "BILEVEL_MODEL": "scripted-researcher"}
    desk.serve([*serve_inner, "--listen", inner], **endpoint)
    summary = json.loads(desk.run(search([*run, "--inner", inner])))
    assert (summary["task"], summary["state"], summary["trials"]) == ("hashing", "finished", 3)

    (desk.folder / "hashing.token").write_text("revoked\n")
    with pytest.raises(AssertionError, match="token"):
        desk.run(search([*run, "--inner", inner]))


@pytest.mark.long
def test_the_function_as_a_parameter_is_scored_in_the_sandbox(desk: Desk) -> None:
    saved(desk)
    first, better = following(PAGE, "sine.py").commands
    errors = [float(desk.run(command).partition("error: ")[2].split()[0]) for command in (first, better)]
    assert errors[1] < errors[0] == pytest.approx(2.85888, abs=1e-4)


@NODE
@pytest.mark.long
def test_the_task_in_node_is_installed_served_and_searched(desk: Desk) -> None:
    saved(desk)
    ports = {"7501": free_port()}
    install, serve, run = (with_ports(words, ports) for words in following(PAGE, "pieces.mjs").commands)
    desk.run(install)
    desk.serve(serve)
    summary = json.loads(desk.run(search(run)))
    assert (summary["state"], summary["trials"], summary["metric"]) == ("finished", 3, "milliseconds")


@NODE
@pytest.mark.long
def test_another_language_gets_its_code_from_the_proto_files_as_they_are(desk: Desk) -> None:
    saved(desk)
    install, generate = following(PAGE, "buf.gen.yaml").commands
    desk.run(install)
    desk.run(generate)
    generated = (desk.folder / "generated" / "bilevel" / "v1" / "task_pb.ts").read_text()
    assert "export const TaskService" in generated
    assert "export type EvaluationResult" in generated
