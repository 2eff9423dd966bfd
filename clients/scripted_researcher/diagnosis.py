"""What goes wrong in a trace, in numbers: the part of a researcher that can be scripted honestly."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from clients.scripted_researcher.moves import Towards, ordered
from clients.scripted_researcher.state import BadRequest, PastTrial, SearchState

PATIENCE = 3
"""Tries without gain after which a parameter and direction count as exhausted."""
PLATEAU = 6
"""Decided trials without gain that make a plateau."""


class Failure(StrEnum):
    """What can hold a search back, the most telling first."""

    FIXATION = "fixation"
    """One direction of a parameter fails again and again and the other was never tried."""
    BREAKAGE = "breakage"
    """Many trials ran and ended without a metric. Refused candidates cost no trial and do not count."""
    REPETITION = "repetition"
    """Moves are proposed again and again that never gained, or not since long."""
    NEGLECT = "neglect"
    """Active parameters that were never touched while the search stands still."""
    PLATEAU = "plateau"
    """No gain for many trials."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of one parameter and direction."""

    parameter: str
    towards: Towards
    tries: int
    gains: int
    broken: int
    """Tries that ended without a metric."""
    since_gain: int
    """Tries since the newest that gained; all of them where none did."""

    @property
    def exhausted(self) -> bool:
        return self.tries >= PATIENCE and self.gains == 0

    @property
    def worn(self) -> bool:
        """Whether it is exhausted, or has been since its last gain."""
        return self.since_gain >= PATIENCE


@dataclass(frozen=True, slots=True)
class Observation:
    """A failure that the trace shows, and the evidence for it in a sentence."""

    failure: Failure
    evidence: str
    parameters: tuple[str, ...] = ()


def tallies(state: SearchState) -> tuple[Tally, ...]:
    """Every parameter and direction that was tried, the most tried first."""
    tries, gains, broken, vain = (Counter[tuple[str, Towards]]() for _ in range(4))
    for trial in _decided(state):
        if trial.changes and not trial.directions:
            raise BadRequest("trials in the search state need their directions for this purpose", "messages")
        for name, towards in trial.directions.items():
            key = (name, Towards(towards))
            tries[key] += 1
            gains[key] += trial.kept is True
            broken[key] += trial.failed
            vain[key] = 0 if trial.kept else vain[key] + 1
    return tuple(Tally(*key, count, gains[key], broken[key], vain[key]) for key, count in tries.most_common())


def exhausted_parameters(state: SearchState) -> dict[str, int]:
    """Active parameters without gain in at least :data:`PATIENCE` tries, in every direction that they have.

    The prior trusts a parameter whose other direction is open; so it does not freeze what it is fixated on, which is
    how level 1.5 leaves a fixation in place.
    """
    found = {}
    for name in state.active:
        own = [tally for tally in tallies(state) if tally.parameter == name]
        tries = sum(tally.tries for tally in own)
        both = not ordered(state.parameters[name]) or {t.towards for t in own} >= {Towards.INCREASE, Towards.DECREASE}
        if tries >= PATIENCE and both and not any(tally.gains for tally in own):
            found[name] = tries
    return found


def untried(state: SearchState) -> list[str]:
    """Directions of tried parameters, then whole parameters, that no trial has tried, as phrases."""
    tried = {(tally.parameter, tally.towards) for tally in tallies(state)}
    touched = {name for name, _ in tried}
    phrases = []
    for name in state.active:
        for towards, phrase in ((Towards.DECREASE, "smaller"), (Towards.INCREASE, "larger")):
            if name in touched and ordered(state.parameters[name]) and (name, towards) not in tried:
                phrases.append(f"{phrase} {name}")
    return phrases + [name for name in state.active if name not in touched]


def observations(state: SearchState) -> list[Observation]:
    """Everything that the trace shows to be wrong, the most telling first; empty when the search does well."""
    found = [_fixation(state), _breakage(state), _repetition(state), _neglect(state), _plateau(state)]
    return [observation for observation in found if observation is not None]


def since_gain(state: SearchState) -> int:
    """Decided trials since the newest that was kept."""
    decided = _decided(state)
    kept = [i for i, trial in enumerate(decided) if trial.kept]
    return len(decided) - 1 - kept[-1] if kept else len(decided)


def _decided(state: SearchState) -> list[PastTrial]:
    return [trial for trial in state.trials if not trial.rejected and trial.origin != "baseline"]


def _fixation(state: SearchState) -> Observation | None:
    seen = tallies(state)
    tried = {(tally.parameter, tally.towards) for tally in seen}
    opposite = {Towards.INCREASE: Towards.DECREASE, Towards.DECREASE: Towards.INCREASE}
    stuck = [
        tally
        for tally in seen
        if tally.exhausted and tally.towards in opposite and (tally.parameter, opposite[tally.towards]) not in tried
    ]
    if not stuck:
        return None
    said = [f"{t.towards} {t.parameter} was tried {t.tries} times without gain, the opposite never" for t in stuck]
    return Observation(Failure.FIXATION, "; ".join(said), tuple(tally.parameter for tally in stuck))


def _breakage(state: SearchState) -> Observation | None:
    recent = _decided(state)[-10:]
    broken = [trial for trial in recent if trial.failed]
    if len(broken) < PATIENCE:
        return None
    counts = Counter(trial.outcome for trial in broken)
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    return Observation(Failure.BREAKAGE, f"{len(broken)} of the last {len(recent)} trials failed: {said}")


def _repetition(state: SearchState) -> Observation | None:
    worn = [tally for tally in tallies(state) if tally.worn]
    if not worn:
        return None
    said = [
        f"{tally.towards} {tally.parameter} ({tally.since_gain} times{' since its last gain' if tally.gains else ''})"
        for tally in worn
    ]
    names = tuple(dict.fromkeys(tally.parameter for tally in worn))
    return Observation(Failure.REPETITION, f"repeated without any gain: {', '.join(said)}", names)


def _neglect(state: SearchState) -> Observation | None:
    touched = {tally.parameter for tally in tallies(state)}
    missing = tuple(name for name in state.active if name not in touched)
    if not missing or since_gain(state) < PATIENCE:
        return None
    return Observation(Failure.NEGLECT, f"never tried while nothing gains: {', '.join(missing)}", missing)


def _plateau(state: SearchState) -> Observation | None:
    waited = since_gain(state)
    return Observation(Failure.PLATEAU, f"no gain for {waited} trials") if waited >= PLATEAU else None
