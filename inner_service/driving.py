"""Driving a run: which step comes next, how places are kept filled, and when the run is over.

Every choice is made from the state alone, so that a restart goes on where the run was. What is in the air (the
evaluations that this process has begun) is all that a driver remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from inner_service import budgets, confirmation
from inner_service.budgets import BudgetSpent
from inner_service.lessons.writer import unwritten
from inner_service.loop import Loop, NoiseUnknown
from inner_service.proposer import NoCandidate
from inner_service.run import CHECKPOINT, ParallelMode, RemeasurePurpose, RunState, Search, Trial, TrialState
from inner_service.trace import CheckpointReached, Event, RunConfirmed, RunStateChanged
from service_kit import context
from service_kit.errors import ServiceError, StorageFailed
from service_kit.leases import LeaseLost
from service_kit.parameters import Outcome
from service_kit.telemetry import tracing

FAILED_PROPOSALS = 5
"""So many in a row pause the run."""

log = structlog.get_logger("inner_service.driving")


class Driver:
    """Drives one run. In ``batch`` mode a batch is proposed, evaluated and decided as a whole, the best first; in
    ``asynchronous`` mode every place is filled again as soon as it is free, and every trial decided as it lands."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._flights: dict[int, asyncio.Task[Trial]] = {}
        self._grounded: ServiceError | None = None
        """Why nothing more is proposed: what is in the air is worked off before that is raised."""
        self._over_budget = ""
        """Why the model may not be asked any more; the search ends with it."""
        self._wait = False
        """Whether the next proposal has to wait for a landing, after one that failed."""

    async def drive(self) -> None:
        """Drive the run until it is no longer RUNNING or CONFIRMING. What stops it is on the trace.

        Raises LeaseLost and StorageFailed, after which the trace is another's or out of reach.
        """
        try:
            try:
                while (search := await self._loop.search()).run.state in (RunState.RUNNING, RunState.CONFIRMING):
                    await self._step(search)
            finally:
                await self._abort()
        except (LeaseLost, StorageFailed):
            raise
        except NoiseUnknown as error:
            await self._go(RunState.FAILED, str(error))
        except ServiceError as error:
            await self._go(RunState.PAUSED, str(error))
        except Exception as error:
            # The run's driver is a boundary: nobody awaits it, so the reason has to go where people look.
            log.exception("the loop failed")
            await self._go(RunState.PAUSED, f"internal error ({type(error).__name__}), see the inner service's log")

    async def _step(self, search: Search) -> None:
        if search.run.state is RunState.CONFIRMING:
            await self._confirm(search)
            return
        self._take_off(search)
        if landed := self._decidable(search):
            for trial in best_first(search, landed):
                name = f"{search.run.name}/trials/{trial.number}"
                with context.bound(trial=name), tracing.trial(name, "decide"):
                    await self._loop.accept(trial.number)
        elif (count := self._wanted(search)) > 0:
            await self._propose(count)
        elif self._flights:
            await self._land()
        else:
            await self._stop(search)

    def _take_off(self, search: Search) -> None:
        """Begin to evaluate what waits for it, as far as there are places."""
        for trial in _waiting(search):
            if trial.number not in self._flights and len(self._flights) < search.run.spec.parallelism:
                self._flights[trial.number] = asyncio.create_task(self._loop.evaluate(trial.number))

    async def _land(self) -> None:
        """Wait until an evaluation ends. Raises what it raises."""
        done, _ = await asyncio.wait(self._flights.values(), return_when=asyncio.FIRST_COMPLETED)
        self._flights = {number: task for number, task in self._flights.items() if task not in done}
        self._wait = False
        errors = [error for task in done if (error := task.exception()) is not None]  # all, or asyncio complains
        if errors:
            raise errors[0]

    async def _abort(self) -> None:
        """Kill what is in the air; it is begun again when the run goes on."""
        for task in self._flights.values():
            task.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        self._flights.clear()

    def _decidable(self, search: Search) -> list[Trial]:
        """The measured trials that are to be decided now: a batch only when all of it is measured."""
        measured = [trial for trial in search.open_trials if trial.state is TrialState.EVALUATED]
        if search.run.spec.parallel_mode is ParallelMode.BATCH and len(measured) < len(search.open):
            return []
        return measured

    def _wanted(self, search: Search) -> int:
        """Candidates to propose now."""
        run = search.run
        if self._grounded or self._over_budget or self._wait or run.pause_request or _checkpoint_due(search):
            return 0
        if search.incumbent is None or search.restarting:
            return 0 if search.open or _over(search) else 1  # a baseline comes alone
        if run.spec.parallel_mode is ParallelMode.BATCH and search.open:
            return 0
        return min(run.spec.parallelism - len(search.open), budgets.allowance(search, datetime.now(UTC)).trials)

    async def _propose(self, count: int) -> None:
        try:
            await self._loop.propose(count)
        except BudgetSpent as error:
            self._over_budget = error.reason
        except NoCandidate as error:
            failed = (await self._loop.search()).run.failed_proposals
            if error.fatal or failed < FAILED_PROPOSALS:
                final: ServiceError | None = error if error.fatal else None
            else:
                final = NoCandidate(f"{failed} proposals in a row failed; the last: {error.message}", hint=error.hint)
            if final is not None and not self._flights:
                raise final from None
            self._grounded, self._wait = final, bool(self._flights)

    async def _stop(self, search: Search) -> None:
        """Nothing is in the air and nothing is to be proposed: say why, in the run's state."""
        run, now = search.run, datetime.now(UTC)
        if self._grounded is not None:
            raise self._grounded
        if (over := _over(search)) is not None:
            await self._go(*over)
        elif self._lessons_due(search, now):
            await self._loop.lessons.write()
        elif (reason := self._ending(search, now)) is not None:
            await self._finish(search, reason, now)
        elif run.pause_request:
            await self._go(RunState.PAUSED, run.pause_request)
        elif _checkpoint_due(search):
            await self._go(RunState.PAUSED, CHECKPOINT, CheckpointReached(run.decided_trials))

    def _lessons_due(self, search: Search, now: datetime) -> bool:
        """At a checkpoint and at the end."""
        return unwritten(search.run) and (self._ending(search, now) is not None or _checkpoint_due(search))

    def _ending(self, search: Search, now: datetime) -> str | None:
        """Which budget ends the search, in a sentence; None while none does."""
        allowed = budgets.allowance(search, now)
        return self._over_budget or (allowed.reason if allowed.trials <= 0 else None)

    async def _finish(self, search: Search, reason: str, now: datetime) -> None:
        """End the search; its result is confirmed where that was asked for and a budget of time does not forbid it."""
        if not search.run.spec.confirmation_seeds:
            await self._go(RunState.FINISHED, reason)
        elif budgets.confirmable(search, now):
            await self._go(RunState.CONFIRMING, reason)
        else:
            await self._go(RunState.FINISHED, f"{reason}; not confirmed: what is left does not pay for it")

    async def _confirm(self, search: Search) -> None:
        """Re-measure best and baseline on fresh seeds; what was measured before an interruption stays measured."""
        purpose = RemeasurePurpose.CONFIRMATION
        pairs = confirmation.pairs(search)
        search = await self._loop.remeasuring.measure(purpose, pairs, confirmation.split_of(search))
        result = confirmation.conclude(search)
        if result is None:
            reason = "not confirmed: no fresh seed could be measured for both configurations"
            await self._go(RunState.FINISHED, reason)
        else:
            said = confirmation.verdict(result, search.run.task.objective)
            await self._go(RunState.FINISHED, said, RunConfirmed(result))

    async def _go(self, state: RunState, reason: str, *before: Event) -> None:
        """Commit a change of the run's state with the events that come right before it; none when it has ended."""

        def change(search: Search) -> list[Event]:
            if search.run.state is state or search.run.state.terminal:
                return []
            return [*before, RunStateChanged(search.run.state, state, reason)]

        await self._loop.commit(change)


