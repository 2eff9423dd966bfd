"""Everything that can happen to a campaign, as frozen dataclasses with a JSON form.

An event's class name in snake case is its kind, in the log and on the wire. Fields are only ever added, with a default,
so that old logs stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, get_args

from pydantic import TypeAdapter

from outer_service.campaign import (
    CampaignState,
    Level,
    Offer,
    Policy,
    ProcedureAdvice,
    ResearchOutcome,
    Round,
    Turn,
    Verdict,
)
from outer_service.comparison import Comparison
from outer_service.observed import GateReport, MechanismEffect
from outer_service.procedures import ProcedureState
from service_kit.eventlog import NewEvent
from service_kit.patience import AvailabilityChanged


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
    procedure: str = ""
    """SHA-256 of the research procedure that it works by; empty for the default."""
    owner: str = ""


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
    revision: int = 0
    """The revision of the search configuration that it made; 0 when it was not applied."""


@dataclass(frozen=True, slots=True)
class RevisionEffect:
    """What happened under one revision of the search configuration; the baseline is not counted."""

    revision: int
    trials: int
    kept: int
    failed: int
    """Trials that ended without a metric."""
    gain_per_trial: float
    """Of the best metric, in the objective's unit, positive is better."""
    tried: Mapping[str, int]
    """Parameters that the trials changed, counted once a trial."""


@dataclass(frozen=True, slots=True)
class ConfigurationMeasured:
    decided_trials: int
    revisions: tuple[RevisionEffect, ...]


@dataclass(frozen=True, slots=True)
class ResearchStarted:
    session: str
    after_trial: int
    offered: tuple[Offer, ...] = ()
    replaces: tuple[str, ...] = ()
    advice: ProcedureAdvice | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    """What a research procedure was or would have been asked on; built-in JSON types."""


@dataclass(frozen=True, slots=True)
class LibraryEntryChosen:
    """The critique chose what the library offered: it is tried again under the same gate and probation."""

    session: str
    offer: Offer
    reason: str


@dataclass(frozen=True, slots=True)
class HistoryCleared:
    """The restart control hid all trials before ``visible_from_trial`` from the proposer."""

    session: str
    visible_from_trial: int
    revision: int


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
    derived_from: str = ""
    """Resource name of the library entry that the mechanism is or was derived from; empty for a new idea."""


@dataclass(frozen=True, slots=True)
class VerdictReached:
    mechanism: str
    verdict: Verdict
    reason: str
    effect: MechanismEffect
    gain_before: float
    """Gain a trial before its installation, in the objective's unit."""
    gain_during: float
    """Gain a trial in the period that is judged, in the objective's unit."""
    examination: int = 1
    """Later ones examine a kept mechanism again."""
    trials: int = 0
    """Trials decided in the period that is judged."""
    before_after: Comparison | None = None
    """Trials kept in the period against as many before the installation; None where there is nothing to compare."""
    touched: Comparison | None = None
    """Trials of the period that it proposed or changed against those that it left alone; None where either is none."""
    changed_decisions: int = 0
    """Decisions that it changed in the period."""
    decided_trials: int = 0
    """Trials decided when the verdict was reached."""


@dataclass(frozen=True, slots=True)
class ProcedureJudged:
    """A change of the research procedure was proposed and judged; no source where none was proposed."""

    turn: Turn
    attempt: int
    reason: str
    source: str = ""
    report: GateReport | None = None


@dataclass(frozen=True, slots=True)
class ProcedureChanged:
    """A research procedure began its probation, or was kept or retired."""

    procedure: str
    """SHA-256 of its source."""
    state: ProcedureState
    reason: str
    sessions: Comparison | None = None
    """Sessions whose mechanism was kept, under it and under its predecessor."""
    campaigns: int = 0


Event: TypeAlias = (
    CampaignCreated
    | CampaignStateChanged
    | CycleStarted
    | CycleFinished
    | AnalysisFinished
    | ConfigurationMeasured
    | ResearchStarted
    | LibraryEntryChosen
    | HistoryCleared
    | RoundFinished
    | MechanismJudged
    | ResearchFinished
    | VerdictReached
    | ProcedureJudged
    | ProcedureChanged
    | AvailabilityChanged
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
