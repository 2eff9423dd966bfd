"""A run and its trials: plain values. How they change is in :mod:`inner_service.fold`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property

from inner_service.early_stopping import Curve, EarlyStopping, EarlyStoppingEffect, Point
from inner_service.mechanism import Mechanism
from inner_service.noise import NoiseFloor, NoiseRule
from inner_service.task import TaskDescription
from mechanisms.interface import Origin, SearchView, TrialRecord
from service_kit.llm.usage import Usage
from service_kit.once import once_each
from service_kit.parameters import Outcome, Split, Value

REMEMBERED = 20_000
"""Trials, of all runs, whose form for prompts is kept; a decided trial never changes."""
CHECKPOINT = "checkpoint"
"""The reason of a run that is paused at its checkpoint and waits for whoever works there; part of the protocol."""
Values = dict[str, Value]
"""A configuration, or changes of one, as it is stored."""


class RunState(StrEnum):
    """Where a run is in its life."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    CONFIRMING = "confirming"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether nothing can happen to the run any more."""
        return self in (RunState.FINISHED, RunState.CANCELLED, RunState.FAILED)


OVER = "A run that is over stays over: start a new one."
"""What to do next where a run's state no longer allows something."""


class TrialState(StrEnum):
    """Where a trial is in its life."""

    PROPOSED = "proposed"
    RUNNING = "running"
    EVALUATED = "evaluated"
    KEPT = "kept"
    DISCARDED = "discarded"
    REJECTED = "rejected"

    @property
    def open(self) -> bool:
        """Whether the trial still waits for something."""
        return self in (TrialState.PROPOSED, TrialState.RUNNING, TrialState.EVALUATED)


class ParallelMode(StrEnum):
    """How places are kept filled when several candidates are evaluated at the same time."""

    BATCH = "batch"
    """Propose k together, evaluate them together, decide them when all are measured, the best first."""
    ASYNCHRONOUS = "asynchronous"
    """Propose whenever a place becomes free, decide each trial as soon as it is measured."""


class RemeasurePurpose(StrEnum):
    """Why a configuration is measured again."""

    CONFIRMATION = "confirmation"
    NOISE_FLOOR = "noise_floor"
    GAIN_CHECK = "gain_check"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run is asked to do. Fixed at creation."""

    task: str
    max_trials: int
    seed: int = 0
    checkpoint_every: int = 0
    parallelism: int = 1
    start: Values = field(default_factory=dict)
    """Where the starting configuration differs from the task's defaults."""
    use_lessons: bool = False
    confirmation_seeds: int = 0
    display_name: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    max_duration: timedelta | None = None
    max_tokens: int = 0
    compare_lessons: bool = False
    parallel_mode: ParallelMode = ParallelMode.BATCH
    max_evaluation_time: timedelta | None = None
    max_cost_usd: float = 0.0
    early_stopping: EarlyStopping | None = None
    noise: NoiseRule | None = None


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """Level 1.5's control surface."""

    frozen: tuple[str, ...] = ()
    strategy: str = ""
    guidance: str = ""
    revision: int = 0
    visible_from_trial: int = 0
    """Number of the first trial that the proposer is shown; 0 shows all."""


@dataclass(frozen=True, slots=True)
class Remeasurement:
    """A trial's configuration measured again; the trial's own metric stays what it was."""

    purpose: RemeasurePurpose
    seed: int
    split: Split
    outcome: Outcome
    metric: float | None
    message: str = ""


