"""The steps of one run: propose, evaluate, accept, observe. Clients call them by hand, and
:mod:`inner_service.driving` calls the same ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from inner_service import acceptance, budgets, noise
from inner_service.evaluating import Evaluating
from inner_service.lessons.writer import LessonWriter
from inner_service.mechanism_set import MechanismSet
from inner_service.proposer import Proposer
from inner_service.remeasuring import Remeasuring
from inner_service.run import RemeasurePurpose, Search, Trial, TrialState, Values
from inner_service.run_task import RunTask
from inner_service.store import Store
from inner_service.tasks import Task
from inner_service.trace import Event, GainChecked, NoiseEstimated, TrialProposed
from mechanisms.interface import Origin
from service_kit import context
from service_kit.errors import Exhausted, NotFound, ServiceError, WrongState
from service_kit.llm.client import LanguageModel
from service_kit.parameters import Split
from service_kit.telemetry import tracing


class NoiseUnknown(ServiceError):
    """The run allows for noise, and the baseline cannot be measured a second time."""


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
        self.lessons = LessonWriter(run_id, store, model)
        watched = RunTask(run_id, store, task)
        self.remeasuring = Remeasuring(run_id, store, watched)
        self._store = store
        self._catch_up = catch_up
        self._evaluation = Evaluating(run_id, store, watched)
        self._turn = asyncio.Lock()
        self._evaluating: set[int] = set()

    async def propose(self, count: int = 1) -> list[Trial]:
        """New trials; the first one of a run is its baseline, which comes alone.

        Where the run allows for noise, the first proposal after the baseline measures the noise before it proposes.
        Raises NoCandidate, :class:`Exhausted` when a budget is used up, :class:`Unavailable`, :class:`NoiseUnknown`.
        """
        async with self._turn:
            await self._catch_up()
            search = await self.search()
            if search.incumbent is None or search.restarting:
                return [await self._propose_baseline(search)]
            places = self._places_left(search)
            await self._know_noise(search)
            with tracing.trial(self._name(len(search.trials)), "propose"):
                return await self.proposer.propose(min(count, places))

    async def propose_own(self, changes: Values, hypothesis: str) -> list[Trial]:
        """The client's own candidate as a trial. Raises InvalidConfiguration and like :meth:`propose`."""
        async with self._turn:
            search = await self.search()
            if search.incumbent is None:
                raise WrongState(
                    "run", search.run.name, "without a baseline", "change", ("measured",),
                    hint="Propose without changes gives the baseline: evaluate and accept that first.",
                )  # fmt: skip
            self._places_left(search)
            await self._know_noise(search)
            return await self.proposer.from_client(dict(changes), hypothesis)

    async def evaluate(self, number: int) -> Trial:
        """Evaluate a PROPOSED trial, or one whose evaluation was interrupted. Cancelling kills the work.

        Raises :class:`WrongState`, and :class:`Unavailable` when the task is lost and does not come back.
        """
        trial = self._trial(await self.search(), number)
        state = "being evaluated" if number in self._evaluating else trial.state.value
        if state not in (TrialState.PROPOSED.value, TrialState.RUNNING.value):
            raise WrongState("trial", self._name(number), state, "evaluate", ("proposed",))
        self._evaluating.add(number)
        try:
            with context.bound(trial=self._name(number)), tracing.trial(self._name(number), "evaluate"):
                return await self._evaluation.evaluate(number)
        finally:
            self._evaluating.discard(number)

    async def accept(self, number: int) -> Trial:
        """Decide an EVALUATED trial and let the mechanisms see it. Raises :class:`WrongState`.

        Where the run allows for noise, a small gain is measured on a second seed first.
        """
        async with self._turn:
            await self._catch_up()
            search = await self.search()
            trial = self._trial(search, number)
            self._need_evaluated(trial)
            decision, events = acceptance.greedy(search.run, trial), list[Event]()
            if acceptance.needs_check(search.run, trial, decision):
                checked = await self._check_gain(search, trial)
                decision = acceptance.checked(decision, checked)
                events.append(checked)
            changed = None
            if trial.metric is not None and search.incumbent is not None and trial.origin is not Origin.BASELINE:
                advice = await self.mechanisms.accept(search.view(), trial.record)
                decision, changed = acceptance.advised(decision, trial, advice)
                events += [changed] if changed is not None else []

            def decided(search: Search) -> list[Event]:
                self._need_evaluated(search.trials[number])  # the run may have been cancelled during the check
                return [*events, decision.event(number)]

            search = await self.commit(decided)
            if changed is not None:
                self.mechanisms.count_change(changed.mechanism, changed.hook)
            await self.mechanisms.observe(search.decided())
            await self.mechanisms.count()
            return search.trials[number]

    async def search(self) -> Search:
        """The run with everything that belongs to it, now."""
        return await self._store.search(self.run_id)

    async def commit(self, decide: Callable[[Search], Sequence[Event]]) -> Search:
        """Let events happen; returns the state after them."""
        return (await self._store.commit(self.run_id, decide)).search

    async def _propose_baseline(self, search: Search) -> Trial:
        if search.open:
            raise WrongState(
                "run", search.run.name, f"waiting for trial {search.open[0]}", "propose for", ("decided",),
                hint=f"Evaluate and accept {self._name(search.open[0])} first.",
            )  # fmt: skip

        def proposed(search: Search) -> list[Event]:
            if search.incumbent is not None:
                configuration = dict(search.incumbent.configuration)
                hypothesis = "the incumbent, measured again: the proposer's history was cleared"
            else:
                configuration = search.start
                hypothesis = "the starting configuration, measured first so that every gain is relative to it"
            trial = Trial(
                len(search.trials),
                configuration,
                {},
                hypothesis,
                Origin.BASELINE,
                incumbent_metric=search.run.incumbent_metric,
                incumbent=search.run.incumbent,
                config_revision=search.run.search_config.revision,
            )
            return [TrialProposed(trial)]

        return (await self.commit(proposed)).trials[-1]

    async def _know_noise(self, search: Search) -> None:
        """Measure the baseline on further seeds, once, where the run allows for noise."""
        rule, baseline, seed = search.run.spec.noise, search.baseline, search.run.spec.seed
        if rule is None or search.run.noise_floor is not None:
            return
        assert baseline is not None
        assert baseline.metric is not None
        seeds, purpose = noise.repeat_seeds(seed, rule), RemeasurePurpose.NOISE_FLOOR
        search = await self.remeasuring.measure(purpose, [(baseline.number, other) for other in seeds], Split.SEARCH)
        results = search.remeasured(purpose)
        repeats = [(other, results[baseline.number, other]) for other in seeds]
        measured = [(other, result.metric) for other, result in repeats if result.metric is not None]
        if not measured:
            last = repeats[-1][1]
            raise NoiseUnknown(
                f"the noise cannot be estimated: no repeat of the baseline could be measured; the last: "
                f"{last.outcome.value}: {last.message}"
            )
        used, metrics = zip((seed, baseline.metric), *measured, strict=True)
        await self.commit(lambda _: [NoiseEstimated(noise.floor_of(rule, used, metrics))])

    async def _check_gain(self, search: Search, trial: Trial) -> GainChecked:
        """The trial against the incumbent on a second seed, which is the same for all trials against this incumbent."""
        run, incumbent = search.run, search.incumbent
        assert incumbent is not None
        assert trial.metric is not None
        assert run.incumbent_metric is not None
        seed, purpose = noise.second_seed(run.spec.seed, incumbent.number), RemeasurePurpose.GAIN_CHECK
        pairs = [(incumbent.number, seed), (trial.number, seed)]
        results = (await self.remeasuring.measure(purpose, pairs, Split.SEARCH)).remeasured(purpose)
        old, new = (results[pair].metric if pair in results else None for pair in pairs)
        first = run.task.objective.gain(run.incumbent_metric, trial.metric)
        second = run.task.objective.gain(old, new) if old is not None and new is not None else None
        return GainChecked(trial.number, incumbent.number, seed, first, second, second is not None and second > 0)

    def _need_evaluated(self, trial: Trial) -> None:
        if trial.state is not TrialState.EVALUATED:
            raise WrongState("trial", self._name(trial.number), trial.state.value, "accept", ("evaluated",))

    def _name(self, number: int) -> str:
        return f"runs/{self.run_id}/trials/{number}"

    def _trial(self, search: Search, number: int) -> Trial:
        if not 0 <= number < len(search.trials):
            raise NotFound("trial", self._name(number), f"the run has {len(search.trials)} trials, counted from 0")
        return search.trials[number]

    @staticmethod
    def _places_left(search: Search) -> int:
        """Trials that may still be proposed. Raises :class:`Exhausted` when there are none."""
        allowed = budgets.allowance(search, datetime.now(UTC))
        if allowed.trials <= 0:
            hint = f"The run: {allowed.reason}. StartRun or ResumeRun finishes it; create another run to search on."
            raise Exhausted(allowed.field, allowed.limit, hint)
        return allowed.trials
