"""The few most relevant lessons are shown, and what never helps goes."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inner_service.lessons.lesson import FailureClass
from inner_service.lessons.relevance import (
    FADED,
    HALF_LIFE,
    MOST_KEPT,
    PATIENCE,
    SHOWN,
    Situation,
    most_relevant,
    outworn,
    recency,
    relevance,
    usefulness,
)
from tests.inner_service.lessons.conftest import NOW

HERE = Situation("t", "cpu", frozenset({"x", "y"}), NOW, "r1")


def test_a_new_lesson_on_its_own_task_and_hardware_has_one_half(lesson) -> None:
    assert relevance(lesson(), HERE) == 0.5


def test_hardware_counts_unless_it_does_not_matter(lesson) -> None:
    assert relevance(lesson(hardware=""), HERE) == 0.5
    assert relevance(lesson(hardware="gpu"), HERE) == 0.25
    assert relevance(lesson(hardware="gpu", failure=FailureClass.FUNDAMENTAL), HERE) == 0.25
    assert relevance(lesson(hardware="gpu", failure=FailureClass.IMPLEMENTATION), HERE) == 0.0
    assert relevance(lesson(task="other"), HERE) == 0.0


def test_lessons_about_what_may_not_be_changed_now_count_less(lesson) -> None:
    assert relevance(lesson(parameters=("x", "y")), HERE) == 0.5
    assert relevance(lesson(parameters=("x", "frozen")), HERE) == pytest.approx(0.375)
    assert relevance(lesson(parameters=("frozen",)), HERE) == 0.25


def test_evidence_halves_in_thirty_days(lesson) -> None:
    assert timedelta(days=30) == HALF_LIFE
    assert recency(lesson(update_time=NOW - timedelta(days=30)), NOW) == pytest.approx(0.5)
    assert recency(lesson(update_time=NOW - timedelta(days=90)), NOW) == pytest.approx(0.125)
    assert recency(lesson(update_time=NOW + timedelta(days=1)), NOW) == 1.0


def test_usefulness_is_a_smoothed_share_in_which_citations_count_again(lesson) -> None:
    assert usefulness(lesson(times_shown=8, times_helped=4)) == 0.5
    assert usefulness(lesson(times_shown=4, times_helped=2, times_cited=2, times_cited_kept=2)) == 5 / 8
    assert usefulness(lesson(times_shown=28)) == pytest.approx(1 / 30)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 400))
def test_relevance_stays_between_nought_and_one(shown: int, helped: int, cited: int, days: int) -> None:
    from inner_service.lessons.lesson import Lesson

    one = Lesson("a", "s", "t", "cpu", (), NOW, NOW - timedelta(days=days), parameters=("x", "z"))
    one = replace(one, times_shown=shown, times_helped=min(helped, shown), times_cited=min(cited, shown))
    assert 0 < relevance(one, HERE) < 1
    better = replace(one, times_shown=shown + 1, times_helped=one.times_helped + 1)
    assert relevance(better, HERE) > relevance(one, HERE)


def test_the_most_relevant_come_first_and_only_a_few(lesson) -> None:
    plain = [lesson(id=f"p{i}") for i in range(SHOWN)]
    useful, old = lesson(id="u", times_shown=3, times_helped=3), lesson(id="o", update_time=NOW - timedelta(days=60))
    shown = most_relevant([old, *plain, useful], HERE)
    assert len(shown) == SHOWN
    assert shown[0] is useful
    assert old not in shown


def test_what_a_run_knows_from_its_own_history_is_not_repeated(lesson) -> None:
    own = lesson(id="own", evidence=("runs/r1/trials/3",))
    both = lesson(id="both", evidence=("runs/r1/trials/3", "runs/r2/trials/5"))
    assert most_relevant([own, both], HERE) == (both,)


def test_what_never_helped_is_forgotten(lesson) -> None:
    tried = lesson(id="tried", times_shown=PATIENCE)
    helped = lesson(id="helped", times_shown=PATIENCE, times_helped=1)
    faded = lesson(id="faded", update_time=NOW - FADED)
    useful = lesson(id="useful", update_time=NOW - FADED, times_shown=1, times_helped=1)
    assert outworn([tried, helped, faded, useful, lesson(id="new")], NOW) == [tried, faded]


def test_the_least_useful_beyond_the_most_kept_go(lesson) -> None:
    many = [lesson(id=f"{i:03}") for i in range(MOST_KEPT)]
    weak = lesson(id="weak", times_shown=5)
    assert outworn([*many, weak], NOW) == [weak]