def best_first(search: Search, trials: Sequence[Trial]) -> list[Trial]:
    """Measured trials in the order in which they are decided: the best first, failures last."""
    objective = search.run.task.objective

    def order(trial: Trial) -> tuple[bool, float, int]:
        gain = 0.0 if trial.metric is None else objective.gain(0.0, trial.metric)
        return trial.metric is None, -gain, trial.number

    return sorted(trials, key=order)


def _waiting(search: Search) -> list[Trial]:
    return [t for t in search.open_trials if t.state in (TrialState.PROPOSED, TrialState.RUNNING)]


def _over(search: Search) -> tuple[RunState, str] | None:
    """How the run ends before it has an incumbent; None when it has one, or may get one."""
    if search.incumbent is not None:
        return None
    baseline = search.baseline
    if baseline is not None and not baseline.state.open and baseline.outcome is not Outcome.CANCELLED:
        return RunState.FAILED, f"the starting configuration cannot be measured: {baseline.message}"
    allowed = budgets.allowance(search, datetime.now(UTC))
    return (RunState.FINISHED, allowed.reason) if allowed.trials <= 0 else None


def _checkpoint_due(search: Search) -> bool:
    run = search.run
    every = run.spec.checkpoint_every
    return every > 0 and run.decided_trials // every > run.checkpoint // every
