"""A trial's evaluation on the trace: attempts, progress, the rule that may stop it on the way, and the result."""

from __future__ import annotations

from inner_service.early_stopping import Curve, Verdict, drawn_for_audit, judge
from inner_service.run import Search, Trial, TrialState
from inner_service.run_task import RunTask
from inner_service.store import Store
from inner_service.task import EvaluationProgress, EvaluationResult
from inner_service.trace import EarlyStopJudged, Event, TrialEvaluated, TrialProgressed, TrialStarted
from mechanisms.interface import Origin
from service_kit.parameters import Outcome


class _Stopped(Exception):
    """The trial was stopped early; that is on the trace already."""


class Evaluating:
    """Evaluates the trials of one run."""

    def __init__(self, run_id: str, store: Store, task: RunTask) -> None:
        self._run_id = run_id
        self._store = store
        self._task = task

    async def evaluate(self, number: int) -> Trial:
        """The EVALUATED trial. Begun again when the task is lost and comes back; cancelling kills the work.

        Raises :class:`Unavailable` when the task stays lost.
        """
        try:
            result = await self._task.outlasting(lambda: self._attempt(number))
        except _Stopped:
            return (await self._store.search(self._run_id)).trials[number]
        commit = await self._store.commit(self._run_id, lambda _: [TrialEvaluated(number, result)])
        return commit.search.trials[number]

    async def _attempt(self, number: int) -> EvaluationResult:
        def started(search: Search) -> list[Event]:
            trial = search.trials[number]
            return [TrialStarted(number, trial.attempt + 1, search.run.spec.seed, trial.budget_fraction)]

        async def progressed(progress: EvaluationProgress) -> None:
            commit = await self._store.commit(self._run_id, lambda search: _progress(search, number, progress))
            if commit.search.trials[number].state is not TrialState.RUNNING:
                raise _Stopped

        search = (await self._store.commit(self._run_id, started)).search
        trial, run = search.trials[number], search.run
        return await self._task.evaluate(
            number,
            seed=run.spec.seed,
            fraction=trial.budget_fraction,
            on_progress=progressed,
            needed=run.task.intermediate_metric if run.spec.early_stopping is not None else "",
        )


def _progress(search: Search, number: int, progress: EvaluationProgress) -> list[Event]:
    """Progress with the verdict of the early stopping rule and, where that stops the trial, its result.

    They are one transaction: a trial is never stopped without a result, whatever happens in between.
    """
    trial, events = search.trials[number], list[Event]()
    if trial.state is not TrialState.RUNNING:
        return events  # the run was cancelled while the report was on its way
    events.append(TrialProgressed(number, progress))
    verdict = _verdict(search, trial, progress)
    if verdict is None:
        return events
    settings = search.run.spec.early_stopping
    assert settings is not None
    stopped = not drawn_for_audit(settings, search.run.spec.seed, number)
    events.append(
        EarlyStopJudged(
            *(number, verdict.rule, verdict.fraction, verdict.value, verdict.prediction, verdict.threshold),
            *(verdict.curves, stopped, verdict.bound),
        )
    )
    if stopped:
        result = EvaluationResult(Outcome.STOPPED_EARLY, message=verdict.sentence(), elapsed=progress.elapsed)
        events.append(TrialEvaluated(number, result))
    return events


def _verdict(search: Search, trial: Trial, progress: EvaluationProgress) -> Verdict | None:
    """What the rule says against a trial that it may judge: of full budget, and not judged yet."""
    run = search.run
    settings, value = run.spec.early_stopping, progress.metrics.get(run.task.intermediate_metric)
    if settings is None or value is None or trial.audited or trial.budget_fraction < 1.0:
        return None
    if trial.origin is Origin.BASELINE:
        return None  # what is measured again to be the bar has to be measured
    if run.incumbent_metric is None:
        return None
    known = next((flight.curve for flight in run.flights if flight.number == trial.number), None)
    curve = (known or Curve(trial.number)).extended(progress.fraction, value)
    return judge(settings, run.task.objective, curve, search.curves(), run.incumbent_metric)
