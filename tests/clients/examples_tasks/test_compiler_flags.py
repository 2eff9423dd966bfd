"""The compiler-flags example: a real compiler, a real program, measured run times."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from service_kit.parameters import Outcome

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


async def test_flags_are_compiled_and_measured(serve: Any, python_task: Callable[[str], list[str]]) -> None:
    async with serve(python_task("compiler_flags")) as task:
        described, space = await task.describe()
        assert described.objective.metric == "cpu_ms"
        assert {source.path for source in described.sources} == {"task.py", "orbits.c"}
        assert described.identity["compiler"].startswith("gcc")
        assert await task.validate(**space.defaults()) == []

        outcome, plain = await task.evaluate(fraction=0.3, level="-O0")
        assert outcome is Outcome.SUCCEEDED
        assert plain.side_metrics["runs"] == 3
        outcome, tuned = await task.evaluate(fraction=0.3, level="-O3", native=True, unroll=True, lto=True)
        assert outcome is Outcome.SUCCEEDED
        assert tuned.metric < plain.metric / 2  # ten times in practice
        assert "-O3" in tuned.message

        sentence = "tile must divide 192: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96 or 192"
        assert await task.validate(tile=5) == [f"tile: {sentence}"]
        outcome, refused = await task.evaluate(tile=5)
        assert (outcome, refused.message) == (Outcome.INFEASIBLE, sentence)
        assert not refused.HasField("metric")

        progress = await task.cancel_an_evaluation(level="-O0")
        assert progress.phase == "compiling"