@dataclass(frozen=True)
class Trial:
    """One proposed configuration and what became of it."""

    number: int
    configuration: Values
    changes: Values
    hypothesis: str
    origin: Origin
    proposer: str = ""
    state: TrialState = TrialState.PROPOSED
    config_revision: int = 0
    """Revision of the search configuration under which it was proposed."""
    attempt: int = 0
    budget_fraction: float = 1.0
    outcome: Outcome | None = None
    metric: float | None = None
    side_metrics: dict[str, float] = field(default_factory=dict)
    message: str = ""
    incumbent_metric: float | None = None
    """What it had to beat when it was proposed."""
    create_time: datetime | None = None
    start_time: datetime | None = None
    decide_time: datetime | None = None
    elapsed: timedelta | None = None
    changed_by: tuple[str, ...] = ()
    lessons: tuple[str, ...] = ()
    """Lessons, by id, that the proposer had in view."""
    cited_lessons: tuple[str, ...] = ()
    """Those of them that the proposal named as its reasons."""
    incumbent: int | None = None
    """Number of the trial that was the incumbent when it was proposed."""
    audited: bool = False
    """Whether the early stopping rule spoke against it and it was drawn to run to the end all the same."""
    curve: tuple[Point, ...] = ()
    """Its intermediate values, where early stopping is on and it was measured at full budget."""
    remeasured: tuple[Remeasurement, ...] = ()
    """Oldest first."""

    @property
    def measured(self) -> bool:
        """Whether it was measured at full budget, so that its metric can be compared with others."""
        return self.outcome is Outcome.SUCCEEDED and self.budget_fraction == 1.0

    @cached_property
    def record(self) -> TrialRecord:
        """The trial as mechanisms and prompts see it."""
        decided = {TrialState.KEPT: True, TrialState.DISCARDED: False}
        return TrialRecord(
            number=self.number,
            configuration=self.configuration,
            changes=self.changes,
            hypothesis=self.hypothesis,
            origin=self.origin,
            proposer=self.proposer,
            outcome=self.outcome,
            metric=self.metric,
            kept=decided.get(self.state),
            incumbent_metric=self.incumbent_metric,
            budget_fraction=self.budget_fraction,
            side_metrics=self.side_metrics,
            message=self.message,
        )


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The best configuration re-measured against the baseline on seeds that the search never used."""

    seeds: tuple[int, ...]
    baseline_metrics: tuple[float, ...]
    best_metrics: tuple[float, ...]
    split: Split
    mean_gain: float
    gain_low: float | None
    gain_high: float | None
    search_gain: float
    trial: int


@dataclass(frozen=True, slots=True)
class Flight:
    """An evaluation that is under way."""

    number: int
    elapsed: timedelta = timedelta()
    """As far as the task has reported."""
    curve: Curve | None = None
    """None where early stopping is off."""


@dataclass(frozen=True, slots=True)
class Run:
    """The head of a run: what it was asked to do and where it is."""

    id: str
    spec: RunSpec
    task: TaskDescription
    create_time: datetime
    update_time: datetime
    last_sequence: int
    state: RunState = RunState.CREATED
    state_reason: str = ""
    incumbent: int | None = None
    """Number of the trial that search continues from; None before a baseline was kept."""
    incumbent_metric: float | None = None
    best: int | None = None
    best_metric: float | None = None
    baseline_metric: float | None = None
    decided_trials: int = 0
    """Trials kept or discarded, the baseline not counted."""
    checkpoint: int = 0
    """Trials that were decided at the last checkpoint."""
    failed_proposals: int = 0
    """In a row."""
    lessons_after: int = 0
    """Trials that were decided when lessons were last drawn from the trace."""
    search_config: SearchConfig = SearchConfig()
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    scripted: bool = False
    confirmation: Confirmation | None = None
    start_time: datetime | None = None
    """When it was first RUNNING."""
    idle_time: timedelta = timedelta()
    """Time in which it was RUNNING but no evaluation was."""
    idle_since: datetime | None = None
    pause_request: str = ""
    """Why it is to pause after its current trials; empty when nobody asked for that."""
    evaluation_time: timedelta = timedelta()
    """That all its evaluations took, added up."""
    early_stopping: EarlyStoppingEffect | None = None
    noise_floor: NoiseFloor | None = None
    longest_evaluation: timedelta = timedelta()
    """Of the full budget, so far."""
    flights: tuple[Flight, ...] = ()
    """Of the trials that are running."""
    owner: str = ""
    """Name of the token that created it; empty where the service knew no tokens."""

    @property
    def name(self) -> str:
        return f"runs/{self.id}"

    @property
    def active(self) -> tuple[str, ...]:
        """Parameters that proposals may change now."""
        frozen = self.search_config.frozen
        return tuple(p.name for p in self.task.space.editable if p.name not in frozen)

    @property
    def at_checkpoint(self) -> bool:
        """Whether it waits at its checkpoint, and nobody asked that it stay there."""
        return self.state is RunState.PAUSED and self.state_reason == CHECKPOINT

    @property
    def trials_left(self) -> int:
        return self.spec.max_trials - self.decided_trials


@dataclass(frozen=True, slots=True)
class Search:
    """A run with everything that belongs to it: the fold of its trace."""

    run: Run
    trials: tuple[Trial, ...] = ()
    """By number."""
    mechanisms: tuple[Mechanism, ...] = ()
    """Oldest first, the removed and suspended ones included."""
    decisions: tuple[int, ...] = ()
    """Numbers of the decided trials, in the order of decision."""
    open: tuple[int, ...] = ()
    """Numbers of the trials that are proposed, running or waiting for their decision."""

    @property
    def open_trials(self) -> tuple[Trial, ...]:
        return tuple(self.trials[number] for number in self.open)

    @property
    def incumbent(self) -> Trial | None:
        return None if self.run.incumbent is None else self.trials[self.run.incumbent]

    @property
    def best(self) -> Trial | None:
        return None if self.run.best is None else self.trials[self.run.best]

    @property
    def baseline(self) -> Trial | None:
        """The baseline that was measured, else the latest attempt at one, else None."""
        attempts = [trial for trial in self.trials if trial.origin is Origin.BASELINE]
        return next((trial for trial in attempts if trial.measured), attempts[-1] if attempts else None)

    @property
    def start(self) -> Values:
        """The configuration of the baseline."""
        return self.run.task.space.apply(self.run.task.space.defaults(), self.run.spec.start)

    @property
    def restarting(self) -> bool:
        """Whether the history was cleared and the incumbent is still to be measured again."""
        first = self.run.search_config.visible_from_trial
        return first > 0 and not any(trial.origin is Origin.BASELINE for trial in self.trials[first:])

    @property
    def shown(self) -> Search:
        """What the proposer is shown: after a restart, nothing of what came before it."""
        first = self.run.search_config.visible_from_trial
        if not first or self.restarting:
            return self
        trials = self.trials[first:]
        better = self.run.task.objective.better
        again = next(trial for trial in trials if trial.origin is Origin.BASELINE)
        best: Trial | None = None
        for trial in trials:
            if trial.metric is not None and trial.measured:
                best = trial if best is None or best.metric is None or better(trial.metric, best.metric) else best
        run = replace(
            self.run, baseline_metric=again.metric, best=best.number if best is not None else self.run.incumbent
        )
        return replace(self, run=run)

    def mechanism(self, name: str) -> Mechanism | None:
        return next((mechanism for mechanism in self.mechanisms if mechanism.name == name), None)

    def decided(self) -> tuple[TrialRecord, ...]:
        """Every decided trial in the order of decision, the baseline included."""
        return _decided(self)

    def remeasured(self, purpose: RemeasurePurpose) -> dict[tuple[int, int], Remeasurement]:
        """The results of one purpose by trial and seed."""
        return {(t.number, r.seed): r for t in self.trials for r in t.remeasured if r.purpose is purpose}

    def curves(self) -> tuple[Curve, ...]:
        """Of the trials that were measured at full budget, oldest first, where early stopping is on."""
        return tuple(Curve(t.number, t.curve, t.metric) for t in self.trials if t.curve)

    def view(self) -> SearchView:
        """What hooks may read now. Needs an incumbent."""
        incumbent, best = self.incumbent, self.best
        assert incumbent is not None, "a view needs a measured baseline"
        assert best is not None, "a view needs a measured baseline"
        run = self.run
        return SearchView(
            objective=run.task.objective,
            history=self.decided(),
            incumbent=incumbent.record,
            best=best.record,
            active=run.active,
            frozen=run.search_config.frozen,
            strategy=run.search_config.strategy,
            guidance=run.search_config.guidance,
            trials_left=run.trials_left,
        )


@once_each(8)
def _decided(search: Search) -> tuple[TrialRecord, ...]:
    # A proposal asks for this several times, and there may be thousands of trials.
    return tuple(search.trials[number].record for number in search.decisions)
