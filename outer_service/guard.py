"""Guard rails of level 1.5: what an analysis may change, whatever the model says. Every refusal is a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mechanisms.interface import TrialRecord
from outer_service.events import FreezeReason
from outer_service.observed import ObservedRun

LEAST_TRIES = 3
"""Tries without gain before a parameter may be frozen."""
MOST_FREEZES = 5
"""New freezes of one cycle."""
LEAST_ACTIVE = 4
"""Parameters that stay active."""
GUIDANCE_CHARACTERS = 2000
STRATEGY_CHARACTERS = 200
REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Guarded:
    """What is left of an analysis, and what was removed."""

    freeze: tuple[FreezeReason, ...]
    unfreeze: tuple[FreezeReason, ...]
    strategy: str
    guidance: str
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tries:
    """How often a parameter was changed, and how often the changed trial was kept."""

    count: int = 0
    kept: int = 0


def tries_of(trials: Sequence[TrialRecord]) -> Mapping[str, Tries]:
    """Decided trials that changed each parameter; rejected ones never ran and do not count."""
    found: dict[str, Tries] = {}
    for trial in trials:
        if trial.kept is None:
            continue
        for name in trial.changes:
            before = found.get(name, Tries())
            found[name] = Tries(before.count + 1, before.kept + trial.kept)
    return found


def guarded(
    run: ObservedRun,
    trials: Sequence[TrialRecord],
    freeze: Sequence[FreezeReason],
    unfreeze: Sequence[FreezeReason],
    strategy: str,
    guidance: str,
) -> Guarded:
    """The part of an analysis that may be applied to ``run``."""
    refused: list[str] = []
    thawed = _unfreezable(run, unfreeze, refused)
    frozen = _freezable(run, trials, freeze, {entry.parameter for entry in thawed}, refused)
    return Guarded(
        tuple(frozen),
        tuple(thawed),
        _capped("strategy", strategy, STRATEGY_CHARACTERS, refused),
        _capped("guidance", guidance, GUIDANCE_CHARACTERS, refused),
        tuple(refused),
    )


def _unfreezable(run: ObservedRun, unfreeze: Sequence[FreezeReason], refused: list[str]) -> list[FreezeReason]:
    accepted: list[FreezeReason] = []
    for entry in unfreeze:
        name = entry.parameter
        if problem := _unknown(run, name):
            refused.append(f"unfreeze {name}: {problem}")
        elif name not in run.config.frozen:
            refused.append(f"unfreeze {name}: it is not frozen")
        elif name not in [other.parameter for other in accepted]:
            accepted.append(_shortened(entry))
    return accepted


def _freezable(
    run: ObservedRun,
    trials: Sequence[TrialRecord],
    freeze: Sequence[FreezeReason],
    thawed: set[str],
    refused: list[str],
) -> list[FreezeReason]:
    tries = tries_of(trials)
    active = len(run.active) + len(thawed)
    accepted: list[FreezeReason] = []
    for entry in freeze:
        name = entry.parameter
        seen = tries.get(name, Tries())
        if problem := _unknown(run, name):
            reason = problem
        elif name in thawed:
            reason = "the same answer unfreezes it"
        elif name in run.config.frozen or name in [other.parameter for other in accepted]:
            reason = "it is frozen already"
        elif seen.kept:
            reason = f"{seen.kept} of {seen.count} trials with it were kept; only parameters without gain may be frozen"
        elif seen.count < LEAST_TRIES:
            reason = f"tried {seen.count} times; at least {LEAST_TRIES} tries without gain are needed"
        elif len(accepted) == MOST_FREEZES:
            reason = f"at most {MOST_FREEZES} new freezes a cycle"
        elif active - len(accepted) <= LEAST_ACTIVE:
            reason = f"at least {LEAST_ACTIVE} parameters stay active"
        else:
            accepted.append(_shortened(entry))
            continue
        refused.append(f"freeze {name}: {reason}")
    return accepted


def _unknown(run: ObservedRun, name: str) -> str:
    space = run.task.space
    if name not in space:
        return f"is not a parameter; known are {', '.join(space.names)}"
    return "the task locks it" if space[name].locked else ""


def _capped(field: str, text: str, most: int, refused: list[str]) -> str:
    text = text.strip()
    if len(text) <= most:
        return text
    refused.append(f"{field}: cut from {len(text)} to {most} characters")
    return text[:most]


def _shortened(entry: FreezeReason) -> FreezeReason:
    return FreezeReason(entry.parameter, entry.reason[:REASON_CHARACTERS])
