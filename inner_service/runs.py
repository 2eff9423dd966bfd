"""The runs of this service: their life from creation to the end, and who drives them.

Ownership: of all services on one database, the one that holds a run's lease drives it, and nobody else does. Any of
them answers for any run. What the driver has to do is on the trace, where it finds it before its next step: a pause
that was asked for, another search configuration, a mechanism that was installed or removed. Only cancelling does not
wait: it ends the run and, in the same transaction, everybody's leases of it.

Concurrency: every second a service renews its leases, stops working on what it has lost, and takes over runs whose
driver has died. It goes on with them as after a restart.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

import structlog

from inner_service.amendments import IllegalEvent
from inner_service.control import ConfigChange, updated
from inner_service.creation import check_spec, fitted
from inner_service.driving import Driver
from inner_service.installation import Installer
from inner_service.loop import Loop
from inner_service.mechanism_set import MechanismSet
from inner_service.run import Run, RunSpec, RunState, Search, SearchConfig, Trial, TrialState, Values
from inner_service.store import Store, stream_of
from inner_service.task import EvaluationResult
from inner_service.tasks import Tasks
from inner_service.trace import (
    Event,
    PauseRequested,
    Remarked,
    RunCreated,
    RunStateChanged,
    TrialDecided,
    TrialEvaluated,
    TrialRejected,
)
from mechanisms.sandbox.limits import SandboxPolicy
from service_kit import context
from service_kit.errors import (
    Conflict,
    InvalidArgument,
    InvalidConfiguration,
    ServiceError,
    StorageFailed,
    Violation,
    WrongState,
)
from service_kit.leases import LeaseLost
from service_kit.llm.client import LanguageModel
from service_kit.parameters import Outcome
from service_kit.patience import AvailabilityChanged, Waiting
from service_kit.security.quota import NO_LIMIT, Quota
from service_kit.telemetry import metrics, tracing

BY_HAND = (RunState.CREATED, RunState.PAUSED)
"""States in which a client may drive a run."""
DRIVEN = (RunState.RUNNING, RunState.CONFIRMING)
"""States in which the service drives a run."""
_SANDBOX = SandboxPolicy()
_PULSE_SECONDS = 1.0
_ALIVE = tuple(state for state in RunState if not state.terminal)

log = structlog.get_logger("inner_service.runs")


class Runs:
    """Owns the loops of all runs. Its methods are what clients can do to a run."""

    def __init__(
        self,
        store: Store,
        tasks: Tasks,
        model: LanguageModel,
        sandbox: SandboxPolicy = _SANDBOX,
        patience: float = 0.0,
        quota: Quota = NO_LIMIT,
    ) -> None:
        """``patience`` is how many seconds a driven run waits for a task or a model that is away."""
        self.store = store
        self.tasks = tasks
        self.model = model
        self.sandbox = sandbox
        self.patience = patience
        self.quota = quota
        self._loops: dict[str, Loop] = {}
        self._drivers: dict[str, asyncio.Task[None]] = {}
        self._by_hand: defaultdict[str, set[asyncio.Task[Trial]]] = defaultdict(set)
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._pulse: asyncio.Task[None] | None = None
        self._leaving = False

    async def recover(self) -> None:
        """Go on with the runs that nobody drives, now and, on a database that is shared, from now on."""
        await self._take_over()
        if self.store.shared:
            self._pulse = asyncio.create_task(self._beat())

    def leave(self) -> None:
        """The service goes down: what is cut off from now on was interrupted, and not cancelled by its caller."""
        self._leaving = True

    async def close(self) -> None:
        """Stop driving and end all mechanisms. Interrupted trials are evaluated again by whoever goes on."""
        self.leave()
        working = [*self._drivers.values(), *(task for tasks in self._by_hand.values() for task in tasks)]
        if self._pulse is not None:
            working.append(self._pulse)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        for loop in self._loops.values():
            await loop.mechanisms.close()

    async def create(self, spec: RunSpec, request_id: str = "", owner: str = "") -> Run:
        """Raises :class:`InvalidArgument`, :class:`NotFound` for an unknown task, :class:`Unavailable`, and
        :class:`Exhausted` when ``owner`` has as many runs as it may."""
        check_spec(spec, priced=self.model.priced)
        if len(request_id) > 64:
            raise InvalidArgument.of("request_id", f"must have at most 64 characters; got {len(request_id)}")
        task = self.tasks.get(spec.task)
        description = await task.describe()
        spec = fitted(spec, description)
        violations = await task.validate(description.space.validate(spec.start))
        if violations:
            raise InvalidArgument([Violation(f"spec.start.{v.field}", v.description) for v in violations])
        created = RunCreated(spec, description, owner)
        search = await self.store.create(secrets.token_hex(5), created, request_id, self.quota)
        return search.run

    async def start(self, run_id: str) -> Run:
        """Drive a CREATED run."""
        return await self._set_going(run_id, "start", RunState.CREATED, "started")

    async def resume(self, run_id: str) -> Run:
        """Go on with a PAUSED run."""
        return await self._set_going(run_id, "resume", RunState.PAUSED, "resumed")

    async def pause(self, run_id: str, reason: str = "") -> Run:
        """Let a RUNNING run pause after its current trials."""

        def requested(search: Search) -> list[Event]:
            require(search, "pause", RunState.RUNNING)
            return [PauseRequested(reason or "paused on request")]

        return (await self.store.commit(run_id, requested)).search.run

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

        commit = await self.store.commit(run_id, cancelled, revoke=True)
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
        require(await self.store.search(run_id), "evaluate a trial of", *BY_HAND)
        work = asyncio.create_task(self._evaluate(run_id, number))
        self._by_hand[run_id].add(work)
        try:
            return await work
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            # A run that was cancelled closes its trials itself, and a service that goes down has not decided anything.
            if run_id in self._by_hand and not self._leaving:
                await self.store.commit(run_id, lambda s: _evaluated_cancelled(s, number))
            raise
        finally:
            self._by_hand[run_id].discard(work)

    async def _evaluate(self, run_id: str, number: int) -> Trial:
        loop = await self._loop(run_id)
        name = f"{stream_of(run_id)}/trials/{number}"
        async with self.store.leases.working(name) as taken:
            if not taken:
                raise WrongState("trial", name, "being evaluated", "evaluate", ("proposed",))
            # Whoever resumes the run looks for leases after doing so: one of the two sees the other.
            require(await self.store.search(run_id), "evaluate a trial of", *BY_HAND)
            return await loop.evaluate(number)

    async def accept(self, run_id: str, number: int) -> Trial:
        """Decide by hand."""
        require(await self.store.search(run_id), "accept a trial of", *BY_HAND)
        try:
            with tracing.trial(f"{stream_of(run_id)}/trials/{number}", "decide"):
                return await asyncio.shield((await self._loop(run_id)).accept(number))
        except IllegalEvent:
            name = f"{stream_of(run_id)}/trials/{number}"
            raise Conflict("trial", name, "another service decided it at the same time") from None

    async def update_search_config(self, run_id: str, change: ConfigChange) -> SearchConfig:
        """Raises :class:`InvalidArgument`, :class:`Conflict` and :class:`WrongState`."""

        def changed(search: Search) -> list[Event]:
            require(search, "change the search configuration of", *_ALIVE)
            return [updated(search, change)]

        return (await self.store.commit(run_id, changed)).search.run.search_config

    async def remark(self, run_id: str, author: str, text: str) -> int:
        """Leave a remark on the trace; returns its number."""
        if not text.strip() or len(text) > 2000:
            raise InvalidArgument.of("text", f"must have 1 to 2000 characters; got {len(text)}")
        commit = await self.store.commit(run_id, lambda _: [Remarked(author, text)])
        return commit.entries[0].sequence

    async def installer(self, run_id: str) -> Installer:
        """What installs mechanisms into the run, wherever it is driven."""
        if await self._is_driven_elsewhere(run_id):
            return self._installer(run_id, self._mechanisms(run_id))
        return self._installer(run_id, (await self._loop(run_id)).mechanisms)

    async def loop(self, run_id: str) -> Loop:
        """The run's loop, for reading; without its mechanisms where another service drives it."""
        if await self._is_driven_elsewhere(run_id):
            return self._new_loop(await self.store.search(run_id), self._mechanisms(run_id))
        return await self._loop(run_id)

    async def _set_going(self, run_id: str, action: str, expected: RunState, reason: str) -> Run:
        others = await self.store.leases.of_others(f"{stream_of(run_id)}/trials")

        def going(search: Search) -> list[Event]:
            require(search, action, expected)
            if self._by_hand.get(run_id) or others:
                by_hand = "being evaluated by hand"
                raise WrongState("run", search.run.name, by_hand, action, ("without a running evaluation",))
            return [RunStateChanged(search.run.state, RunState.RUNNING, reason)]

        commit = await self.store.commit(run_id, going)
        self._drive(run_id)
        return commit.search.run

    # Who drives what

    async def _beat(self) -> None:
        """Keep what this service works on, notice what it has lost, take over what nobody works on."""
        pause = min(_PULSE_SECONDS, self.store.leases.seconds / 4)
        while True:
            await asyncio.sleep(pause)
            try:
                self._let_go(await self.store.leases.renew())
                await self._take_over()
            except StorageFailed as error:
                log.warning("the leases cannot be renewed", reason=error.message)
            except Exception as error:
                # Without its pulse the service would lose every run: the next beat may do better.
                log.error("unexpected error", exc_info=error)

    def _let_go(self, lost: frozenset[str]) -> None:
        """Stop the work whose leases are gone."""
        for name in lost:
            run_id = name.split("/")[1]
            log.warning("lost a lease", lease=name)
            driver = self._drivers.get(run_id)
            if name == stream_of(run_id) and driver is not None:
                driver.cancel()
            elif name != stream_of(run_id):
                for work in self._by_hand.get(run_id, ()):
                    work.cancel()

    async def _take_over(self) -> None:
        """Drive the runs that are under way and that nobody drives."""
        under_way = await self.store.runs_in(*DRIVEN)
        of_others = await self.store.leases.of_others()
        for run_id in under_way:
            driver = self._drivers.get(run_id)
            if stream_of(run_id) not in of_others and (driver is None or driver.done()):
                log.info("going on with a run", run=stream_of(run_id))
                self._drive(run_id)
        for run_id in [run_id for run_id in self._loops if stream_of(run_id) in of_others]:
            await self._retire(run_id)

    def _drive(self, run_id: str) -> None:
        previous = self._drivers.get(run_id)
        self._drivers[run_id] = asyncio.create_task(self._driven(run_id, previous))

    async def _driven(self, run_id: str, previous: asyncio.Task[None] | None) -> None:
        context.begin(run=stream_of(run_id))
        if previous is not None:
            await asyncio.gather(previous, return_exceptions=True)
        try:
            async with self.store.leases.working(stream_of(run_id)) as taken:
                if taken:
                    with metrics.RUNS_DRIVEN.counting():
                        await self._go_on(run_id)
        except LeaseLost:
            log.info("another service goes on with the run, or it was cancelled")
            await self._retire(run_id)
        except StorageFailed as error:
            log.error("the run cannot be driven", reason=error.message)

    async def _go_on(self, run_id: str) -> None:
        """Drive the run until it stops, over failures of the database."""
        # An evaluation by hand that began elsewhere while the run was resumed.
        while await self.store.leases.of_others(stream_of(run_id)):  # noqa: ASYNC110 (other processes set no event)
            await asyncio.sleep(0.2)
        failed_at, reason = 0.0, ""
        while True:
            try:
                if reason:
                    await self._back_again(run_id, reason, failed_at)
                    reason = ""
                await self._drive_here(run_id)
            except StorageFailed as error:
                if not reason:
                    failed_at, reason = time.monotonic(), error.message
                    log.error("the run waits for its database", reason=error.message, hint=error.hint)
                await asyncio.sleep(_PULSE_SECONDS)
            else:
                return

    async def _back_again(self, run_id: str, reason: str, since: float) -> None:
        """Make sure that the run still is this service's, and say on the trace why nothing happened."""
        if not await self.store.leases.keep(stream_of(run_id)):
            raise LeaseLost(stream_of(run_id))
        text = f"{reason}; the run waited {time.monotonic() - since:.0f} s and goes on"
        await self.store.commit(run_id, lambda _: [Remarked("inner service", text)])
        log.info("the database works again")

    async def _drive_here(self, run_id: str) -> None:
        try:
            loop = await self._loop(run_id)
        except (LeaseLost, StorageFailed):
            raise
        except ServiceError as error:
            reason = str(error)
            await self.store.commit(run_id, lambda s: [RunStateChanged(s.run.state, RunState.PAUSED, reason)])
            return
        await Driver(loop).drive()
        if (await self.store.search(run_id)).run.state.terminal:
            await self._retire(run_id)

    async def _is_driven_elsewhere(self, run_id: str) -> bool:
        await self.store.search(run_id)  # raises NotFound
        return self.store.shared and stream_of(run_id) in await self.store.leases.of_others(stream_of(run_id))

    def _mechanisms(self, run_id: str) -> MechanismSet:
        return MechanismSet(lambda decide: self.store.commit(run_id, decide))

    def _installer(self, run_id: str, mechanisms: MechanismSet) -> Installer:
        return Installer(run_id, self.store, mechanisms, self.sandbox)

    def _new_loop(self, search: Search, mechanisms: MechanismSet) -> Loop:
        run_id = search.run.id
        waiting, restore = self._waiting(run_id), self._installer(run_id, mechanisms).restore
        task, model = self.tasks.get(search.run.spec.task).patient(waiting), self.model.patient(waiting)
        return Loop(run_id, self.store, task, model, mechanisms, restore)

    async def _loop(self, run_id: str) -> Loop:
        """The run's loop; its mechanisms are started again when this process has not yet."""
        async with self._opening[run_id]:
            if run_id not in self._loops:
                search, mechanisms = await self.store.search(run_id), self._mechanisms(run_id)
                await self._installer(run_id, mechanisms).restore()
                self._loops[run_id] = self._new_loop(search, mechanisms)
            return self._loops[run_id]

    def _waiting(self, run_id: str) -> Waiting:
        return Waiting(self.patience, lambda what: self._tell(run_id, what), lambda: self._worthwhile(run_id))

    async def _tell(self, run_id: str, what: AvailabilityChanged) -> None:
        await self.store.commit(run_id, lambda search: [] if search.run.state.terminal else [what])

    async def _worthwhile(self, run_id: str) -> bool:
        """Whether to wait for what is away: not for a client who does it by hand, and not for a pause."""
        run = (await self.store.search(run_id)).run
        return run.state in DRIVEN and not run.pause_request

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
