"""The trace: everything that can happen to a run, as frozen dataclasses. Fields are only ever added, with a default,
so that old logs stay readable (:mod:`inner_service.trace_codec`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from inner_service.conflicts import ConflictKind
from inner_service.early_stopping import EarlyStoppingRule
from inner_service.lessons.lesson import Lesson
from inner_service.mechanism import GateReport, HookEffect, Mechanism, MechanismEffect
from inner_service.noise import NoiseFloor
from inner_service.run import Confirmation, RemeasurePurpose, RunSpec, RunState, SearchConfig, Trial
from inner_service.task import EvaluationProgress, EvaluationResult, TaskDescription, TaskFault
from mechanisms.interface import Hook
from service_kit.llm.failures import Message
from service_kit.llm.usage import Usage
from service_kit.parameters import Split
from service_kit.patience import AvailabilityChanged


@dataclass(frozen=True, slots=True)
class RunCreated:
    """The first event of every trace."""

    spec: RunSpec
    task: TaskDescription
    owner: str = ""


@dataclass(frozen=True, slots=True)
class RunStateChanged:
    from_state: RunState
    to_state: RunState
    reason: str


@dataclass(frozen=True, slots=True)
class TrialProposed:
    trial: Trial


@dataclass(frozen=True, slots=True)
class TrialRejected:
    """A trial was refused before it ran; ``mechanism`` is set when one vetoed it."""

    number: int
    reason: str
    mechanism: str = ""


@dataclass(frozen=True, slots=True)
class TrialStarted:
    number: int
    attempt: int
    seed: int
    budget_fraction: float = 1.0


@dataclass(frozen=True, slots=True)
class TrialProgressed:
    number: int
    progress: EvaluationProgress


@dataclass(frozen=True, slots=True)
class TrialEvaluated:
    number: int
    result: EvaluationResult


@dataclass(frozen=True, slots=True)
class TrialDecided:
    """A trial was kept or discarded; ``gain`` is over the incumbent, positive is better, None without a metric."""

    number: int
    kept: bool
    reason: str
    new_best: bool = False
    gain: float | None = None


@dataclass(frozen=True, slots=True)
class ProposalFailed:
    reason: str
    consecutive: int


@dataclass(frozen=True, slots=True)
class FreezeReason:
    """Why one parameter was frozen or unfrozen."""

    parameter: str
    reason: str


@dataclass(frozen=True, slots=True)
class SearchConfigUpdated:
    search_config: SearchConfig
    author: str = ""
    newly_frozen: tuple[FreezeReason, ...] = ()
    newly_unfrozen: tuple[FreezeReason, ...] = ()


@dataclass(frozen=True, slots=True)
class MechanismInstalled:
    mechanism: Mechanism


@dataclass(frozen=True, slots=True)
class MechanismRejected:
    """The gate refused ``source`` when it was to be installed as ``mechanism``."""

    mechanism: str
    report: GateReport
    source: str


@dataclass(frozen=True, slots=True)
class MechanismSuspended:
    """A mechanism failed in ``hook`` at ``trial`` and is no longer called; ``line`` is 0 when it is unknown."""

    mechanism: str
    hook: Hook
    kind: str
    message: str
    line: int = 0
    trial: int = 0


@dataclass(frozen=True, slots=True)
class MechanismsConflicted:
    """Two mechanisms, the older one first, worked against each other; one of them is suspended next."""

    kind: ConflictKind
    mechanisms: tuple[str, ...]
    suspended: str
    evidence: str
    trial: int = 0


@dataclass(frozen=True, slots=True)
class MechanismUninstalled:
    mechanism: str
    reason: str
    effect: MechanismEffect


@dataclass(frozen=True, slots=True)
class DecisionChanged:
    """A mechanism's answer changed what would have happened to ``trial``; both texts are for people."""

    mechanism: str
    hook: Hook
    trial: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class MechanismHookCounts:
    mechanism: str
    hooks: tuple[HookEffect, ...]
    observed: int = 0
    """Decided trials that the mechanism has observed by now."""
    state_hash: str = ""
    """Digest of its state after these."""


@dataclass(frozen=True, slots=True)
class HooksCounted:
    """Hook calls since the last such event. ``changed`` repeats what the DecisionChanged events in between said."""

    trial: int
    mechanisms: tuple[MechanismHookCounts, ...]


