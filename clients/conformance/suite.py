"""Checks of clauses, and running them one after the other within a bounded time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

import grpc

from clients.conformance.wire import Refusal, Wire
from service_kit.exit_codes import ExitCode

SECONDS = 600.0
"""How long a whole examination may take, unless the caller says something else."""


class Violated(Exception):
    """The implementation does not do what the clause says; the text says what it did instead."""


class NotSeen(Exception):
    """The clause cannot be judged on this implementation; the text says why."""


class Verdict(StrEnum):
    """What became of a check."""

    HOLDS = "holds"
    VIOLATED = "violated"
    ADVICE = "advice"
    """A SHOULD that does not hold."""
    NOT_SEEN = "not seen"
    """Cannot be judged here, for example because evaluations are too short to be cancelled."""
    UNDECIDED = "undecided"
    """The time of the examination was over before it."""


class Subject(Protocol):
    """What is examined."""

    wires: Sequence[Wire]
    patience: float
    """Seconds after which a single check is taken for stuck."""


S = TypeVar("S", bound=Subject)
Body = Callable[[S], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Check(Generic[S]):
    """One clause, checked over the wire."""

    clause: str
    """For example TASK-3.2."""
    title: str
    body: Body[S]
    advice: bool
    """Whether the clause is a SHOULD here."""
    profiles: frozenset[str]
    """Profiles to which it belongs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one check."""

    clause: str
    title: str
    verdict: Verdict
    message: str = ""
    """What the implementation did instead, or why nothing could be seen; empty where the clause holds."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Examination:
    """What became of all checks of one implementation."""

    subject: str
    address: str
    profile: str
    findings: Sequence[Finding]
    called: Sequence[str]
    """Full names of the methods that were called."""

    def of(self, *verdicts: Verdict) -> list[Finding]:
        return [finding for finding in self.findings if finding.verdict in verdicts]

    @property
    def exit_code(self) -> ExitCode:
        """Whether every MUST holds, or the time was over before all were checked."""
        if self.of(Verdict.VIOLATED):
            return ExitCode.FAILED
        return ExitCode.UNDECIDED if self.of(Verdict.UNDECIDED) else ExitCode.DONE


@dataclass(slots=True)
class Suite(Generic[S]):
    """The checks of one kind of service. They run in the order of their clauses."""

    subject: str
    profiles: tuple[str, ...]
    """Names that ``--profile`` takes, the default first."""
    checks: list[Check[S]] = field(default_factory=list)

    def check(self, clause: str, *, advice: bool = False, profiles: Sequence[str] = ()) -> Callable[[Body[S]], Body[S]]:
        """Adds the decorated coroutine; its docstring's first line is the title. Without ``profiles``, to all."""

        def add(body: Body[S]) -> Body[S]:
            title = (body.__doc__ or "").strip().splitlines()[0]
            self.checks.append(Check(clause, title, body, advice, frozenset(profiles or self.profiles)))
            return body

        return add

    def selects(self, part: str) -> bool:
        """Whether a clause of the suite is ``part`` or below it."""
        return any(_within(check.clause, part) for check in self.checks)

    async def examine(
        self, subject: S, address: str, profile: str, *, only: Sequence[str] = (), seconds: float = SECONDS
    ) -> Examination:
        """Runs the profile's checks whose clause is one of ``only`` or below one; all of them without."""
        chosen = [
            check
            for check in sorted(self.checks, key=lambda check: _order(check.clause))
            if profile in check.profiles and (not only or any(_within(check.clause, part) for part in only))
        ]
        ends = time.monotonic() + seconds
        findings = [await _judge(check, subject, ends - time.monotonic()) for check in chosen]
        called = sorted({method for wire in subject.wires for method in wire.called})
        return Examination(self.subject, address, profile, findings, called)


def _order(clause: str) -> tuple[str, int, int]:
    """TASK-3.10 after TASK-3.9; what is common to all services comes first."""
    name, _, number = clause.partition("-")
    section, _, item = number.partition(".")
    return name, int(section), int(item)


def _within(clause: str, part: str) -> bool:
    """Whether TASK-3.2 is TASK-3.2, TASK-3 or TASK."""
    return clause == part or clause.startswith((f"{part}.", f"{part}-"))


async def _judge(check: Check[Any], subject: Subject, left: float) -> Finding:
    began = time.monotonic()

    def found(verdict: Verdict, message: str = "") -> Finding:
        return Finding(check.clause, check.title, verdict, message, time.monotonic() - began)

    if left <= 0:
        return found(Verdict.UNDECIDED, "the time of the examination was over; --time-limit allows more")
    wrong = Verdict.ADVICE if check.advice else Verdict.VIOLATED
    limit = min(left, subject.patience)
    try:
        async with asyncio.timeout(limit):
            await check.body(subject)
    except TimeoutError:
        if limit < subject.patience:
            return found(Verdict.UNDECIDED, "the time of the examination was over; --time-limit allows more")
        return found(wrong, f"did not come to an end within {limit:g} s")
    except NotSeen as reason:
        return found(Verdict.NOT_SEEN, str(reason))
    except Violated as violation:
        return found(wrong, str(violation))
    except Refusal as refusal:
        return found(wrong, f"{refusal.method} was refused with {refusal}")
    except grpc.RpcError as error:
        return found(wrong, f"the call failed: {error}")
    return found(Verdict.HOLDS)
