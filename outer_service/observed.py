"""A run as the outer loop sees it, in its own types: nothing here knows how it was fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mechanisms.findings import Stage
from mechanisms.interface import Hook, Origin, TrialRecord
from service_kit.parameters import Objective, Outcome, ParameterSpace


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

    @property
    def steerable(self) -> bool:
        """Whether mechanisms and the search configuration still matter."""
        return self in (RunState.CREATED, RunState.RUNNING, RunState.PAUSED)


class MechanismState(StrEnum):
    """Where a mechanism is in its life."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    UNINSTALLED = "uninstalled"


@dataclass(frozen=True, slots=True)
class HookEffect:
    """What one hook did; ``seconds`` were measured by its host."""

    hook: Hook
    calls: int = 0
    changed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class MechanismEffect:
    """What a mechanism did, counted on the trace."""

    hooks: tuple[HookEffect, ...] = ()
    changed_decisions: int = 0
    proposed_trials: int = 0
    kept_trials: int = 0
    """Trials that it proposed or changed, and that were kept."""


@dataclass(frozen=True, slots=True)
class GateFinding:
    """One finding of the gate; ``line`` counts from 1, 0 when it belongs to no line."""

    stage: Stage
    line: int
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate's verdict on a source."""

    accepted: bool
    stage: Stage
    findings: tuple[GateFinding, ...] = ()
    hooks: tuple[Hook, ...] = ()
    replayed_trials: int = 0
    replay: tuple[HookEffect, ...] = ()
    source_sha256: str = ""
    text: str = ""
    """The report in words, as it is shown to the model that repairs."""
    summary: str = ""


@dataclass(frozen=True, slots=True)
class ObservedMechanism:
    """One of the run's mechanisms."""

    id: str
    summary: str
    source: str
    source_sha256: str
    hooks: tuple[Hook, ...]
    state: MechanismState
    state_reason: str
    effect: MechanismEffect
    installed_after_trial: int
    author: str


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
class SourceFile:
    """A file of source text; ``path`` is relative to its project."""

    path: str
    content: str


@dataclass(frozen=True, slots=True)
class ObservedTask:
    """What is optimised."""

    name: str
    title: str
    documentation: str
    space: ParameterSpace
    objective: Objective
    budget_seconds: float
    budget_clock: str
    hardware: str


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """The head of a run."""

    name: str
    """Resource name: runs/{run}."""
    configured_task: str
    """The name under which the inner service knows the task."""
    state: RunState
    state_reason: str
    max_trials: int
    checkpoint_every: int
    decided_trials: int
    """The baseline is not counted."""
    task: ObservedTask
    config: SearchConfig
    incumbent: int | None
    """Number of the trial that search continues from."""
    best: int | None
    baseline_metric: float | None
    last_sequence: int
    """Number of its newest trace event."""

    @property
    def at_checkpoint(self) -> bool:
        """Whether it waits at its checkpoint for the outer loop, and nobody asked that it stay there (INNER-1.8)."""
        return self.state is RunState.PAUSED and self.state_reason == "checkpoint"

    @property
    def trials_left(self) -> int:
        return self.max_trials - self.decided_trials

    @property
    def active(self) -> tuple[str, ...]:
        """Parameters that proposals may change now."""
        return tuple(p.name for p in self.task.space.editable if p.name not in self.config.frozen)


@dataclass(frozen=True, slots=True)
class ObservedLesson:
    """A lesson of earlier runs; texts that were not given are empty."""

    statement: str
    kind: str
    """For example experiment."""
    failure: str
    """What it blames, where it is about a failure."""
    task: str
    hardware: str
    """Empty when it does not matter."""
    parameters: tuple[str, ...]
    evidence: int
    """Trials that support it."""
    shown: int = 0
    """Proposed trials that had it in view."""
    helped: int = 0
    """Kept ones of these."""
    cited: int = 0
    """Proposed trials that named it as a reason."""
    cited_kept: int = 0
    """Kept ones of these."""

    @property
    def record(self) -> str:
        """What it is, where it holds and what came of it, in a sentence."""
        what = f"{self.kind or 'unknown kind'}{f', failure: {self.failure}' if self.failure else ''}"
        where = f"on task {self.task}, {self.hardware or 'any hardware'}"
        about = f", about {', '.join(self.parameters)}" if self.parameters else ""
        shown = f"shown for {self.shown} proposed trials, {self.helped} of them kept" if self.shown else "never shown"
        cited = f"; a named reason of {self.cited}, {self.cited_kept} of them kept" if self.cited else ""
        return f"({what}; trials as evidence: {self.evidence}, {where}{about}; {shown}{cited})"


@dataclass(frozen=True, slots=True)
class SearchDescription:
    """How the search works: what a researcher must read to improve it."""

    loop_sources: tuple[SourceFile, ...] = ()
    mechanism_reference: str = ""
    examples: tuple[SourceFile, ...] = ()
    languages: tuple[str, ...] = ()
    """Languages in which the inner service runs mechanisms; none where it runs none."""
    implementation: str = ""
    """Name and version of the inner service, for people."""
    lessons: tuple[ObservedLesson, ...] = ()
    """Of earlier runs, the most relevant first; none where the run's memory is off."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that one cycle looks at."""

    run: ObservedRun
    trials: tuple[TrialRecord, ...]
    """Decided and rejected ones, by number."""
    mechanisms: tuple[ObservedMechanism, ...]
    """Oldest first, removed and suspended ones included."""
    touched: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Numbers of the trials that each mechanism proposed or changed, by the mechanism's id."""
    revisions: Mapping[int, int] = field(default_factory=dict)
    """The revision of the search configuration under which each trial was proposed, by the trial's number."""

    @property
    def decided(self) -> tuple[TrialRecord, ...]:
        """Decided trials, the baseline included."""
        return tuple(trial for trial in self.trials if trial.kept is not None)

    @property
    def searched(self) -> tuple[TrialRecord, ...]:
        """Decided trials without baselines: those that a run's budget counts."""
        return tuple(trial for trial in self.decided if trial.origin is not Origin.BASELINE)

    def improvements(self) -> frozenset[int]:
        """Numbers of the trials that were the best at full budget when they were decided, the first baseline aside.

        No mechanism's advice on acceptance can add to them.
        """
        found: set[int] = set()
        best: float | None = None
        for trial in self.decided:
            if trial.outcome is not Outcome.SUCCEEDED or trial.metric is None or trial.budget_fraction != 1.0:
                continue
            if best is None or self.run.task.objective.better(trial.metric, best):
                if best is not None and trial.origin is not Origin.BASELINE:
                    found.add(trial.number)
                best = trial.metric
        return frozenset(found)

    def trial(self, number: int | None) -> TrialRecord | None:
        """The trial with that number, or None."""
        return next((trial for trial in self.trials if trial.number == number), None)


@dataclass(frozen=True, slots=True)
class TraceMoment:
    """The little that a watcher needs of one trace event."""

    sequence: int
    kind: str
    """Name of the event's field on the wire, for example ``trial_decided``."""
    decided_trials: int = field(default=0)
    """Of a checkpoint."""
