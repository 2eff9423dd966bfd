"""The loop of one run: propose, evaluate, accept, observe. Clients call the steps by hand; :meth:`Loop.drive` calls the
same ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from inner_service import acceptance, evaluation
from inner_service.confirmation import fresh_seeds, split_of, summarise, verdict
from inner_service.lessons.writer import LessonWriter, unwritten
from inner_service.mechanism_set import MechanismSet
from inner_service.proposer import NoCandidate, Proposer
from inner_service.run import RunState, Search, Trial, TrialState, Values
from inner_service.store import Store
from inner_service.task import EvaluationProgress, EvaluationResult, Misbehaviour
from inner_service.task_changes import IncompatibleTask, TaskWatch
from inner_service.tasks import Task
from inner_service.trace import (
    CheckpointReached,
    Event,
    Remarked,
    RunConfirmed,
    RunStateChanged,
    TaskMisbehaved,
    TrialEvaluated,
    TrialProgressed,
    TrialProposed,
    TrialStarted,
)
from mechanisms.interface import Origin
from service_kit.errors import Exhausted, NotFound, ServiceError, StorageFailed, Unavailable, WrongState
from service_kit.leases import LeaseLost
from service_kit.llm.client import LanguageModel
from service_kit.parameters import Outcome

FAILED_PROPOSALS = 5
"""So many in a row pause the run."""
ATTEMPTS = 3
"""Times an evaluation is begun again at once when the task is lost on the way."""
RECONNECT_SECONDS = 10.0
"""How long a lost task may take to come back before the run pauses."""

T = TypeVar("T")
log = structlog.get_logger("inner_service.loop")


class Loop:
    """One run at work. Steps of one run never overlap, except evaluations, which run at the same time."""

    def __init__(
        self,
        run_id: str,
        store: Store,
        task: Task,
        model: LanguageModel,
        mechanisms: MechanismSet,
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        """``catch_up`` brings ``mechanisms`` to what the trace says, where others may install and remove them."""
        self.run_id = run_id
        self.mechanisms = mechanisms
        self.proposer = Proposer(run_id, store, task, model, mechanisms)
        self._lessons = LessonWriter(run_id, store, model)
        self._store = store
        self._task = task
        self._watch = TaskWatch(task)
        self._catch_up = catch_up
        self._turn = asyncio.Lock()
        self._evaluating: set[int] = set()

    async def propose(self, count: int = 1) -> list[Trial]:
        """New trials; the first one of a run is its baseline, which comes alone.

        Raises :class:`NoCandidate`, :class:`Exhausted` when the run's trials are used up, :class:`Unavailable`.
        """
        async with self._turn:
            await self._catch_up()
            search = await self._search()
            if search.incumbent is None or search.restarting:
                return [await self._propose_baseline()]
            return await self.proposer.propose(min(count, self._places_left(search)))

    async def propose_own(self, changes: Values, hypothesis: str) -> list[Trial]:
        """The client's own candidate as a trial. Raises InvalidConfiguration and like :meth:`propose`."""
        async with self._turn:
            search = await self._search()
            if search.incumbent is None:
                raise WrongState(
                    "run", search.run.name, "without a baseline", "change", ("measured",),
                    hint="Propose without changes gives the baseline: evaluate and accept that first.",
                )  # fmt: skip
            self._places_left(search)
            return await self.proposer.from_client(dict(changes), hypothesis)

    async def evaluate(self, number: int) -> Trial:
        """Evaluate a PROPOSED trial, or one whose evaluation was interrupted. Cancelling kills the work.

        Raises :class:`WrongState`, and :class:`Unavailable` when the task is lost and does not come back.
        """
        trial = self._trial(await self._search(), number)
        state = "being evaluated" if number in self._evaluating else trial.state.value
        if state not in (TrialState.PROPOSED.value, TrialState.RUNNING.value):
            raise WrongState("trial", self._name(number), state, "evaluate", ("proposed",))
        self._evaluating.add(number)
        try:
            result = await self._measure(number)
            return self._trial(await self._commit(lambda _: [TrialEvaluated(number, result)]), number)
        finally:
            self._evaluating.discard(number)

    async def accept(self, number: int) -> Trial:
        """Decide an EVALUATED trial and let the mechanisms see it. Raises :class:`WrongState`."""
        async with self._turn:
            await self._catch_up()
            search = await self._search()
            trial = self._trial(search, number)
            if trial.state is not TrialState.EVALUATED:
                raise WrongState("trial", self._name(number), trial.state.value, "accept", ("evaluated",))
            decision, changed = acceptance.greedy(search.run, trial), None
            if trial.metric is not None and search.incumbent is not None and trial.origin is not Origin.BASELINE:
                advice = await self.mechanisms.accept(search.view(), trial.record())
                decision, changed = acceptance.advised(decision, trial, advice)
            events: list[Event] = [changed] if changed is not None else []
            search = await self._commit(lambda _: [*events, decision.event(number)])
            if changed is not None:
                self.mechanisms.count_change(changed.mechanism, changed.hook)
            await self.mechanisms.observe(search.decided())
            await self.mechanisms.count()
            return search.trials[number]

    async def drive(self) -> None:
        """Drive the run until it is no longer RUNNING or CONFIRMING. What stops it is on the trace."""
        try:
            while (await self._search()).run.state in (RunState.RUNNING, RunState.CONFIRMING):
                await self._step()
        except (LeaseLost, StorageFailed):
            raise
        except ServiceError as error:
            await self._go(RunState.PAUSED, str(error))
        except Exception as error:
            # The run's driver is a boundary: nobody awaits it, so the reason has to go where people look.
            log.exception("the loop failed", run=self.run_id)
            await self._go(RunState.PAUSED, f"internal error ({type(error).__name__}), see the inner service's log")

    async def _step(self) -> None:
        """One step of a driven run, chosen by its state alone, so that a restart goes on where it was."""
        search = await self._search()
        run = search.run
        if run.state is RunState.CONFIRMING:
            await self._confirm(search)
        elif search.open:
            await self._work_off(search)
        elif (failure := _baseline_failure(search)) is not None:
            await self._go(RunState.FAILED, failure)
        elif unwritten(run) and (_spent(search) is not None or _checkpoint_due(search)):
            await self._lessons.write()
        elif (reason := _spent(search)) is not None:
            confirms = run.spec.confirmation_seeds > 0 and run.best is not None
            await self._go(RunState.CONFIRMING if confirms else RunState.FINISHED, reason)
        elif run.pause_request:
            await self._go(RunState.PAUSED, run.pause_request)
        elif _checkpoint_due(search):
            await self._go(RunState.PAUSED, "checkpoint", CheckpointReached(run.decided_trials))
        else:
            await self._propose_driven(min(run.spec.parallelism, run.trials_left))

    async def _propose_driven(self, count: int) -> None:
        try:
            await self.propose(max(count, 1))
        except NoCandidate as error:
            failed = (await self._search()).run.failed_proposals
            if error.fatal:
                raise
            if failed >= FAILED_PROPOSALS:
                raise NoCandidate(
                    f"{failed} proposals in a row failed; the last: {error.message}", hint=error.hint
                ) from None

    async def _work_off(self, search: Search) -> None:
        """Evaluate all open trials at the same time, then decide them, the best first."""
        waiting = [trial.number for trial in search.open_trials if trial.state is not TrialState.EVALUATED]
        await _together(self.evaluate(number) for number in waiting)
        search = await self._search()
        for trial in _best_first(search, search.open_trials):
            await self.accept(trial.number)

    async def _propose_baseline(self) -> Trial:
        search = await self._search()
        if search.open:
            raise WrongState(
                "run", search.run.name, f"waiting for trial {search.open[0]}", "propose for", ("decided",),
                hint=f"Evaluate and accept {self._name(search.open[0])} first.",
            )  # fmt: skip

        def proposed(search: Search) -> list[Event]:
            number, revision = len(search.trials), search.run.search_config.revision
            if search.incumbent is not None:
                configuration = dict(search.incumbent.configuration)
                hypothesis = "the incumbent, measured again: the proposer's history was cleared"
            else:
                configuration = search.start
                hypothesis = "the starting configuration, measured first so that every gain is relative to it"
            return [
                TrialProposed(
                    Trial(
                        number,
                        configuration,
                        {},
                        hypothesis,
                        Origin.BASELINE,
                        incumbent_metric=search.run.incumbent_metric,
                        config_revision=revision,
                    )
                )
            ]

        return (await self._commit(proposed)).trials[-1]

    async def _measure(self, number: int) -> EvaluationResult:
        """The trial's result, begun again when the task is lost and comes back."""

        async def progressed(progress: EvaluationProgress) -> None:
            await self._commit(lambda _: [TrialProgressed(number, progress)])

        def started(search: Search) -> list[Event]:
            trial = search.trials[number]
            return [TrialStarted(number, trial.attempt + 1, search.run.spec.seed, trial.budget_fraction)]

        for attempt in range(1, ATTEMPTS + 1):
            search = await self._commit(started)
            trial = search.trials[number]
            try:
                await self._same_task(search)
                return await evaluation.evaluate(
                    self._task,
                    trial.configuration,
                    seed=search.run.spec.seed,
                    hard_limit=search.run.task.hard_limit,
                    fraction=trial.budget_fraction,
                    label=self._name(number),
                    on_progress=progressed,
                    on_misbehaviour=lambda seen: self._misbehaved(number, seen),
                )
            except Unavailable:
                if attempt == ATTEMPTS:
                    raise
                log.warning("task lost during an evaluation", run=self.run_id, trial=number, attempt=attempt)
                await self._task.ready(RECONNECT_SECONDS)
        raise AssertionError("the last attempt returns or raises")

    async def _same_task(self, search: Search) -> None:
        """Record what is new about the task. Raises :class:`IncompatibleTask` and like :meth:`Task.describe`."""
        change = await self._watch.changed(search.run.task)
        if change is not None:
            await self._commit(lambda _: [change])
            if not change.compatible:
                raise IncompatibleTask(search.run.task.name, change)

    async def _misbehaved(self, number: int, seen: Misbehaviour) -> None:
        await self._commit(lambda _: [TaskMisbehaved(number, seen.fault, seen.message, seen.hint)])

    async def _confirm(self, search: Search) -> None:
        """Re-measure best and baseline on fresh seeds, as many at a time as the run may evaluate."""
        await self._same_task(search)
        best, baseline, spec = search.best, search.baseline, search.run.spec
        assert best is not None
        assert baseline is not None
        seeds = fresh_seeds(spec.seed, spec.confirmation_seeds)
        # A best trial that is the baseline need not be measured twice.
        configurations = {trial.number: trial.configuration for trial in (baseline, best)}
        places = asyncio.Semaphore(spec.parallelism)

        async def measure(number: int, seed: int) -> tuple[tuple[int, int], EvaluationResult]:
            async with places:
                result = await evaluation.evaluate(
                    self._task,
                    configurations[number],
                    seed=seed,
                    hard_limit=search.run.task.hard_limit,
                    split=split_of(search),
                    label=f"{self._name(number)} confirmation",
                    on_misbehaviour=lambda seen: self._misbehaved(number, seen),
                )
            said = f"{result.metric:.6g}" if result.metric is not None else f"{result.outcome.value}: {result.message}"
            await self._commit(lambda _: [Remarked("confirmation", f"trial {number} on fresh seed {seed}: {said}")])
            return (number, seed), result

        results = await _together(measure(number, seed) for seed in seeds for number in configurations)
        metrics = {key: result.metric for key, result in results}
        pairs = [(seed, metrics[baseline.number, seed], metrics[best.number, seed]) for seed in seeds]
        measured = [(seed, old, new) for seed, old, new in pairs if old is not None and new is not None]
        if not measured:
            await self._go(RunState.FINISHED, "not confirmed: no fresh seed could be measured for both configurations")
            return
        used, old, new = zip(*measured, strict=True)
        confirmation = summarise(search, used, old, new)
        await self._go(RunState.FINISHED, verdict(confirmation, search.run.task.objective), RunConfirmed(confirmation))

    async def _go(self, state: RunState, reason: str, *before: Event) -> None:
        """Commit a change of the run's state with the events that come right before it; none when it has ended."""

        def change(search: Search) -> list[Event]:
            if search.run.state is state or search.run.state.terminal:
                return []
            return [*before, RunStateChanged(search.run.state, state, reason)]

        await self._commit(change)

    async def _search(self) -> Search:
        return await self._store.search(self.run_id)

    async def _commit(self, decide: Callable[[Search], Sequence[Event]]) -> Search:
        return (await self._store.commit(self.run_id, decide)).search

    def _name(self, number: int) -> str:
        return f"runs/{self.run_id}/trials/{number}"

    def _trial(self, search: Search, number: int) -> Trial:
        if not 0 <= number < len(search.trials):
            raise NotFound("trial", self._name(number), f"the run has {len(search.trials)} trials, counted from 0")
        return search.trials[number]

    @staticmethod
    def _places_left(search: Search) -> int:
        """Trials that may still be proposed. Raises :class:`Exhausted` when there are none."""
        places = search.run.trials_left - sum(trial.origin is not Origin.BASELINE for trial in search.open_trials)
        if places <= 0:
            hint = "Create another run to search on; StartRun or ResumeRun finishes this one."
            raise Exhausted("spec.max_trials", search.run.spec.max_trials, hint)
        return places


