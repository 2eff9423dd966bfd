"""Bin packing: the parameter is code, checked by the gate and scored in the sandbox."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bilevel.v1 import common_pb2

from clients.scripted_researcher.sources import variants
from service_kit.parameters import Outcome

BEST_FIT = "def priority(item, bins):\n    return [item - space for space in bins]\n"


async def test_a_heuristic_is_checked_scored_and_better_than_first_fit(
    serve: Any, python_task: Callable[[str], list[str]]
) -> None:
    async with serve(python_task("bin_packing")) as task:
        described, space = await task.describe()
        assert "def priority(item, bins)" in space["priority"].documentation
        assert "sandbox" in described.documentation

        outcome, first_fit = await task.evaluate()
        assert (outcome, len(first_fit.side_metrics)) == (Outcome.SUCCEEDED, 2)
        outcome, best_fit = await task.evaluate(priority=BEST_FIT)
        assert best_fit.metric < first_fit.metric
        held_out, _ = await task.evaluate(fraction=0.25, split=common_pb2.SPLIT_HELD_OUT, priority=BEST_FIT)
        assert held_out is Outcome.SUCCEEDED


REFUSED = {
    "another function": ("def prioritise(item, bins):\n    return bins", "rename prioritise to priority"),
    "a module that is not offered": (
        "import os\ndef priority(item, bins):\n    return os.listdir('/')",
        "module os is not available",
    ),
}
FAILING = {
    "too few numbers": ("return [1]", "must return one number for each of the 2 bins"),
    "no end": ("while True: pass", "timed out"),
}


async def test_what_is_no_such_function_is_refused_before_it_costs_a_trial(
    serve: Any, python_task: Callable[[str], list[str]]
) -> None:
    async with serve(python_task("bin_packing")) as task:
        for source, says in REFUSED.values():
            [violation] = await task.validate(priority=source)
            assert says in violation
        outcome, ended = await task.evaluate(priority=source)
        assert (outcome, says in ended.message) == (Outcome.INFEASIBLE, True)
        for body, says in FAILING.values():
            source = f"def priority(item, bins):\n    {body}"
            outcome, ended = await task.evaluate(priority=source)
            assert (outcome, says in ended.message) == (Outcome.INFEASIBLE, True), ended.message


@pytest.mark.long
async def test_a_function_that_never_ends_leaves_no_process_when_the_caller_goes(
    serve: Any, python_task: Callable[[str], list[str]]
) -> None:
    slow = "def priority(item, bins):\n    return [sum(range(10_000)) - space for space in bins]"
    async with serve(python_task("bin_packing")) as task:
        progress = await task.cancel_an_evaluation(priority=slow)
        assert progress.phase == "packing"


def test_the_lower_bound_is_below_every_packing(tasks_folder: Path) -> None:
    sys.path.insert(0, str(tasks_folder / "bin_packing"))
    try:
        import task as packing  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    assert packing.lower_bound([100, 100, 60]) == 3  # two bins would hold the sum, but nothing fits beside 100
    assert packing.lower_bound([75, 75, 75]) == 2
    assert packing.lower_bound([150]) == 1


def test_the_scripted_researcher_offers_labelled_templates_and_else_other_constants() -> None:
    templates = variants("def priority(item, bins):\n    return bins\n", 4000)
    assert len(templates) == 6
    assert all('"""Scripted template' in text for text in templates)
    assert variants("def priority(item, bins):\n    return bins\n", 200) != templates

    turned = variants("def score(x):\n    return 3 * x + 0.5\n", 4000)
    assert [text.splitlines()[0] for text in turned] == [
        "# scripted: 6 in place of 3 in line 2",
        "# scripted: 1 in place of 3 in line 2",
        "# scripted: 1 in place of 0.5 in line 2",
        "# scripted: 0.25 in place of 0.5 in line 2",
    ]
    assert variants(turned[0], 4000)[0].count("# scripted") == 1


@pytest.mark.long
async def test_a_bilevel_search_runs_over_code(
    serve: Any, search: Any, python_task: Callable[[str], list[str]]
) -> None:
    async with serve(python_task("bin_packing")) as task:
        summary = await search(task.address)
    assert (summary["state"], summary["trials"]) == ("finished", 6)
    assert summary["best"] < summary["baseline"]
