"""The mechanisms of one run at work: asks their hooks, counts the calls, and parts with one that fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import structlog

from inner_service.conflicts import Conflict, loser
from inner_service.mechanism import HookEffect, MechanismState
from inner_service.run import Search
from inner_service.trace import Event, HooksCounted, MechanismHookCounts, MechanismsConflicted, MechanismSuspended
from mechanisms.interface import Candidate, Hook, SearchView, TrialRecord
from mechanisms.sandbox.host import FailureKind, MechanismFailure, MechanismProcess
from service_kit.telemetry import metrics, tracing

T = TypeVar("T")
Commit = Callable[[Callable[[Search], Sequence[Event]]], Awaitable[object]]
"""Commits events of the set's run."""

log = structlog.get_logger("inner_service.mechanisms")


@dataclass(slots=True)
class Member:
    """One mechanism and its process. Its calls are serialised; it has observed the first ``observed`` decisions."""

    name: str
    process: MechanismProcess
    since: int = 0
    """Number of the first trial that it acts on."""
    observed: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    calls: dict[Hook, tuple[int, float]] = field(default_factory=dict)
    """Calls since the last count and the seconds that they took, by hook."""
    changed: dict[Hook, int] = field(default_factory=dict)

    async def catch_up(self, history: Sequence[TrialRecord]) -> None:
        """Observe what it has not yet observed. Raises MechanismFailure."""
        while self.observed < len(history):
            with self.timed(Hook.OBSERVE):
                await self.process.observe(history[self.observed])
            self.observed += 1

    def timed(self, hook: Hook) -> _Timed:
        return _Timed(self, hook)


class _Timed:
    """Counts one call of a hook."""

    def __init__(self, member: Member, hook: Hook) -> None:
        self._member, self._hook = member, hook

    def __enter__(self) -> None:
        hook = self._hook.value
        self._span = tracing.span(f"mechanism {hook}", {"bilevel.mechanism": self._member.name, "bilevel.hook": hook})
        self._span.__enter__()
        self._started = time.perf_counter()

    def __exit__(self, *error: Any) -> None:
        calls, seconds = self._member.calls.get(self._hook, (0, 0.0))
        spent = time.perf_counter() - self._started
        self._member.calls[self._hook] = (calls + 1, seconds + spent)
        metrics.HOOK_CALLS.add(hook=self._hook.value)
        metrics.HOOK_SECONDS.add(spent, hook=self._hook.value)
        self._span.__exit__(*error)


