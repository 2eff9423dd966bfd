"""Every example has a README with the commands that run it, and carries a short search of all levels to its end."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NEEDS = {
    "compiler_flags": shutil.which("gcc") is not None,
    "scikit_learn_pipeline": importlib.util.find_spec("sklearn") is not None,
    "sqlite_settings": True,
}
"""Example to whether this machine has what it needs."""
ELSEWHERE = {"bin_packing", "brotli_delivery", "rubric_article"}
"""Examples whose own test file carries the search."""


def test_every_example_has_a_readme_and_a_search_in_some_test(tasks_folder: Path) -> None:
    examples = {folder.name for folder in tasks_folder.iterdir() if (folder / "README.md").exists()}
    assert examples == {folder.name for folder in tasks_folder.iterdir() if folder.is_dir() and any(folder.glob("*.*"))}
    assert examples == NEEDS.keys() | ELSEWHERE
    for name in examples:
        readme = (tasks_folder / name / "README.md").read_text()
        assert "bilevel run --local --task localhost:7500" in readme, name
    tests = Path(__file__).parent
    for name in ELSEWHERE:
        assert "await search(task.address)" in (tests / f"test_{name}.py").read_text(), name


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NEEDS)
async def test_a_bilevel_search_runs_over_it(
    name: str, serve: Any, search: Any, python_task: Callable[[str], list[str]]
) -> None:
    if not NEEDS[name]:
        pytest.skip(f"this machine lacks what {name} needs")
    async with serve(python_task(name)) as task:
        summary = await search(task.address, trials=2)
    assert (summary["state"], summary["trials"], summary["levels"]) == ("finished", 2, "1 + 1.5 + 2")
    assert summary["best"] is not None
