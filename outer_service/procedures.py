"""Research procedures over campaigns: which one is in force, what it led to, and whether it stays.

State is what the log says: a stream of its own holds when a procedure was adopted, what each campaign came to under
which procedure, and the rulings. The default procedure has no source and the empty hash.

The rule: after ``n`` campaigns under a new procedure (``n`` the policy's procedure_probation), the share of research
sessions whose mechanism was kept is compared with the campaigns under its predecessor. It is retired where no session
took place, where the interval of the difference lies below 0, or where none was kept and some were before. Otherwise it
stays, which is no claim that it is better: the reason has the interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

from pydantic import TypeAdapter

from outer_service.comparison import Comparison
from service_kit.eventlog import NewEvent

STREAM = "procedures"


class ProcedureState(StrEnum):
    """Where a procedure is in its life."""

    PROBATION = "probation"
    KEPT = "kept"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Adopted:
    """A procedure begins its probation."""

    sha256: str
    source: str
    summary: str
    author: str
    campaign: str
    """Resource name of the campaign that proposed it."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A campaign ended."""

    campaign: str
    procedure: str
    """SHA-256 of the procedure that it worked by; empty for the default."""
    sessions: int
    kept: int
    """Sessions whose mechanism stood at the end, its newest verdict being to keep it."""


@dataclass(frozen=True, slots=True)
class Ruled:
    """A procedure's probation ended, or it failed."""

    sha256: str
    state: ProcedureState
    reason: str


ProcedureEvent: TypeAlias = Adopted | Counted | Ruled
_KINDS: dict[str, type[ProcedureEvent]] = {"adopted": Adopted, "counted": Counted, "ruled": Ruled}
_NAMES = {cls: kind for kind, cls in _KINDS.items()}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {kind: TypeAdapter(cls) for kind, cls in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Procedures:
    """The fold of the stream."""

    known: Mapping[str, Adopted]
    """By hash, also those that are gone."""
    current: str = ""
    """Hash of the one in force; empty for the default."""
    state: ProcedureState = ProcedureState.KEPT
    predecessor: str = ""
    """What was in force before the current one."""
    counted: tuple[Counted, ...] = ()

    @property
    def on_probation(self) -> bool:
        return self.state is ProcedureState.PROBATION

    def has(self, campaign: str) -> bool:
        """Whether the campaign was counted."""
        return any(counted.campaign == campaign for counted in self.counted)

    def tally(self, procedure: str) -> tuple[int, int, int]:
        """Campaigns under a procedure, their sessions, and the sessions whose mechanism was kept."""
        mine = [counted for counted in self.counted if counted.procedure == procedure]
        return len(mine), sum(c.sessions for c in mine), sum(c.kept for c in mine)


def apply(procedures: Procedures, event: ProcedureEvent) -> Procedures:
    """The state after ``event``."""
    match event:
        case Adopted():
            known = {**procedures.known, event.sha256: event}
            return replace(
                procedures,
                known=known,
                current=event.sha256,
                state=ProcedureState.PROBATION,
                predecessor=procedures.current,
            )
        case Counted():
            return replace(procedures, counted=(*procedures.counted, event))
        case Ruled(sha256, state, _):
            if sha256 != procedures.current:
                return procedures
            if state is ProcedureState.RETIRED:
                back = procedures.predecessor
                return replace(procedures, current=back, state=ProcedureState.KEPT, predecessor="")
            return replace(procedures, state=state)


def fold(events: Iterable[ProcedureEvent]) -> Procedures:
    procedures = Procedures({})
    for event in events:
        procedures = apply(procedures, event)
    return procedures


def ruling(procedures: Procedures, probation: int) -> tuple[Ruled, Comparison | None, int] | None:
    """The ruling on the current procedure with its numbers; None while its probation lasts."""
    if not procedures.on_probation:
        return None
    campaigns, sessions, kept = procedures.tally(procedures.current)
    if campaigns < probation:
        return None
    _, sessions_before, kept_before = procedures.tally(procedures.predecessor)
    comparison = Comparison.of(kept, sessions, kept_before, sessions_before)
    numbers = f"; sessions whose mechanism was kept: {comparison}" if comparison is not None else ""
    if not sessions:
        state, why = ProcedureState.RETIRED, "no research took place under it"
    elif comparison is not None and comparison.worse:
        state, why = ProcedureState.RETIRED, "fewer sessions led to a mechanism that was kept than before it"
    elif not kept and kept_before:
        state, why = ProcedureState.RETIRED, "no session led to a mechanism that was kept, and some did before it"
    elif comparison is not None and comparison.better:
        state, why = ProcedureState.KEPT, "more sessions led to a mechanism that was kept than before it"
    else:
        state, why = ProcedureState.KEPT, "nothing speaks against it; an effect is not established"
    return Ruled(procedures.current, state, f"{why}, after {campaigns} campaigns{numbers}"), comparison, campaigns


def encode(event: ProcedureEvent) -> NewEvent:
    """The event as the log keeps it."""
    kind = _NAMES[type(event)]
    return NewEvent(kind, _ADAPTERS[kind].dump_python(event, mode="json"))


def decode(kind: str, payload: Mapping[str, Any]) -> ProcedureEvent:
    """The inverse of :func:`encode`."""
    event: ProcedureEvent = _ADAPTERS[kind].validate_python(payload)
    return event
