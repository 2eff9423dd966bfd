"""The scripted researcher writes lessons that the trace bears out, and follows those that it is shown."""

from typing import Any

import pytest

from clients.scripted_researcher.lessons import MOST
from service_kit.parameters import Outcome


def changes_of(candidate: dict[str, Any]) -> dict[str, Any]:
    return {change["parameter"]: change["value"] for change in candidate["changes"]}


def proposed(search: Any, *statements: str) -> dict[str, Any]:
    known = [{"id": f"l{i}", "statement": statement} for i, statement in enumerate(statements)]
    return search.ask("propose", lessons=known)["candidates"][0]


def test_a_fixation_becomes_an_idea_and_a_fundamental_failure(benchmark_search: Any) -> None:
    for size in (2**14, 2**15, 2**16):
        benchmark_search.decide({"TOTAL_BATCH_SIZE": size})
    idea, failure = benchmark_search.ask("lessons")["lessons"]
    assert "try decreasing TOTAL_BATCH_SIZE" in idea["statement"]
    assert (idea["kind"], idea["failure"], idea["evidence"]) == ("idea", "none", [1, 2, 3])
    assert "avoid increasing TOTAL_BATCH_SIZE" in failure["statement"]
    assert (failure["kind"], failure["failure"], failure["evidence"]) == ("experiment", "fundamental", [1, 2, 3])
    assert all(lesson["statement"].startswith("scripted: ") for lesson in (idea, failure))


def test_what_gained_comes_first_with_its_best_gain(benchmark_search: Any) -> None:
    benchmark_search.decide({"WEIGHT_DECAY": 0.3})
    benchmark_search.decide({"TOTAL_BATCH_SIZE": 2**12})
    benchmark_search.decide({"TOTAL_BATCH_SIZE": 2**11})
    lesson = benchmark_search.ask("lessons")["lessons"][0]
    assert "decreasing TOTAL_BATCH_SIZE was kept in 2 of 2 trials, the best gain 0.1; try" in lesson["statement"]
    assert lesson["evidence"] == [2, 3]


def test_what_seldom_gained_is_not_recommended(benchmark_search: Any) -> None:
    benchmark_search.decide({"TOTAL_BATCH_SIZE": 2**12})
    for size in (2**9, 2**8):
        benchmark_search.decide({"TOTAL_BATCH_SIZE": size})
    lesson = benchmark_search.ask("lessons")["lessons"][0]
    assert "kept in 1 of 3 trials" in lesson["statement"]
    assert "try" not in lesson["statement"].replace("tries", "").replace("trials", "")


def test_what_broke_is_an_implementation_failure(benchmark_search: Any) -> None:
    for size in (2**14, 2**15):
        benchmark_search.fail({"TOTAL_BATCH_SIZE": size}, Outcome.OUT_OF_MEMORY)
    [lesson] = benchmark_search.ask("lessons")["lessons"]
    assert "broke 2 of 2 trials (out of memory); avoid increasing TOTAL_BATCH_SIZE" in lesson["statement"]
    assert (lesson["failure"], lesson["evidence"]) == ("implementation", [1, 2])


def test_an_empty_trace_teaches_nothing_and_a_long_one_not_too_much(benchmark_search: Any) -> None:
    assert benchmark_search.ask("lessons") == {"lessons": []}
    assert 0 < len(benchmark_search.run(60).ask("lessons")["lessons"]) <= MOST


def test_a_lesson_to_try_is_followed_and_cited(benchmark_search: Any) -> None:
    candidate = proposed(benchmark_search, "scripted: nothing to see.", "scripted: try decreasing TOTAL_BATCH_SIZE.")
    assert changes_of(candidate) == {"TOTAL_BATCH_SIZE": 2**12}
    assert candidate["lessons"] == ["l1"]
    assert "lesson" in candidate["hypothesis"]


def test_a_lesson_that_failed_on_this_incumbent_is_not_followed_again(benchmark_search: Any) -> None:
    benchmark_search.decide({"WEIGHT_DECAY": 0.25})
    candidate = proposed(benchmark_search, "try increasing WEIGHT_DECAY")
    assert changes_of(candidate) != {"WEIGHT_DECAY": 0.25}
    assert candidate["lessons"] == []


def test_what_a_lesson_advises_against_is_passed_over_and_cited(benchmark_search: Any) -> None:
    candidate = proposed(benchmark_search, "avoid increasing TOTAL_BATCH_SIZE")
    assert "TOTAL_BATCH_SIZE" not in changes_of(candidate)
    assert candidate["lessons"] == ["l0"]


def test_the_run_itself_has_the_last_word(benchmark_search: Any) -> None:
    benchmark_search.guidance = "avoid decreasing TOTAL_BATCH_SIZE"
    candidate = proposed(benchmark_search, "try decreasing TOTAL_BATCH_SIZE")
    assert changes_of(candidate) == {"TOTAL_BATCH_SIZE": 2**14}


@pytest.mark.parametrize("statements", [(), ("nothing known about any parameter",)])
def test_without_anything_to_follow_the_prior_is_what_it_was(benchmark_search: Any, statements: Any) -> None:
    bare = benchmark_search.ask("propose")["candidates"][0]
    assert "lessons" not in bare
    assert changes_of(proposed(benchmark_search, *statements)) == changes_of(bare)


def test_what_stayed_in_an_earlier_search_is_tried_again_where_no_template_fits(benchmark_search: Any) -> None:
    offered = [{"choice": "standard:tabu", "kept": 0}, {"choice": "library:turn-round", "kept": 2}]
    answer = benchmark_search.ask("critique", library=offered)
    assert answer["choice"] == "library:turn-round"
    assert "stayed 2 times before" in answer["reason"]
    installed = ({"name": "turn-round-2", "state": "uninstalled"},)
    assert benchmark_search.ask("critique", library=offered, mechanisms=installed)["choice"] == "none"
    assert benchmark_search.ask("critique", library=offered[:1])["choice"] == "none"
