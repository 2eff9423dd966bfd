"""Everything that can happen to a campaign, as frozen dataclasses with a JSON form.

An event's class name in snake case is its kind, in the log and on the wire. Fields are only ever added, with a default,
so that old logs stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

from pydantic import TypeAdapter

from outer_service.campaign import CampaignState, Level, Policy, ResearchOutcome, Round, Turn, Verdict
from outer_service.observed import GateReport, MechanismEffect
from service_kit.eventlog import NewEvent


@dataclass(frozen=True, slots=True)
class FreezeReason:
    """Why one parameter was frozen or unfrozen."""

    parameter: str
    reason: str


@dataclass(frozen=True, slots=True)
class CampaignCreated:
    """The first event of every campaign."""

    run: str
    task: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class CampaignStateChanged:
    from_state: CampaignState
    to_state: CampaignState
    reason: str


@dataclass(frozen=True, slots=True)
class CycleStarted:
    cycle: int
    decided_trials: int
    levels: tuple[Level, ...]
    run_sequence: int
    """Number of the trace event that caused it."""


@dataclass(frozen=True, slots=True)
class CycleFinished:
    """``counted`` says whether an error counts towards the policy's max_failures."""

    cycle: int
    error: str = ""
    counted: bool = True


@dataclass(frozen=True, slots=True)
class AnalysisFinished:
    turn: Turn
    observation: str = ""
    freeze: tuple[FreezeReason, ...] = ()
    unfreeze: tuple[FreezeReason, ...] = ()
    strategy: str = ""
    guidance: str = ""
    guarded: tuple[str, ...] = ()
    """What the guard rails removed, in sentences."""
    applied: bool = False


@dataclass(frozen=True, slots=True)
class ResearchStarted:
    session: str
    after_trial: int


@dataclass(frozen=True, slots=True)
class RoundFinished:
    session: str
    round: Round
    turn: Turn
    summary: str
    answer: str = ""
    """The answer in the schema's own JSON; empty when the round failed."""


@dataclass(frozen=True, slots=True)
class MechanismJudged:
    session: str
    attempt: int
    report: GateReport
    source: str


@dataclass(frozen=True, slots=True)
class ResearchFinished:
    session: str
    outcome: ResearchOutcome
    message: str
    mechanism: str = ""
    source_sha256: str = ""
    after_decided: int = 0
    """Trials decided when the mechanism was installed."""
    control: bool = False


@dataclass(frozen=True, slots=True)
class VerdictReached:
    mechanism: str
    verdict: Verdict
    reason: str
    effect: MechanismEffect
    gain_before: float
    """Gain a trial before its installation, in the objective's unit."""
    gain_during: float
    """Gain a trial since its installation, in the objective's unit."""


Event: TypeAlias = (
    CampaignCreated
    | CampaignStateChanged
    | CycleStarted
    | CycleFinished
    | AnalysisFinished
    | ResearchStarted
    | RoundFinished
    | MechanismJudged
    | ResearchFinished
    | VerdictReached
)


def kind_of(event: Event | type[Event]) -> str:
    """The event's kind: its class name in snake case, as the wire names it."""
    name = event.__name__ if isinstance(event, type) else type(event).__name__
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


_ADAPTERS: dict[str, TypeAdapter[Any]] = {kind_of(type_): TypeAdapter(type_) for type_ in get_args(Event)}


def encode(event: Event) -> NewEvent:
    """The event as the log keeps it."""
    kind = kind_of(event)
    return NewEvent(kind, _ADAPTERS[kind].dump_python(event, mode="json"))


def decode(kind: str, payload: Mapping[str, Any]) -> Event:
    """The inverse of :func:`encode`."""
    event: Event = _ADAPTERS[kind].validate_python(payload)
    return event
