"""The scripted proposer follows the documented prior, and what it is told."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.scripted_researcher.moves import Towards
from clients.scripted_researcher.suggestions import Suggestions


def changes_of(candidate: dict[str, Any]) -> dict[str, Any]:
    return {change["parameter"]: change["value"] for change in candidate["changes"]}


def proposed(search: Any, **more: Any) -> dict[str, Any]:
    return changes_of(search.ask("propose", **more)["candidates"][0])


def test_the_batch_grows_first_and_further_when_that_failed(benchmark_search: Any) -> None:
    assert proposed(benchmark_search) == {"TOTAL_BATCH_SIZE": 2**14}
    benchmark_search.run(2)
    assert [dict(trial.changes) for trial in benchmark_search.trials[1:]] == [
        {"TOTAL_BATCH_SIZE": 2**14},
        {"TOTAL_BATCH_SIZE": 2**15},
    ]


def test_then_come_weight_decay_windows_and_small_learning_rate_moves(benchmark_search: Any) -> None:
    benchmark_search.run(12)
    moved = [next(iter(trial.changes)) for trial in benchmark_search.trials[3:]]
    assert moved[:3] == ["WEIGHT_DECAY", "WINDOW_PATTERN", "MATRIX_LR"]
    assert "UNEMBEDDING_LR" in moved
    assert benchmark_search.trials[5].changes["MATRIX_LR"] == pytest.approx(0.05)


def test_the_batch_never_shrinks_by_itself(benchmark_search: Any) -> None:
    benchmark_search.run(40)
    batches = [t.configuration["TOTAL_BATCH_SIZE"] for t in benchmark_search.trials if "TOTAL_BATCH_SIZE" in t.changes]
    assert len(batches) >= 8
    assert min(batches) > 2**13


def test_equal_requests_get_equal_answers(benchmark_search: Any) -> None:
    benchmark_search.run(7)
    for purpose in ("propose", "analyse", "explore", "critique", "specify", "generate", "repair"):
        assert benchmark_search.ask(purpose) == benchmark_search.ask(purpose)


def test_as_many_candidates_as_asked_for_and_none_twice(benchmark_search: Any) -> None:
    candidates = benchmark_search.ask("propose", count=12)["candidates"]
    listed = [changes_of(candidate) for candidate in candidates]
    assert len(listed) == 12
    assert all(changes not in listed[:i] for i, changes in enumerate(listed))
    assert all(candidate["hypothesis"].startswith("scripted: ") for candidate in candidates)


def test_frozen_parameters_are_left_alone(benchmark_search: Any) -> None:
    benchmark_search.frozen = ("TOTAL_BATCH_SIZE", "WEIGHT_DECAY")
    benchmark_search.run(20)
    assert not {"TOTAL_BATCH_SIZE", "WEIGHT_DECAY", "DEPTH"} & {n for t in benchmark_search.trials for n in t.changes}


def test_a_refused_candidate_is_not_offered_again(benchmark_search: Any) -> None:
    refused = [{"changes": {"TOTAL_BATCH_SIZE": 2**14}, "reason": "tabu"}]
    assert list(proposed(benchmark_search, refused=refused)) == ["WEIGHT_DECAY"]


def test_guidance_that_suggests_a_direction_is_followed_and_keeps_the_batch_divisible(benchmark_search: Any) -> None:
    benchmark_search.guidance = "Try decreasing TOTAL_BATCH_SIZE."
    assert proposed(benchmark_search) == {"TOTAL_BATCH_SIZE": 2**12}
    benchmark_search.run(1)
    assert proposed(benchmark_search) == {"TOTAL_BATCH_SIZE": 2**11, "DEVICE_BATCH_SIZE": 16}


def test_what_a_mechanism_says_in_the_prompt_counts_like_guidance(benchmark_search: Any) -> None:
    says = {"name": "m", "state": "active", "prompt": "avoid increasing TOTAL_BATCH_SIZE", "changed_decisions": 0}
    benchmark_search.mechanisms = (says,)
    assert list(proposed(benchmark_search)) == ["WEIGHT_DECAY"]


def test_a_plain_list_of_what_was_not_tried_is_no_suggestion(benchmark_search: Any) -> None:
    benchmark_search.guidance = benchmark_search.run(3).ask("analyse")["guidance"]
    assert "smaller TOTAL_BATCH_SIZE" in benchmark_search.guidance
    benchmark_search.run(20)
    assert all(t.configuration["TOTAL_BATCH_SIZE"] >= 2**13 for t in benchmark_search.trials)


def test_another_space_gets_the_same_prior(plain_search: Any) -> None:
    plain_search.run(30)
    moved = [next(iter(trial.changes)) for trial in plain_search.trials[1:6]]
    assert moved == ["temperature", "depth", "kernel", "bias", "rate"]
    tried = [t.configuration["temperature"] for t in plain_search.trials if "temperature" in t.changes]
    assert len(tried) >= 4
    assert min(tried) > 3.0


def test_an_exhausted_space_gets_fewer_candidates_instead_of_invented_ones(plain_search: Any) -> None:
    plain_search.frozen = ("temperature", "depth", "kernel", "rate")
    assert [changes_of(c) for c in plain_search.ask("propose", count=3)["candidates"]] == [{"bias": False}]


@settings(max_examples=60, deadline=None)
@given(verb=st.sampled_from(["decreasing", "lower", "reducing", "increase", "raising"]), name=st.sampled_from("abc"))
def test_suggestions_are_read_in_either_case(verb: str, name: str) -> None:
    read = Suggestions.read([f"Please TRY {verb} {name}, and avoid b."], "abc")
    towards = Towards.INCREASE if verb in ("increase", "raising") else Towards.DECREASE
    assert read.wanted == ((name, towards),)
    assert not read.allows("b", towards)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_candidate_fits_the_space(data: st.DataObject, benchmark_space_search: Any) -> None:
    search = benchmark_space_search()
    names = [p.name for p in search.space.editable]
    search.frozen = tuple(data.draw(st.sets(st.sampled_from(names), max_size=len(names) - 1)))
    search.run(data.draw(st.integers(0, 6))) if search.ask("propose")["candidates"] else None
    for candidate in search.ask("propose", count=4)["candidates"]:
        changes = changes_of(candidate)
        search.space.apply(search.incumbent.configuration, changes)
        assert changes
        assert not set(changes) & set(search.frozen)


def test_a_direction_that_was_refused_is_left_for_another_parameter(benchmark_search: Any) -> None:
    refused = [{"changes": [{"parameter": "TOTAL_BATCH_SIZE", "value": 2**14}], "reason": "tabu"}]
    for candidate in benchmark_search.ask("propose", count=4, refused=refused)["candidates"]:
        assert "TOTAL_BATCH_SIZE" not in changes_of(candidate)