@dataclass(frozen=True, slots=True)
class ModelCalled:
    """A language model was called; ``error`` is empty when it answered."""

    purpose: str
    model: str
    usage: Usage
    latency: timedelta
    prompt: tuple[Message, ...]
    answer: str = ""
    error: str = ""
    scripted: bool = False
    prompt_version: str = ""


@dataclass(frozen=True, slots=True)
class CheckpointReached:
    decided_trials: int


@dataclass(frozen=True, slots=True)
class RunConfirmed:
    confirmation: Confirmation


@dataclass(frozen=True, slots=True)
class LessonsShown:
    """Lessons, by id, were shown to the proposer of ``trial``; ``statements`` says in the same order what they said."""

    trial: int
    lessons: tuple[str, ...]
    statements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Remarked:
    author: str
    text: str


@dataclass(frozen=True, slots=True)
class MechanismReplayed:
    """A mechanism rebuilt its state by replay; ``matches`` says whether that is the state which it had before."""

    mechanism: str
    trials: int
    matches: bool


@dataclass(frozen=True, slots=True)
class TaskMisbehaved:
    """The task broke its contract in the evaluation of a trial; the run went on."""

    number: int
    fault: TaskFault
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class TaskChanged:
    """The task describes itself differently than at the run's creation; ``compatible`` when the run can go on."""

    differences: tuple[str, ...]
    compatible: bool


@dataclass(frozen=True, slots=True)
class LessonMerged:
    """A lesson that was known already, by id, and the trials that were added to its evidence."""

    lesson: str
    statement: str
    evidence: tuple[str, ...]
    similarity: float


@dataclass(frozen=True, slots=True)
class LessonRefused:
    statement: str
    reason: str


@dataclass(frozen=True, slots=True)
class LessonsWritten:
    """Lessons were drawn from the trace; ``error`` says why there are none. ``pruned`` are ids."""

    decided_trials: int
    written: tuple[Lesson, ...] = ()
    merged: tuple[LessonMerged, ...] = ()
    refused: tuple[LessonRefused, ...] = ()
    pruned: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class LessonsCited:
    """The proposal of ``trial`` named lessons, by id, as its reasons."""

    trial: int
    lessons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LessonsCompared:
    """What the model wanted first for ``trial`` without lessons and with them; both texts are for people."""

    trial: int
    without_lessons: str
    with_lessons: str
    differs: bool


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """The run was asked to pause after its current trials."""

    reason: str


@dataclass(frozen=True, slots=True)
class TrialRemeasured:
    """A trial's configuration was measured again at full budget."""

    number: int
    purpose: RemeasurePurpose
    seed: int
    split: Split
    result: EvaluationResult


@dataclass(frozen=True, slots=True)
class EarlyStopJudged:
    """The early stopping rule spoke against a running trial, which was ``stopped`` or drawn to run to the end."""

    number: int
    rule: EarlyStoppingRule
    fraction: float
    value: float
    prediction: float
    threshold: float
    curves: int
    stopped: bool
    bound: float | None = None


@dataclass(frozen=True, slots=True)
class NoiseEstimated:
    floor: NoiseFloor


@dataclass(frozen=True, slots=True)
class GainChecked:
    """A small gain was checked on a second seed; ``second_gain`` is None when it could not be measured there."""

    number: int
    incumbent: int
    seed: int
    first_gain: float
    second_gain: float | None
    held: bool


Event: TypeAlias = (
    RunCreated
    | RunStateChanged
    | TrialProposed
    | TrialRejected
    | TrialStarted
    | TrialProgressed
    | TrialEvaluated
    | TrialDecided
    | ProposalFailed
    | SearchConfigUpdated
    | MechanismInstalled
    | MechanismRejected
    | MechanismSuspended
    | MechanismsConflicted
    | MechanismUninstalled
    | DecisionChanged
    | HooksCounted
    | ModelCalled
    | CheckpointReached
    | RunConfirmed
    | LessonsShown
    | Remarked
    | MechanismReplayed
    | AvailabilityChanged
    | TaskMisbehaved
    | TaskChanged
    | LessonsWritten
    | LessonsCited
    | LessonsCompared
    | PauseRequested
    | TrialRemeasured
    | EarlyStopJudged
    | NoiseEstimated
    | GainChecked
)
