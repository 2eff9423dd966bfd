"""The task that docs/writing-a-task.md shows, exactly as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from service_kit.parameters import Outcome

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def documented(tmp_path: Path) -> Path:
    """The page's first block with its check, as a module."""
    page = (ROOT / "docs" / "writing-a-task.md").read_text()
    module, check = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "hashing.py"
    file.write_text(module.replace('if __name__ == "__main__"', f'{check}\n\nif __name__ == "__main__"'))
    return file


async def test_the_task_of_the_documentation_works_as_it_stands_there(serve: Any, documented: Path) -> None:
    async with serve([sys.executable, str(documented)]) as task:
        described, space = await task.describe()
        assert (described.name, described.title) == (
            "hashing",
            "Time of hashing 64 MiB. The number of calls and the algorithm's own speed compete.",
        )
        assert await task.validate(**space.defaults()) == []
        outcome, result = await task.evaluate(fraction=0.1, buffer=65536, algorithm="blake2b")
        assert (outcome, result.side_metrics["mib"]) == (Outcome.SUCCEEDED, pytest.approx(6.4, abs=0.1))
        outcome, refused = await task.evaluate(buffer=100)
        assert (outcome, refused.message) == (Outcome.INFEASIBLE, "buffer must be a multiple of 64")


@pytest.mark.long
async def test_a_bilevel_search_runs_over_it(serve: Any, search: Any, documented: Path) -> None:
    async with serve([sys.executable, str(documented)]) as task:
        summary = await search(task.address)
    assert (summary["state"], summary["trials"]) == ("finished", 6)
