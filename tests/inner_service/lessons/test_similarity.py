"""Two lessons are one when they say the same about the same, whatever the count in them."""

from hypothesis import given
from hypothesis import strategies as st

from inner_service.lessons.lesson import FailureClass, LessonKind
from inner_service.lessons.similarity import DUPLICATE, duplicate_of, similarity

SENTENCES = st.text(st.sampled_from("ab xy NOT increase decrease, 12."), max_size=60)


def test_numbers_case_and_punctuation_do_not_count() -> None:
    first = "Increasing DEPTH was tried 4 times without gain; avoid increasing DEPTH."
    assert similarity(first, "increasing depth was tried 6 times without gain, avoid increasing depth") == 1.0


def test_opposite_directions_are_never_the_same() -> None:
    up = "increasing TOTAL_BATCH_SIZE from 8192 made the loss better in 3 of 4 trials"
    assert similarity(up, up.replace("increasing", "decreasing")) == 0.0
    assert similarity(up, up.replace("made the loss better", "did not make the loss better")) == 0.0


def test_the_measure_is_the_share_of_common_words_and_pairs() -> None:
    # {a, b, c, ab, bc} and {a, b, d, ab, bd}: three of seven.
    assert similarity("a b c", "a b d") == 3 / 7


def test_a_rephrasing_is_a_duplicate_and_another_observation_is_not(lesson) -> None:
    known = lesson("a smaller batch gave more optimiser steps and a lower loss", parameters=("B",))
    again = lesson("a smaller batch gave more optimiser steps, and so a lower loss", id="b", parameters=("B",))
    found = duplicate_of(again, [known])
    assert found is not None
    assert found[0] is known
    assert DUPLICATE <= found[1] < 1
    assert (
        duplicate_of(lesson("a smaller learning rate made the loss diverge later", parameters=("B",)), [known]) is None
    )


def test_what_a_lesson_is_about_must_agree(lesson) -> None:
    known = lesson("x helps", parameters=("x",))
    for different in (
        {"task": "other"},
        {"hardware": ""},
        {"kind": LessonKind.IDEA},
        {"failure": FailureClass.FUNDAMENTAL},
        {"parameters": ("x", "y")},
    ):
        assert duplicate_of(lesson("x helps", **({"parameters": ("x",)} | different)), [known]) is None
    assert duplicate_of(lesson("x helps", parameters=("x",)), [known]) == (known, 1.0)


@given(SENTENCES, SENTENCES)
def test_it_is_symmetric_and_between_nought_and_one(first: str, second: str) -> None:
    assert similarity(first, second) == similarity(second, first)
    assert 0 <= similarity(first, second) <= 1
    assert similarity(first, first) == 1
