"""Whether two mechanisms work against each other, and which of them has to go.

Three conflicts are looked for: vetoes that together leave nothing to run, one that vetoes whatever another proposes,
and rankings that reverse each other. The streaks are kept in memory: after a restart they begin anew, so that nobody is
blamed for what was not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from inner_service.run import Search
from mechanisms.interface import Hook

VETOED_ROUNDS = 2
"""Proposals in a row of which the vetoes of several mechanisms together left nothing."""
VETOED_PROPOSALS = 5
"""Candidates of one mechanism in a row that the same other one vetoed."""
REVERSED_PAIRS = 10
"""Pairs of candidates in a row, over whole rankings, that two mechanisms put in opposite orders."""


class ConflictKind(StrEnum):
    """How two mechanisms work against each other."""

    VETOES = "vetoes"
    VETOED_PROPOSALS = "vetoed_proposals"
    RANKINGS = "rankings"

    @property
    def hook(self) -> Hook:
        """The hook in which the conflict shows."""
        return Hook.RANK if self is ConflictKind.RANKINGS else Hook.VETO


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two mechanisms, by name, and what was seen."""

    kind: ConflictKind
    mechanisms: tuple[str, str]
    evidence: str


class Conflicts:
    """The streaks of one run. Every method that reports a conflict forgets its streak."""

    def __init__(self) -> None:
        self._vetoed_rounds = 0
        self._vetoed: dict[str, tuple[str, int]] = {}
        """By proposing mechanism: who vetoed its last candidates, and how many in a row."""
        self._reversed: dict[tuple[str, str], int] = {}

    def left_nothing(self, vetoers: Sequence[str]) -> Conflict | None:
        """After a proposal of which nothing may run; ``vetoers`` says for each refused candidate which mechanism vetoed
        it, empty where something else refused it."""
        counts = Counter(vetoers)
        if len(counts) < 2 or "" in counts:
            self._vetoed_rounds = 0
            return None
        self._vetoed_rounds += 1
        if self._vetoed_rounds < VETOED_ROUNDS:
            return None
        self._vetoed_rounds = 0
        (first, n), (second, m) = counts.most_common(2)
        nothing = f"nothing was left in {VETOED_ROUNDS} proposals in a row"
        evidence = f"vetoed {n} and {m} of the last {len(vetoers)} candidates; {nothing}"
        return Conflict(ConflictKind.VETOES, (first, second), evidence)

    def left_something(self) -> None:
        """After a proposal of which something may run."""
        self._vetoed_rounds = 0

    def proposed(self, proposer: str, vetoer: str) -> Conflict | None:
        """After a mechanism's own candidate was considered; ``vetoer`` is empty unless another one vetoed it."""
        if not vetoer or vetoer == proposer:
            self._vetoed.pop(proposer, None)
            return None
        before, count = self._vetoed.get(proposer, (vetoer, 0))
        count = count + 1 if before == vetoer else 1
        self._vetoed[proposer] = vetoer, count
        if count < VETOED_PROPOSALS:
            return None
        del self._vetoed[proposer]
        evidence = f"{vetoer} vetoed the last {count} candidates of {proposer}"
        return Conflict(ConflictKind.VETOED_PROPOSALS, (proposer, vetoer), evidence)

    def ranked(self, scores: Mapping[str, Sequence[float]]) -> Conflict | None:
        """After a ranking; ``scores`` are each mechanism's for the same candidates."""
        for pair in combinations(scores, 2):
            first, second = (scores[name] for name in pair)
            if not _reverse(first, second):
                self._reversed.pop(pair, None)
                continue
            pairs = self._reversed.get(pair, 0) + len(first) * (len(first) - 1) // 2
            self._reversed[pair] = pairs
            if pairs >= REVERSED_PAIRS:
                del self._reversed[pair]
                evidence = f"ranked the last {pairs} pairs of candidates in opposite orders"
                return Conflict(ConflictKind.RANKINGS, pair, evidence)
        return None


def loser(search: Search, names: tuple[str, str]) -> str:
    """The one to suspend: fewer kept trials for each trial decided since its installation, else the newer one."""

    def worth(name: str) -> tuple[float, int]:
        mechanism = search.mechanism(name)
        if mechanism is None:
            return 0.0, 0
        since = sum(number > mechanism.installed_after_trial for number in search.decisions)
        age = len(search.mechanisms) - search.mechanisms.index(mechanism)
        return mechanism.effect.kept_trials / max(1, since), age

    return min(names, key=worth)


def _reverse(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether every pair that one puts in an order the other puts in the opposite one; ties are no opposition."""
    places = range(len(first))
    return len(first) > 1 and all(
        (first[i] - first[j]) * (second[i] - second[j]) < 0 for i, j in combinations(places, 2)
    )
