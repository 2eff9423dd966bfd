"""The corpus against the full stack: a sample of every category by default, everything in the long tests."""

from __future__ import annotations

import json
from collections.abc import Sequence

import psutil
import pytest
from attack_cases import GOALS, Case, load
from attack_runner import EXPECTED, run_all

CASES = load()
SLOW_GOALS = ("hang", "memory")


def sample() -> list[Case]:
    """Two cases of each category, those that wait for a deadline left out where others are to be had."""
    chosen = []
    for category in sorted({case.category for case in CASES}):
        cases = [case for case in CASES if case.category == category]
        quick = [case for case in cases if case.goal not in SLOW_GOALS] or cases
        chosen += [quick[0], quick[-1]] if len(quick) > 1 else quick
    return chosen


def workers() -> list[int]:
    return [p.pid for p in psutil.Process().children(recursive=True) if "worker.py" in " ".join(p.cmdline())]


async def check(cases: Sequence[Case]) -> None:
    """No case escapes, none leaves a worker, and each ends as expected.

    A deadline is measured by the wall: on a busy machine a case can meet it earlier than it should. What differs is
    therefore run again, one at a time, before it is believed; an escape counts at once.
    """
    expected = {key: result["full"] for key, result in json.loads(EXPECTED.read_text()).items()}
    unexpected = list(cases)
    for parallel in (2, 1):
        results = await run_all(unexpected, ("full",), parallel=parallel)
        found = {key: result.full for key, result in results.items()}
        assert "broke out" not in found.values(), found
        unexpected = [case for case in unexpected if found[case.key] != expected[case.key]]
        if not unexpected:
            break
    assert {case.key: found[case.key] for case in unexpected} == {}, "these do not end as expected"
    assert not workers()


def test_the_corpus_is_large_varied_and_without_doubles() -> None:
    assert len(CASES) >= 150
    assert len({case.category for case in CASES}) >= 20
    assert len({case.text for case in CASES}) == len(CASES)
    assert {case.goal for case in CASES} <= set(GOALS)


def test_the_expected_table_knows_every_case_and_no_escape() -> None:
    expected = json.loads(EXPECTED.read_text())
    assert set(expected) == {case.key for case in CASES}
    assert not [key for key, result in expected.items() if "broke out" in (result["language"], result["full"])]


def test_most_cases_do_harm_in_plain_python() -> None:
    expected = json.loads(EXPECTED.read_text())
    bait = [case for case in CASES if case.goal == "secret"]
    assert sum(expected[case.key]["plain"] == "broke out" for case in bait) > 0.6 * len(bait)


async def test_a_sample_of_every_category_ends_as_expected() -> None:
    await check(sample())


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_every_case_ends_as_expected_at_the_full_level() -> None:
    await check(CASES)
