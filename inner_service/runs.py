"""The runs of this service: their life from creation to the end, as clients see it.

Of all services on one database one drives a run (:mod:`inner_service.drivers`), and any of them answers for it. What
the driver has to do is on the trace, where it finds it before its next step: a pause that was asked for, another search
configuration, a mechanism that was installed or removed. Only cancelling does not wait: it ends the run and, in the
same transaction, everybody's leases of it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

from inner_service.amendments import IllegalEvent
from inner_service.control import ConfigChange, updated
from inner_service.creation import check_spec, fitted
from inner_service.drivers import Drivers
from inner_service.installation import Installer
from inner_service.loop import Loop
from inner_service.loops import Loops
from inner_service.run import OVER, Run, RunSpec, RunState, Search, SearchConfig, Trial, TrialState, Values
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
from service_kit.errors import (
    Conflict,
    InvalidArgument,
    InvalidConfiguration,
    StorageFailed,
    Violation,
    WrongState,
)
from service_kit.llm.client import LanguageModel
from service_kit.parameters import Outcome
from service_kit.security.quota import NO_LIMIT, Quota
from service_kit.telemetry import tracing

BY_HAND = (RunState.CREATED, RunState.PAUSED)
"""States in which a client may drive a run."""
_SANDBOX = SandboxPolicy()
_ALIVE = tuple(state for state in RunState if not state.terminal)


class Runs:
    """What clients can do to the runs of one service."""

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
        self.quota = quota
        self._loops = Loops(store, tasks, model, sandbox, patience)
        self._drivers = Drivers(store, self._loops, self._lost_by_hand)
        self._by_hand: defaultdict[str, set[asyncio.Task[Trial]]] = defaultdict(set)
        self._leaving = False

    async def recover(self) -> None:
        """Go on with the runs that nobody drives, now and, on a database that is shared, from now on."""
        await self._drivers.recover()

    def leave(self) -> None:
        """The service goes down: what is cut off from now on was interrupted, and not cancelled by its caller."""
        self._leaving = True

    async def close(self) -> None:
        """Stop driving and end all mechanisms. Interrupted trials are evaluated again by whoever goes on."""
        self.leave()
        await asyncio.gather(self._drivers.close(), *(self._end_by_hand(run_id) for run_id in list(self._by_hand)))
        await self._loops.close()

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
        """Let a RUNNING run pause after its current trials, and one at its checkpoint stay there."""

        def requested(search: Search) -> list[Event]:
            if not search.run.at_checkpoint:
                require(search, "pause", RunState.RUNNING)
            return [PauseRequested(reason or "paused on request")]

        return (await self.store.commit(run_id, requested)).search.run

    async def cancel(self, run_id: str, reason: str = "") -> Run:
        """End a run now. Whatever is being evaluated for it is killed."""
        search = await self.store.search(run_id)
        require(search, "cancel", *_ALIVE)
        driver = self._drivers.give_up(run_id)
        working = [*self._by_hand.pop(run_id, ()), *filter(None, [driver])]
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        reason = reason or "cancelled on request"

        def cancelled(search: Search) -> list[Event]:
            require(search, "cancel", *_ALIVE)
            closing = [event for trial in search.open_trials for event in _closed(trial, reason)]
            return [*closing, RunStateChanged(search.run.state, RunState.CANCELLED, reason)]

        try:
            commit = await self.store.commit(run_id, cancelled, revoke=True)
        except StorageFailed:
            if driver is not None:
                self._drivers.drive(run_id)
            raise
        await self._loops.retire(run_id)
        return commit.search.run

    async def propose(
        self, run_id: str, count: int, changes: Values | None = None, hypothesis: str = ""
    ) -> list[Trial]:
        """Propose by hand. Raises :class:`WrongState`, :class:`InvalidArgument` and like :meth:`Loop.propose`."""
        search = await self.store.search(run_id)
        require(search, "propose for", *BY_HAND)
        loop = await self._loops.of(run_id)
        before = len(search.trials)
        try:
            # A client that goes away must not leave a mechanism in the middle of a call.
            await asyncio.shield(loop.propose(count) if changes is None else loop.propose_own(changes, hypothesis))
        except InvalidConfiguration as error:
            raise InvalidArgument([_of_changes(violation) for violation in error.violations]) from None
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
        loop = await self._loops.of(run_id)
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
                return await asyncio.shield((await self._loops.of(run_id)).accept(number))
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
        if await self._drivers.elsewhere(run_id):
            return self._loops.bare_installer(run_id)
        return await self._loops.installer(run_id)

    async def loop(self, run_id: str) -> Loop:
        """The run's loop, for reading; without its mechanisms where another service drives it."""
        if await self._drivers.elsewhere(run_id):
            return await self._loops.bare(run_id)
        return await self._loops.of(run_id)

    async def _set_going(self, run_id: str, action: str, expected: RunState, reason: str) -> Run:
        others = await self.store.leases.of_others(f"{stream_of(run_id)}/trials")

        def going(search: Search) -> list[Event]:
            require(search, action, expected)
            if self._by_hand.get(run_id) or others:
                by_hand = "being evaluated by hand"
                raise WrongState("run", search.run.name, by_hand, action, ("without a running evaluation",))
            return [RunStateChanged(search.run.state, RunState.RUNNING, reason)]

        commit = await self.store.commit(run_id, going)
        self._drivers.drive(run_id)
        return commit.search.run

    def _lost_by_hand(self, run_id: str) -> None:
        for work in self._by_hand.get(run_id, ()):
            work.cancel()

    async def _end_by_hand(self, run_id: str) -> None:
        working = list(self._by_hand[run_id])
        self._lost_by_hand(run_id)
        await asyncio.gather(*working, return_exceptions=True)


def require(search: Search, action: str, *states: RunState) -> None:
    """Raise :class:`WrongState` unless the run is in one of ``states``."""
    if search.run.state not in states:
        allowed = [state.value for state in states]
        hint = OVER if search.run.state.terminal else "`bilevel runs` shows the state of each."
        raise WrongState("run", search.run.name, search.run.state.value, action, allowed, hint=hint)


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


def _of_changes(violation: Violation) -> Violation:
    """What is wrong with a client's own candidate, by the request's field: a parameter's, or the changes as a whole."""
    whole = violation.field == "changes"
    return Violation("changes" if whole else f"changes.{violation.field}", violation.description)
