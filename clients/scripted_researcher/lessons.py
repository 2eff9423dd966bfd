"""``lessons``: what the researcher writes down about a trace, by rule and with its evidence.

What gained most comes first, then what nobody tried although its opposite failed, then what broke, then what was tried
again and again for nothing. The sentences use the words that :mod:`clients.scripted_researcher.suggestions` reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clients.scripted_researcher.diagnosis import Failure, Tally, observations, tallies
from clients.scripted_researcher.moves import Towards
from clients.scripted_researcher.state import PastTrial, SearchState

MOST = 5
BREAKS = 2
"""Broken tries of one move that make a lesson."""

_DOING = {Towards.INCREASE: "increasing", Towards.DECREASE: "decreasing", Towards.CHANGE: "changing"}
_OPPOSITE = {Towards.INCREASE: Towards.DECREASE, Towards.DECREASE: Towards.INCREASE}


def lessons(state: SearchState) -> dict[str, Any]:
    """The answer to ``lessons``."""
    seen = tallies(state)
    written = [*_gains(state, seen), *_ideas(state, seen), *_breakages(state, seen), *_exhausted(state, seen)]
    return {"lessons": written[:MOST]}


def _gains(state: SearchState, seen: tuple[Tally, ...]) -> Iterator[dict[str, Any]]:
    best = {(t.parameter, t.towards): _best_gain(state, t) for t in seen if t.gains}
    for tally in sorted((t for t in seen if t.gains), key=lambda t: best[t.parameter, t.towards], reverse=True):
        move, gain = f"{_DOING[tally.towards]} {tally.parameter}", best[tally.parameter, tally.towards]
        unit = f" {state.objective.unit}" if state.objective.unit else ""
        advice = f"; try {move}" if 2 * tally.gains >= tally.tries else ""
        said = f"{move} was kept in {tally.gains} of {tally.tries} trials, the best gain {gain:.4g}{unit}{advice}"
        yield _lesson(said, tally, _trials(state, tally))


def _ideas(state: SearchState, seen: tuple[Tally, ...]) -> Iterator[dict[str, Any]]:
    fixations = [o for o in observations(state) if o.failure is Failure.FIXATION]
    stuck = {name for observation in fixations for name in observation.parameters}
    for tally in seen:
        if tally.parameter in stuck and tally.exhausted and tally.towards in _OPPOSITE:
            other = f"{_DOING[_OPPOSITE[tally.towards]]} {tally.parameter}"
            said = f"{_DOING[tally.towards]} {tally.parameter} failed {tally.tries} times and {other} was never tried"
            yield _lesson(f"{said}; try {other}", tally, _trials(state, tally), kind="idea")


def _breakages(state: SearchState, seen: tuple[Tally, ...]) -> Iterator[dict[str, Any]]:
    for tally in seen:
        broken = [trial for trial in _trials(state, tally) if trial.failed]
        if len(broken) >= BREAKS and not tally.gains:
            move = f"{_DOING[tally.towards]} {tally.parameter}"
            how = ", ".join(sorted({str(trial.outcome).replace("_", " ") for trial in broken}))
            said = f"{move} broke {len(broken)} of {tally.tries} trials ({how}); avoid {move}"
            yield _lesson(said, tally, broken, failure="implementation")


def _exhausted(state: SearchState, seen: tuple[Tally, ...]) -> Iterator[dict[str, Any]]:
    for tally in seen:
        if tally.exhausted and not tally.broken:
            move = f"{_DOING[tally.towards]} {tally.parameter}"
            said = f"{move} was tried {tally.tries} times without gain; avoid {move}"
            yield _lesson(said, tally, _trials(state, tally), failure="fundamental")


def _lesson(
    said: str, tally: Tally, evidence: list[PastTrial], kind: str = "experiment", failure: str = "none"
) -> dict[str, Any]:
    return {
        "statement": f"scripted: {said}.",
        "kind": kind,
        "failure": failure,
        "evidence": [trial.number for trial in evidence],
        "parameters": [tally.parameter],
        "any_hardware": False,
    }


def _trials(state: SearchState, tally: Tally) -> list[PastTrial]:
    """The decided trials that a tally counts."""
    return [
        trial
        for trial in state.trials
        if not trial.rejected and trial.origin != "baseline" and trial.directions.get(tally.parameter) == tally.towards
    ]


def _best_gain(state: SearchState, tally: Tally) -> float:
    return max(
        state.objective.gain(trial.incumbent_metric, trial.metric)
        for trial in _trials(state, tally)
        if trial.metric is not None and trial.incumbent_metric is not None
    )
