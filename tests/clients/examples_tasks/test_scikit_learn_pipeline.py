"""The scikit-learn example: a real pipeline on a data set that comes with the library."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
from bilevel.v1 import common_pb2

from service_kit.parameters import Outcome

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed; it is in the extra `examples`"
)


async def test_a_pipeline_is_cross_validated(serve: Any, python_task: Callable[[str], list[str]]) -> None:
    async with serve(python_task("scikit_learn_pipeline")) as task:
        described, _ = await task.describe()
        assert (described.has_held_out_split, described.deterministic) == (True, True)

        outcome, default = await task.evaluate(seed=3, fraction=0.4)
        assert outcome is Outcome.SUCCEEDED
        assert default.side_metrics["folds"] == 2
        assert (await task.evaluate(seed=3, fraction=0.4))[1].metric == default.metric
        better = {"kernel": "rbf", "C": 10.0, "gamma": 0.02, "scaler": "standard", "components": 30}
        outcome, tuned = await task.evaluate(seed=3, fraction=0.4, **better)
        assert tuned.metric < default.metric
        outcome, held_out = await task.evaluate(split=common_pb2.SPLIT_HELD_OUT, **better)
        assert (outcome, held_out.side_metrics["folds"]) == (Outcome.SUCCEEDED, 1)
        assert held_out.metric < 10.0

        outcome, refused = await task.evaluate(features=8, components=16)
        assert (outcome, refused.message) == (Outcome.INFEASIBLE, "components must be at most features")

        progress = await task.cancel_an_evaluation(kernel="poly", features=64, components=64)
        assert progress.phase == "fold"