async def _together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of ``work``, done at the same time; the first failure ends the others and is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _best_first(search: Search, trials: Sequence[Trial]) -> list[Trial]:
    objective = search.run.task.objective

    def order(trial: Trial) -> tuple[bool, float, int]:
        gain = 0.0 if trial.metric is None else objective.gain(0.0, trial.metric)
        return trial.metric is None, -gain, trial.number

    return sorted((trial for trial in trials if trial.state is TrialState.EVALUATED), key=order)


def _baseline_failure(search: Search) -> str | None:
    """Why there will never be an incumbent; None when there is one, or may be."""
    baseline = search.baseline
    if search.incumbent is not None or baseline is None or baseline.outcome is Outcome.CANCELLED:
        return None
    return f"the starting configuration cannot be measured: {baseline.message}"


def _spent(search: Search) -> str | None:
    """Why the run is over; None while it is not."""
    run = search.run
    if run.trials_left <= 0 and search.incumbent is not None:
        return f"{run.decided_trials} trials decided"
    limit = run.spec.max_duration
    if limit is not None and run.start_time is not None and datetime.now(UTC) - run.start_time >= limit:
        return f"its time of {limit.total_seconds():g} s is over"
    if run.spec.max_tokens and run.usage.total_tokens >= run.spec.max_tokens:
        return f"its {run.spec.max_tokens} tokens are used up"
    return None


def _checkpoint_due(search: Search) -> bool:
    run = search.run
    every = run.spec.checkpoint_every
    return every > 0 and run.decided_trials // every > run.checkpoint // every
