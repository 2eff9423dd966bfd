"""The runs of this service: their life from creation to the end, and who drives them."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

import structlog

from inner_service.control import ConfigChange, updated
from inner_service.creation import check_spec, fitted
from inner_service.installation import Installer
from inner_service.loop import Loop
from inner_service.mechanism_set import MechanismSet
from inner_service.run import Run, RunSpec, RunState, Search, SearchConfig, Trial, TrialState, Values
from inner_service.store import Store
from inner_service.task import EvaluationResult
from inner_service.tasks import Tasks
from inner_service.trace import (
    Event,
    Remarked,
    RunCreated,
    RunStateChanged,
    TrialDecided,
    TrialEvaluated,
    TrialRejected,
)
from mechanisms.sandbox.limits import SandboxPolicy
from service_kit.errors import InvalidArgument, InvalidConfiguration, ServiceError, Violation, WrongState
from service_kit.llm.client import LanguageModel
from service_kit.parameters import Outcome

BY_HAND = (RunState.CREATED, RunState.PAUSED)
"""States in which a client may drive a run."""
_SANDBOX = SandboxPolicy()
_ALIVE = tuple(state for state in RunState if not state.terminal)

log = structlog.get_logger("inner_service.runs")


class Runs:
    """Owns the loops of all runs. Its methods are what clients can do to a run."""

    def __init__(self, store: Store, tasks: Tasks, model: LanguageModel, sandbox: SandboxPolicy = _SANDBOX) -> None:
        self.store = store
        self.tasks = tasks
        self.model = model
        self.sandbox = sandbox
        self._loops: dict[str, Loop] = {}
        self._drivers: dict[str, asyncio.Task[None]] = {}
        self._by_hand: defaultdict[str, set[asyncio.Task[Trial]]] = defaultdict(set)
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def recover(self) -> None:
        """Go on with the runs that were being driven when the service last stopped."""
        for run_id in await self.store.runs_in(RunState.RUNNING, RunState.CONFIRMING):
            log.info("going on with a run", run=run_id)
            self._drive(run_id)

    async def close(self) -> None:
        """Stop driving and end all mechanisms. Interrupted trials are evaluated again after the next start."""
        working = [*self._drivers.values(), *(task for tasks in self._by_hand.values() for task in tasks)]
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        for loop in self._loops.values():
            await loop.mechanisms.close()

    async def create(self, spec: RunSpec, request_id: str = "") -> Run:
        """Raises :class:`InvalidArgument`, :class:`NotFound` for an unknown task and :class:`Unavailable`."""
        check_spec(spec)
        if len(request_id) > 64:
            raise InvalidArgument.of("request_id", f"must have at most 64 characters; got {len(request_id)}")
        task = self.tasks.get(spec.task)
        description = await task.describe()
        spec = fitted(spec, description)
        violations = await task.validate(description.space.validate(spec.start))
        if violations:
            raise InvalidArgument([Violation(f"spec.start.{v.field}", v.description) for v in violations])
        search = await self.store.create(secrets.token_hex(5), RunCreated(spec, description), request_id)
        return search.run

    async def start(self, run_id: str) -> Run:
        """Drive a CREATED run."""
        return await self._set_going(run_id, "start", RunState.CREATED, "started")

    async def resume(self, run_id: str) -> Run:
        """Go on with a PAUSED run."""
        return await self._set_going(run_id, "resume", RunState.PAUSED, "resumed")

    async def pause(self, run_id: str, reason: str = "") -> Run:
        """Let a RUNNING run pause after its current trial."""
        search = await self.store.search(run_id)
        require(search, "pause", RunState.RUNNING)
        (await self._loop(run_id)).pause_reason = reason or "paused on request"
        return search.run

    async def cancel(self, run_id: str, reason: str = "") -> Run:
        """End a run now. Whatever is being evaluated for it is killed."""
        search = await self.store.search(run_id)
        require(search, "cancel", *_ALIVE)
        working = [*self._by_hand.pop(run_id, ()), *filter(None, [self._drivers.pop(run_id, None)])]
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        reason = reason or "cancelled on request"

        def cancelled(search: Search) -> list[Event]:
            require(search, "cancel", *_ALIVE)
            closing = [event for trial in search.open_trials for event in _closed(trial, reason)]
            return [*closing, RunStateChanged(search.run.state, RunState.CANCELLED, reason)]

        commit = await self.store.commit(run_id, cancelled)
        await self._retire(run_id)
        return commit.search.run

    async def propose(
        self, run_id: str, count: int, changes: Values | None = None, hypothesis: str = ""
    ) -> list[Trial]:
        """Propose by hand. Raises :class:`WrongState`, :class:`InvalidArgument` and like :meth:`Loop.propose`."""
        search = await self.store.search(run_id)
        require(search, "propose for", *BY_HAND)
        loop = await self._loop(run_id)
        before = len(search.trials)
        try:
            # A client that goes away must not leave a mechanism in the middle of a call.
            await asyncio.shield(loop.propose(count) if changes is None else loop.propose_own(changes, hypothesis))
        except InvalidConfiguration as error:
            raise InvalidArgument([Violation(f"changes.{v.field}", v.description) for v in error.violations]) from None
        return list((await self.store.search(run_id)).trials[before:])

    async def evaluate(self, run_id: str, number: int) -> Trial:
        """Evaluate by hand. Cancelling kills the work, and the trial's outcome is CANCELLED."""
        search = await self.store.search(run_id)
        require(search, "evaluate a trial of", *BY_HAND)
        work = asyncio.create_task((await self._loop(run_id)).evaluate(number))
        self._by_hand[run_id].add(work)
        try:
            return await work
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            if run_id in self._by_hand:  # else the whole run was cancelled, which closes its trials itself
                await self.store.commit(run_id, lambda s: _evaluated_cancelled(s, number))
            raise
        finally:
            self._by_hand[run_id].discard(work)

    async def accept(self, run_id: str, number: int) -> Trial:
        """Decide by hand."""
        require(await self.store.search(run_id), "accept a trial of", *BY_HAND)
        return await asyncio.shield((await self._loop(run_id)).accept(number))

    async def update_search_config(self, run_id: str, change: ConfigChange) -> SearchConfig:
        """Raises :class:`InvalidArgument`, :class:`Conflict` and :class:`WrongState`."""

        def changed(search: Search) -> list[Event]:
            require(search, "change the search configuration of", *_ALIVE)
            return [updated(search.run, change)]

        return (await self.store.commit(run_id, changed)).search.run.search_config

    async def remark(self, run_id: str, author: str, text: str) -> int:
        """Leave a remark on the trace; returns its number."""
        if not text.strip() or len(text) > 2000:
            raise InvalidArgument.of("text", f"must have 1 to 2000 characters; got {len(text)}")
        commit = await self.store.commit(run_id, lambda _: [Remarked(author, text)])
        return commit.entries[0].sequence

    async def installer(self, run_id: str) -> Installer:
        """What installs mechanisms into the run."""
        loop = await self._loop(run_id)
        return Installer(run_id, self.store, loop.mechanisms, self.sandbox)

    async def loop(self, run_id: str) -> Loop:
        """The run's loop, for reading."""
        return await self._loop(run_id)

    async def _set_going(self, run_id: str, action: str, expected: RunState, reason: str) -> Run:
        def going(search: Search) -> list[Event]:
            require(search, action, expected)
            if self._by_hand.get(run_id):
                by_hand = "being evaluated by hand"
                raise WrongState("run", search.run.name, by_hand, action, ("without a running evaluation",))
            return [RunStateChanged(search.run.state, RunState.RUNNING, reason)]

        commit = await self.store.commit(run_id, going)
        self._drive(run_id)
        return commit.search.run

    def _drive(self, run_id: str) -> None:
        previous = self._drivers.get(run_id)
        self._drivers[run_id] = asyncio.create_task(self._driven(run_id, previous))

    async def _driven(self, run_id: str, previous: asyncio.Task[None] | None) -> None:
        if previous is not None:
            await asyncio.gather(previous, return_exceptions=True)
        try:
            loop = await self._loop(run_id)
        except ServiceError as error:
            reason = str(error)
            await self.store.commit(run_id, lambda s: [RunStateChanged(s.run.state, RunState.PAUSED, reason)])
            return
        await loop.drive()
        if (await self.store.search(run_id)).run.state.terminal:
            await self._retire(run_id)

    async def _loop(self, run_id: str) -> Loop:
        """The run's loop; its mechanisms are started again when this process has not yet."""
        async with self._opening[run_id]:
            if run_id not in self._loops:
                search = await self.store.search(run_id)
                mechanisms = MechanismSet(lambda decide: self.store.commit(run_id, decide))
                await Installer(run_id, self.store, mechanisms, self.sandbox).restore()
                task = self.tasks.get(search.run.spec.task)
                self._loops[run_id] = Loop(run_id, self.store, task, self.model, mechanisms)
            return self._loops[run_id]

    async def _retire(self, run_id: str) -> None:
        """End the processes of a run that has ended."""
        loop = self._loops.get(run_id)
        if loop is not None:
            await loop.mechanisms.close()
            self._loops.pop(run_id, None)


def require(search: Search, action: str, *states: RunState) -> None:
    """Raise :class:`WrongState` unless the run is in one of ``states``."""
    if search.run.state not in states:
        allowed = [state.value for state in states]
        raise WrongState("run", search.run.name, search.run.state.value, action, allowed)


def _closed(trial: Trial, reason: str) -> Sequence[Event]:
    """The events that close an open trial of a run which ends."""
    if trial.state is TrialState.PROPOSED:
        return [TrialRejected(trial.number, f"the run was cancelled: {reason}")]
    decided = TrialDecided(trial.number, False, "the run was cancelled")
    if trial.state is TrialState.EVALUATED:
        return [decided]
    return [TrialEvaluated(trial.number, _cancelled_result(reason)), decided]


def _evaluated_cancelled(search: Search, number: int) -> list[Event]:
    if search.trials[number].state is not TrialState.RUNNING:
        return []
    return [TrialEvaluated(number, _cancelled_result("the caller cancelled the evaluation"))]


def _cancelled_result(reason: str) -> EvaluationResult:
    return EvaluationResult(Outcome.CANCELLED, message=reason, elapsed=timedelta())
