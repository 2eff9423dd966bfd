"""What a run's trace and a campaign's events add up to. The live display, the report and the demo's check read it here.

Folding is all that happens: nothing is asked of a service, so that what is shown is what the log says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from bilevel.v1 import common_pb2, task_pb2, trace_pb2

from clients.memory_history import MemoryHistory
from clients.stopping import Stopping

TERMINAL = {trace_pb2.RUN_STATE_FINISHED, trace_pb2.RUN_STATE_CANCELLED, trace_pb2.RUN_STATE_FAILED}
"""Run states after which nothing happens any more."""

_DECIDED = {trace_pb2.TRIAL_STATE_KEPT, trace_pb2.TRIAL_STATE_DISCARDED}


class Call(Protocol):
    """One call of a language model, in the inner loop's events and in the outer loop's alike."""

    @property
    def usage(self) -> common_pb2.TokenUsage: ...
    @property
    def model(self) -> str: ...
    @property
    def scripted(self) -> bool: ...
    @property
    def error(self) -> str: ...


@dataclass(slots=True)
class Spending:
    """What calls to language models used, and who answered them."""

    calls: int = 0
    """Requests, failed ones and those that asked for a better answer included."""
    failed: int = 0
    """Questions that no request answered."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    """US dollars; None when at least one call's cost is unknown, which is not the same as free."""
    models: Counter[str] = field(default_factory=Counter)
    """Answered questions a model."""
    scripted_calls: int = 0
    """Questions that the scripted researcher answered."""

    def add(self, call: Call) -> None:
        self.calls += call.usage.calls
        if call.error:
            self.failed += 1
        else:
            self.models[call.model or "unnamed model"] += 1
            self.scripted_calls += call.scripted
        self.prompt_tokens += call.usage.prompt_tokens
        self.completion_tokens += call.usage.completion_tokens
        known = self.cost_usd is not None and call.usage.HasField("cost_usd")
        self.cost_usd = (self.cost_usd or 0.0) + call.usage.cost_usd if known else None

    def __add__(self, other: Spending) -> Spending:
        known = self.cost_usd is not None and other.cost_usd is not None
        return Spending(
            self.calls + other.calls,
            self.failed + other.failed,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            (self.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None,
            self.models + other.models,
            self.scripted_calls + other.scripted_calls,
        )


@dataclass(slots=True)
class HookCount:
    """What one hook of a mechanism did."""

    calls: int = 0
    changed: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class MechanismHistory:
    """One mechanism's life on the trace."""

    name: str
    """Its id within the run."""
    mechanism: trace_pb2.Mechanism
    """As installed: source, gate report, sandbox layers, author."""
    changes: list[trace_pb2.DecisionChanged] = field(default_factory=list)
    """Every decision it changed."""
    hooks: dict[trace_pb2.MechanismHook.ValueType, HookCount] = field(default_factory=dict)
    suspended: trace_pb2.MechanismSuspended | None = None
    uninstalled: trace_pb2.MechanismUninstalled | None = None

    @property
    def generated(self) -> bool:
        """Whether level 2 wrote it: not a standard mechanism."""
        return self.mechanism.author != "standard"


@dataclass(slots=True)
class RunHistory:
    """A run as its trace tells it. Feed it events in order with :meth:`apply`."""

    name: str = ""
    last_sequence: int = 0
    spec: trace_pb2.RunSpec = field(default_factory=trace_pb2.RunSpec)
    task: task_pb2.TaskDescription = field(default_factory=task_pb2.TaskDescription)
    state: trace_pb2.RunState.ValueType = trace_pb2.RUN_STATE_UNSPECIFIED
    state_reason: str = ""
    at_checkpoint: bool = False
    """Whether it waits at a checkpoint, and not for another reason."""
    asked_to_pause: bool = False
    """Whether someone asked it to pause, rather than it had to."""
    trials: dict[int, trace_pb2.Trial] = field(default_factory=dict)
    bases: dict[int, int] = field(default_factory=dict)
    """Trial to the trial that was the incumbent when it was proposed."""
    complaints: dict[int, str] = field(default_factory=dict)
    """First line of what the task said, by the number of a trial that did not succeed."""
    best: int | None = None
    """Number of the best trial ever measured at full budget."""
    incumbent: int | None = None
    """Number of the trial that search continues from."""
    progress: trace_pb2.TrialProgressed | None = None
    """The newest progress of a trial that is running now."""
    mechanisms: dict[str, MechanismHistory] = field(default_factory=dict)
    rejected: list[trace_pb2.MechanismRejected] = field(default_factory=list)
    """Mechanisms that the gate refused at installation."""
    updates: list[tuple[int, trace_pb2.SearchConfigUpdated]] = field(default_factory=list)
    """Changes of the control surface, each with the number of trials decided by then."""
    remarks: list[trace_pb2.Remarked] = field(default_factory=list)
    lost: common_pb2.AvailabilityChanged | None = None
    """What the run waits for because it is away."""
    failures: list[trace_pb2.ProposalFailed] = field(default_factory=list)
    calls: list[trace_pb2.ModelCalled] = field(default_factory=list)
    spending: Spending = field(default_factory=Spending)
    by_purpose: dict[str, Spending] = field(default_factory=dict)
    """The same by what the calls were for."""
    confirmation: trace_pb2.Confirmation | None = None
    stopping: Stopping = field(default_factory=Stopping)
    noise_floor: trace_pb2.NoiseFloor | None = None
    gain_checks: list[trace_pb2.GainChecked] = field(default_factory=list)
    """Small gains that were checked on a second seed."""
    memory: MemoryHistory = field(default_factory=MemoryHistory)
    """What lessons had to do with the run."""
    events: Counter[str] = field(default_factory=Counter)
    """Events a kind."""

    @classmethod
    def of(cls, events: Iterable[trace_pb2.TraceEvent]) -> RunHistory:
        """The history of a whole trace."""
        history = cls()
        for event in events:
            history.apply(event)
        return history

    def apply(self, event: trace_pb2.TraceEvent) -> None:
        """Take the next event. Kinds that this client does not know are counted and otherwise left alone."""
        kind = event.WhichOneof("event") or "unknown"
        self.name, self.last_sequence = event.run, event.sequence
        self.events[kind] += 1
        handler: Callable[[Any, trace_pb2.TraceEvent], None] | None = getattr(self, f"on_{kind}", None)
        if handler is not None:
            handler(getattr(event, kind), event)

    @property
    def decided(self) -> int:
        """Trials kept or discarded, without baselines."""
        baseline = trace_pb2.TRIAL_ORIGIN_BASELINE
        return sum(1 for trial in self.trials.values() if trial.origin != baseline and trial.state in _DECIDED)

    @property
    def maximize(self) -> bool:
        return self.task.objective.direction == common_pb2.DIRECTION_MAXIMIZE

    @property
    def baseline_metric(self) -> float | None:
        return self.metric(0)

    @property
    def best_metric(self) -> float | None:
        return self.metric(self.best)

    @property
    def search_gain(self) -> float | None:
        """The gain that the search itself reports, positive is better, in the objective's unit."""
        return self.gain(self.baseline_metric, self.best_metric)

    @property
    def changed_decisions(self) -> int:
        """Decisions that mechanisms changed, counted from their own events."""
        return sum(len(mechanism.changes) for mechanism in self.mechanisms.values())

    def metric(self, number: int | None) -> float | None:
        """The metric of a trial that was measured."""
        trial = self.trials.get(number) if number is not None else None
        return trial.metric if trial is not None and trial.HasField("metric") else None

    def gain(self, old: float | None, new: float | None) -> float | None:
        """How much better ``new`` is than ``old``, positive when it improved."""
        if old is None or new is None:
            return None
        return new - old if self.maximize else old - new

    # One method an event kind, called on_KIND

    def on_run_created(self, what: trace_pb2.RunCreated, event: trace_pb2.TraceEvent) -> None:
        self.spec, self.task, self.state = what.spec, what.task, trace_pb2.RUN_STATE_CREATED

    def on_run_state_changed(self, what: trace_pb2.RunStateChanged, event: trace_pb2.TraceEvent) -> None:
        self.state, self.state_reason = what.to_state, what.reason
        self.lost = None
        if what.to_state == trace_pb2.RUN_STATE_RUNNING:
            self.at_checkpoint = self.asked_to_pause = False

    def on_trial_proposed(self, what: trace_pb2.TrialProposed, event: trace_pb2.TraceEvent) -> None:
        trial = trace_pb2.Trial()
        trial.CopyFrom(what.trial)
        self.trials[trial.number] = trial
        if self.incumbent is not None:
            self.bases[trial.number] = self.incumbent

    def on_availability_changed(self, what: common_pb2.AvailabilityChanged, event: trace_pb2.TraceEvent) -> None:
        self.lost = None if what.available else what

    def on_trial_rejected(self, what: trace_pb2.TrialRejected, event: trace_pb2.TraceEvent) -> None:
        if (trial := self.trials.get(what.number)) is not None:
            trial.state, trial.message = trace_pb2.TRIAL_STATE_REJECTED, what.reason

    def on_trial_started(self, what: trace_pb2.TrialStarted, event: trace_pb2.TraceEvent) -> None:
        if (trial := self.trials.get(what.number)) is not None:
            trial.state, trial.attempt = trace_pb2.TRIAL_STATE_RUNNING, what.attempt
            trial.budget_fraction = what.budget_fraction
            trial.start_time.CopyFrom(event.time)
        self.progress = trace_pb2.TrialProgressed(number=what.number)

    def on_trial_progressed(self, what: trace_pb2.TrialProgressed, event: trace_pb2.TraceEvent) -> None:
        self.progress = what

    def on_trial_evaluated(self, what: trace_pb2.TrialEvaluated, event: trace_pb2.TraceEvent) -> None:
        if self.progress is not None and self.progress.number == what.number:
            self.progress = None
        trial = self.trials.get(what.number)
        if trial is None:
            return
        result = what.result
        trial.state, trial.outcome, trial.message = trace_pb2.TRIAL_STATE_EVALUATED, result.outcome, result.message
        if result.HasField("metric"):
            trial.metric = result.metric
        if result.outcome != common_pb2.OUTCOME_SUCCEEDED:
            self.complaints[trial.number] = result.message.strip().partition("\n")[0]
        trial.side_metrics.update(result.side_metrics)
        trial.elapsed.CopyFrom(result.elapsed)

    def on_trial_decided(self, what: trace_pb2.TrialDecided, event: trace_pb2.TraceEvent) -> None:
        trial = self.trials.get(what.number)
        if trial is None:
            return
        trial.state = trace_pb2.TRIAL_STATE_KEPT if what.kept else trace_pb2.TRIAL_STATE_DISCARDED
        trial.message = what.reason or trial.message
        trial.decide_time.CopyFrom(event.time)
        self.stopping.decided(what)
        if what.kept:
            self.incumbent = what.number
        if what.new_best:
            self.best = what.number

    def on_proposal_failed(self, what: trace_pb2.ProposalFailed, event: trace_pb2.TraceEvent) -> None:
        self.failures.append(what)

    def on_search_config_updated(self, what: trace_pb2.SearchConfigUpdated, event: trace_pb2.TraceEvent) -> None:
        self.updates.append((self.decided, what))

    def on_mechanism_installed(self, what: trace_pb2.MechanismInstalled, event: trace_pb2.TraceEvent) -> None:
        name = short(what.mechanism.name)
        self.mechanisms[name] = MechanismHistory(name, what.mechanism)

    def on_mechanism_rejected(self, what: trace_pb2.MechanismRejected, event: trace_pb2.TraceEvent) -> None:
        self.rejected.append(what)

    def on_mechanism_suspended(self, what: trace_pb2.MechanismSuspended, event: trace_pb2.TraceEvent) -> None:
        if (mechanism := self.mechanisms.get(short(what.mechanism))) is not None:
            mechanism.suspended = what

    def on_mechanism_uninstalled(self, what: trace_pb2.MechanismUninstalled, event: trace_pb2.TraceEvent) -> None:
        if (mechanism := self.mechanisms.get(short(what.mechanism))) is not None:
            mechanism.uninstalled = what

    def on_decision_changed(self, what: trace_pb2.DecisionChanged, event: trace_pb2.TraceEvent) -> None:
        name = short(what.mechanism)
        if (mechanism := self.mechanisms.get(name)) is not None:
            mechanism.changes.append(what)
        trial = self.trials.get(what.trial)
        if trial is not None and name not in trial.changed_by:
            trial.changed_by.append(name)

    def on_hooks_counted(self, what: trace_pb2.HooksCounted, event: trace_pb2.TraceEvent) -> None:
        for counts in what.mechanisms:
            mechanism = self.mechanisms.get(short(counts.mechanism))
            if mechanism is None:
                continue
            for hook in counts.hooks:
                count = mechanism.hooks.setdefault(hook.hook, HookCount())
                count.calls += hook.calls
                count.changed += hook.changed
                count.seconds += hook.time.seconds + hook.time.nanos / 1e9

    def on_model_called(self, what: trace_pb2.ModelCalled, event: trace_pb2.TraceEvent) -> None:
        self.calls.append(what)
        self.spend(what)

    def spend(self, call: trace_pb2.ModelCalled) -> None:
        """Count one call."""
        self.spending.add(call)
        self.by_purpose.setdefault(call.purpose or "unnamed", Spending()).add(call)

    def on_checkpoint_reached(self, what: trace_pb2.CheckpointReached, event: trace_pb2.TraceEvent) -> None:
        self.at_checkpoint = True

    def on_pause_requested(self, what: trace_pb2.PauseRequested, event: trace_pb2.TraceEvent) -> None:
        self.asked_to_pause = True
        if self.state == trace_pb2.RUN_STATE_PAUSED:  # it stays at its checkpoint
            self.at_checkpoint, self.state_reason = False, what.reason

    def on_lessons_shown(self, what: trace_pb2.LessonsShown, event: trace_pb2.TraceEvent) -> None:
        self.memory.show(what)

    def on_lessons_cited(self, what: trace_pb2.LessonsCited, event: trace_pb2.TraceEvent) -> None:
        self.memory.cite(what)

    def on_lessons_compared(self, what: trace_pb2.LessonsCompared, event: trace_pb2.TraceEvent) -> None:
        self.memory.comparisons.append(what)

    def on_lessons_written(self, what: trace_pb2.LessonsWritten, event: trace_pb2.TraceEvent) -> None:
        self.memory.writings.append(what)

    def on_early_stop_judged(self, what: trace_pb2.EarlyStopJudged, event: trace_pb2.TraceEvent) -> None:
        self.stopping.judged(what)

    def on_noise_estimated(self, what: trace_pb2.NoiseEstimated, event: trace_pb2.TraceEvent) -> None:
        self.noise_floor = what.floor

    def on_gain_checked(self, what: trace_pb2.GainChecked, event: trace_pb2.TraceEvent) -> None:
        self.gain_checks.append(what)

    def on_run_confirmed(self, what: trace_pb2.RunConfirmed, event: trace_pb2.TraceEvent) -> None:
        self.confirmation = what.confirmation

    def on_remarked(self, what: trace_pb2.Remarked, event: trace_pb2.TraceEvent) -> None:
        self.remarks.append(what)


def short(name: str) -> str:
    """The last segment of a resource name."""
    return name.rpartition("/")[2]
