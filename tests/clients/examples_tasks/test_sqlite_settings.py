"""The SQLite example: a real database file under a write load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service_kit.parameters import Outcome


async def test_settings_are_measured_on_a_real_file(serve: Any, python_task: Callable[[str], list[str]]) -> None:
    async with serve(python_task("sqlite_settings")) as task:
        described, space = await task.describe()
        assert (described.objective.metric, described.objective.unit) == ("us_per_order", "µs")
        assert space["orders_per_commit"].locked

        outcome, careful = await task.evaluate(fraction=0.05)
        assert outcome is Outcome.SUCCEEDED
        assert careful.side_metrics["orders"] == 500
        outcome, fast = await task.evaluate(fraction=0.05, journal_mode="WAL", synchronous="NORMAL", without_rowid=True)
        assert outcome is Outcome.SUCCEEDED
        assert 0 < fast.metric < careful.metric  # without waiting for the disk at every commit

        sentence = "synchronous=NORMAL is safe against a power failure only with journal_mode=WAL"
        assert await task.validate(synchronous="NORMAL") == [f": {sentence}"]
        outcome, refused = await task.evaluate(synchronous="NORMAL")
        assert (outcome, refused.message) == (Outcome.INFEASIBLE, sentence)

        progress = await task.cancel_an_evaluation()
        assert progress.phase == "ordering"
