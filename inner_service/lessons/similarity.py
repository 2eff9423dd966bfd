"""When two lessons say the same.

The measure is the Jaccard index of the sentences' words and neighbouring word pairs: shared ones over all of them,
0 to 1. Case, punctuation and numbers do not count, so that "tried 4 times" and "tried 6 times" are the same
observation with more evidence. Words of direction and negation decide more than their number says: sentences whose
sets of those differ ("increase" against "decrease") are never duplicates, however alike they look.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from inner_service.lessons.lesson import Lesson

DUPLICATE = 0.6
"""Lessons at least so similar are one, where task, hardware, kind, failure class and parameters are the same."""

_WORD = re.compile(r"[^\W\d]\w*")
_SIGNS = (
    ("up", ("increas", "larg", "rais", "higher", "grow", "more", "bigger")),
    ("down", ("decreas", "small", "lower", "reduc", "shrink", "less", "fewer")),
    ("no", ("no", "not", "never", "without", "avoid", "cannot", "don")),
)


def duplicate_of(lesson: Lesson, known: Iterable[Lesson]) -> tuple[Lesson, float] | None:
    """The known lesson that says the same as ``lesson``, with the similarity; None where it is new."""
    found = [(other, similarity(lesson.statement, other.statement)) for other in known if _comparable(lesson, other)]
    best = max(found, key=lambda pair: pair[1], default=None)
    return best if best is not None and best[1] >= DUPLICATE else None


def similarity(first: str, second: str) -> float:
    """0 for nothing in common, or for sentences that point in different directions; 1 for the same words in order."""
    one, other = _words(first), _words(second)
    if _signs(one) != _signs(other):
        return 0.0
    features, others = _features(one), _features(other)
    return len(features & others) / len(features | others) if features | others else 1.0


def _comparable(one: Lesson, other: Lesson) -> bool:
    return (one.task, one.hardware, one.kind, one.failure, set(one.parameters)) == (
        other.task,
        other.hardware,
        other.kind,
        other.failure,
        set(other.parameters),
    )


def _words(sentence: str) -> list[str]:
    return _WORD.findall(sentence.casefold())


def _features(words: list[str]) -> set[tuple[str, ...]]:
    return {(word,) for word in words} | set(pairwise(words))


def _signs(words: list[str]) -> set[str]:
    """Directions and negations that the sentence holds; short ones must be whole words."""
    return {
        sign
        for sign, stems in _SIGNS
        for word in words
        if any(word.startswith(stem) if len(stem) > 3 else word == stem for stem in stems)
    }
