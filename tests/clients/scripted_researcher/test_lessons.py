"""The scripted researcher writes lessons that the trace bears out, and follows those that it is shown."""

from typing import Any

import pytest

from clients.scripted_researcher.catalogue import IDEAS
from clients.scripted_researcher.diagnosis import observations
from clients.scripted_researcher.lessons import MOST
from clients.scripted_researcher.state import SearchState
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


LIBRARY = (
    {"choice": "standard:tabu", "judged": 0, "kept": 0},
    {"choice": "library:turn-round", "judged": 3, "kept": 2},
    {"choice": "library:tabu-0a1b2c", "judged": 1, "kept": 0},
)


def installed(*names: str) -> tuple[dict[str, str], ...]:
    return tuple({"name": name, "state": "uninstalled"} for name in names)


def test_what_stayed_in_an_earlier_search_is_tried_again_where_something_is_wrong_and_no_template_fits(
    benchmark_search: Any,
) -> None:
    assert benchmark_search.ask("critique", library=LIBRARY)["choice"] == "none"  # nothing is wrong
    search, had = benchmark_search.run(10), installed(*(idea.name for idea in IDEAS))
    answer = search.ask("critique", library=LIBRARY, mechanisms=had)
    assert answer["choice"] == "library:turn-round"
    assert "stayed 2 of 3 times before" in answer["reason"]
    again = installed(*(idea.name for idea in IDEAS), "turn-round-2")
    assert search.ask("critique", library=LIBRARY, mechanisms=again)["choice"] == "none"
    assert search.ask("critique", library=LIBRARY[:1], mechanisms=had)["choice"] == "none"


def test_what_answers_the_trace_is_taken_from_the_library_in_place_of_writing_it_anew(benchmark_search: Any) -> None:
    search, had = benchmark_search.run(10), installed("opposite-direction")
    answer = search.ask("critique", library=LIBRARY, mechanisms=had)
    assert answer["choice"] == "library:tabu-0a1b2c"
    assert "answers it and stayed 0 of 1 times before" in answer["reason"]
    assert search.ask("critique", library=LIBRARY[:1], mechanisms=had)["choice"] == "tabu"  # it only ships with it
    mended = search.ask("repair", [answer], library=LIBRARY, mechanisms=had, report="rejected at stage effect")
    assert mended["mechanism_id"] == "tabu"


def test_a_move_that_gained_once_and_fails_ever_since_is_a_repetition(benchmark_search: Any) -> None:
    for size in (12, 11, 10, 10, 10):
        benchmark_search.decide({"TOTAL_BATCH_SIZE": 2**size, "DEVICE_BATCH_SIZE": 8})
    [seen] = [o for o in observations(SearchState.from_json(benchmark_search.state())) if o.failure == "repetition"]
    assert "decrease TOTAL_BATCH_SIZE (3 times since its last gain)" in seen.evidence
    assert benchmark_search.ask("critique")["choice"] == "tabu"
