"""Which candidates run: mechanisms' own first, taking turns, unless mechanisms rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from inner_service.trace import DecisionChanged
from mechanisms.interface import Candidate, Hook, Origin


@dataclass(frozen=True, slots=True)
class Change:
    """A decision about a candidate that a mechanism changed, in words."""

    mechanism: str
    hook: Hook
    before: str
    after: str

    def event(self, trial: int) -> DecisionChanged:
        return DecisionChanged(self.mechanism, self.hook, trial, self.before, self.after)


@dataclass(frozen=True, slots=True)
class Option:
    """A candidate that may run, with what mechanisms have changed about it so far."""

    candidate: Candidate
    text: str
    """The candidate in words."""
    changes: tuple[Change, ...] = ()
    fraction: float = 1.0
    """Share of the full budget to spend."""
    cited: tuple[str, ...] = ()
    """Lessons, by id, that the model named as its reasons."""


def in_turns(options: Sequence[Option], turn: int) -> list[Option]:
    """Mechanisms' candidates take turns with each other from trial to trial, the model's come last in each round.

    A mechanism that proposes is there to act, so with one place to fill it is a mechanism's.
    """
    by_source: dict[str, list[Option]] = {}
    for option in options:
        by_source.setdefault(option.candidate.proposer, []).append(option)
    model = by_source.pop("", [])
    sources = list(by_source.values())
    if sources:
        first = turn % len(sources)
        sources = sources[first:] + sources[:first]
    rounds = zip_longest(*sources, model)
    return [option for round_ in rounds for option in round_ if option is not None]


def ranked(options: Sequence[Option], scores: Mapping[str, Sequence[float]]) -> list[Option]:
    """The options by the sum of their normalised ranks over all ranking mechanisms; equal ones stay in order."""
    totals = [sum(ranks[i] for ranks in map(_normalised_ranks, scores.values())) for i in range(len(options))]
    order = sorted(range(len(options)), key=lambda i: totals[i])
    return [options[i] for i in order]


def _normalised_ranks(scores: Sequence[float]) -> list[float]:
    """0 for the best to 1 for the worst; equal scores share their mean rank, so that indifference weighs nothing."""
    if len(scores) < 2:
        return [0.0] * len(scores)
    ranks = []
    for score in scores:
        better, equal = sum(s > score for s in scores), sum(s == score for s in scores)
        ranks.append((better + (equal - 1) / 2) / (len(scores) - 1))
    return ranks


def ranking_changes(
    default: Sequence[Option], chosen: Sequence[Option], scores: Mapping[str, Sequence[float]]
) -> list[list[Change]]:
    """For each chosen option what ranking changed: nothing where the default order would have chosen it as well.

    ``scores`` are in the default order. A change belongs to the mechanisms that prefer the chosen option to the one
    that it displaced.
    """
    would_run = default[: len(chosen)]
    displaced = [option for option in would_run if option not in chosen]
    changes: list[list[Change]] = []
    for option in chosen:
        if option in would_run or not displaced:
            changes.append([])
            continue
        loser = displaced.pop(0)
        winner_at, loser_at = default.index(option), default.index(loser)
        in_favour = [name for name, score in scores.items() if score[winner_at] > score[loser_at]]
        changes.append([Change(name, Hook.RANK, loser.text, option.text) for name in in_favour])
    return changes


def proposing_change(option: Option, counterfactual: str, default_model: Candidate | None) -> list[Change]:
    """That a mechanism's own candidate runs in place of the model's, unless both propose the same."""
    candidate = option.candidate
    if candidate.origin is not Origin.MECHANISM:
        return []
    if default_model is not None and dict(default_model.changes) == dict(candidate.changes):
        return []
    return [Change(candidate.proposer, Hook.PROPOSE, counterfactual, option.text)]