class MechanismSet:
    """The active mechanisms of one run, in the order of installation."""

    def __init__(self, commit: Commit) -> None:
        self.changing = asyncio.Lock()
        """Held while the set and the trace may disagree about who belongs to it."""
        self._commit = commit
        self._members: list[Member] = []

    def implementing(self, hook: Hook) -> tuple[Member, ...]:
        """The members that have ``hook``, oldest first."""
        return tuple(member for member in self._members if hook in member.process.hooks)

    @property
    def names(self) -> tuple[str, ...]:
        """Who is asked, oldest first."""
        return tuple(member.name for member in self._members)

    def join(self, member: Member) -> None:
        """From now on ``member`` is asked."""
        self._members.append(member)

    async def leave(self, name: str) -> None:
        """Stop asking a mechanism and end its process, when its current call is over; its last calls are counted."""
        for member in [m for m in self._members if m.name == name]:
            self._members.remove(member)
            async with member.lock:
                await member.process.close()
            await self._count([member])

    async def close(self) -> None:
        """End all processes; the mechanisms stay active and can be started again. Safe to call again when cancelled."""
        while self._members:
            await self._members[-1].process.close()
            self._members.pop()

    async def texts(self, view: SearchView) -> dict[str, str]:
        """What mechanisms add to the proposer's prompt, by name."""
        answers = await self._ask_all(Hook.PROMPT, view, lambda process: process.prompt(view))
        return {name: text for name, text in answers if text}

    async def proposals(self, view: SearchView, count: int) -> list[tuple[str, tuple[Candidate, ...]]]:
        """Each proposing mechanism's candidates."""
        return await self._ask_all(Hook.PROPOSE, view, lambda process: process.propose(view, count))

    async def revise(self, view: SearchView, candidate: Candidate) -> list[tuple[str, Candidate]]:
        """The candidate after each mechanism that revises; each is given what the one before it returned."""
        steps: list[tuple[str, Candidate]] = []
        for member in self.implementing(Hook.REVISE):
            answer = await self._revised(member, view, steps[-1][1] if steps else candidate)
            if answer is not None:
                steps.append((member.name, answer))
        return steps

    async def veto(self, view: SearchView, candidate: Candidate) -> tuple[str, str] | None:
        """The first mechanism that refuses the candidate, and why."""
        for member in self.implementing(Hook.VETO):
            reason = await self._ask(member, Hook.VETO, view, lambda process: process.veto(view, candidate))
            if reason is not None:
                return member.name, reason
        return None

    async def rank(self, view: SearchView, candidates: Sequence[Candidate]) -> list[tuple[str, tuple[float, ...]]]:
        """Each ranking mechanism's scores, higher is better."""
        return await self._ask_all(Hook.RANK, view, lambda process: process.rank(view, candidates))

    async def budget(self, view: SearchView, candidate: Candidate) -> list[tuple[str, float]]:
        """The fraction of the budget that each mechanism would spend."""
        return await self._ask_all(Hook.BUDGET, view, lambda process: process.budget(view, candidate))

    async def accept(self, view: SearchView, trial: TrialRecord) -> list[tuple[str, bool]]:
        """The advice of each mechanism that has some, oldest first; those that came after the trial are not asked."""
        answers = []
        for member in self.implementing(Hook.ACCEPT):
            if member.since <= trial.number:
                advice = await self._ask(member, Hook.ACCEPT, view, lambda process: process.accept(view, trial))
                answers += [(member.name, advice)] if advice is not None else []
        return answers

    async def observe(self, history: Sequence[TrialRecord]) -> None:
        """Let every mechanism see the decisions that it has not seen."""
        for member in tuple(self._members):
            async with member.lock:
                try:
                    await member.catch_up(history)
                except MechanismFailure as failure:
                    await self._suspend(member, failure)

    def count_change(self, name: str, hook: Hook) -> None:
        """A call of ``hook`` changed a decision."""
        for member in self._members:
            if member.name == name:
                member.changed[hook] = member.changed.get(hook, 0) + 1

    async def count(self) -> None:
        """Put the calls since the last count on the trace."""
        await self._count(self._members)

    async def suspend(self, name: str, message: str) -> None:
        """Part with a mechanism that obstructs the search."""
        for member in [m for m in self._members if m.name == name]:
            hook = Hook.VETO if Hook.VETO in member.process.hooks else Hook.REVISE
            async with member.lock:
                await self._suspend(member, MechanismFailure(hook, FailureKind.OBSTRUCTED, message))

    async def resolve(self, conflict: Conflict) -> str:
        """Part with one of two mechanisms that work against each other, with both on the trace; returns its name."""
        gone: list[str] = []

        def conflicted(search: Search) -> list[Event]:
            gone[:] = [loser(search, conflict.mechanisms)]
            order = [mechanism.name for mechanism in search.mechanisms]
            both = tuple(sorted(conflict.mechanisms, key=order.index))
            return [MechanismsConflicted(conflict.kind, both, gone[0], conflict.evidence, len(search.trials))]

        await self._commit(conflicted)
        other = next(name for name in conflict.mechanisms if name != gone[0])
        failure = MechanismFailure(conflict.kind.hook, FailureKind.CONFLICTED, f"with {other}: {conflict.evidence}")
        for member in [m for m in self._members if m.name == gone[0]]:
            async with member.lock:
                await self._suspend(member, failure)
        return gone[0]

    async def _count(self, members: Sequence[Member]) -> None:
        counts = _taken(members)
        if counts:
            await self._commit(lambda search: [HooksCounted(len(search.trials) - 1, counts)])

    async def _revised(self, member: Member, view: SearchView, given: Candidate) -> Candidate | None:
        return await self._ask(member, Hook.REVISE, view, lambda process: process.revise(view, given))

    async def _ask_all(
        self, hook: Hook, view: SearchView, question: Callable[[MechanismProcess], Awaitable[T | None]]
    ) -> list[tuple[str, T]]:
        answers: list[tuple[str, T]] = []
        for member in self.implementing(hook):
            answer = await self._ask(member, hook, view, question)
            if answer is not None:
                answers.append((member.name, answer))
        return answers

    async def _ask(
        self, member: Member, hook: Hook, view: SearchView, question: Callable[[MechanismProcess], Awaitable[T | None]]
    ) -> T | None:
        """One hook's answer, or None when the mechanism has left or fails, which suspends it."""
        async with member.lock:
            if member not in self._members:
                return None
            try:
                await member.catch_up(view.history)
                with member.timed(hook):
                    return await question(member.process)
            except MechanismFailure as failure:
                await self._suspend(member, failure)
                return None

    async def _suspend(self, member: Member, failure: MechanismFailure) -> None:
        if member not in self._members:
            return
        self._members.remove(member)
        await member.process.close()
        metrics.HOOK_FAILURES.add(hook=failure.hook.value, kind=failure.kind.value)
        log.warning("mechanism suspended", mechanism=member.name, reason=str(failure))
        await self._count([member])
        await self._commit(lambda search: suspension(search, member.name, failure))


def suspension(search: Search, name: str, failure: MechanismFailure) -> list[Event]:
    """The event that ends an active mechanism which failed; none when it is not active any more."""
    mechanism = search.mechanism(name)
    if mechanism is None or mechanism.state is not MechanismState.ACTIVE:
        return []
    # Most hooks are asked about a trial that has no number yet: it gets the next one.
    newest = len(search.trials) - 1
    trial = newest if failure.hook in (Hook.ACCEPT, Hook.OBSERVE, Hook.INIT) else newest + 1
    return [
        MechanismSuspended(name, failure.hook, failure.kind.value, failure.message, failure.line or 0, max(trial, 0))
    ]


def _taken(members: Sequence[Member]) -> tuple[MechanismHookCounts, ...]:
    """The members' calls since they were last counted; a new count begins."""
    counts = tuple(
        MechanismHookCounts(m.name, _effects(m), m.observed, m.process.state_hash) for m in members if m.calls
    )
    for member in members:
        member.calls, member.changed = {}, {}
    return counts


def _effects(member: Member) -> tuple[HookEffect, ...]:
    return tuple(
        HookEffect(hook, member.calls[hook][0], member.changed.get(hook, 0), timedelta(seconds=member.calls[hook][1]))
        for hook in Hook
        if hook in member.calls
    )
