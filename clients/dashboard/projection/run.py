"""A run as its pages need it: the history that all clients fold, with curves and moments beside it."""

from __future__ import annotations

from dataclasses import dataclass, field

from bilevel.v1 import common_pb2, trace_pb2

from clients.dashboard.projection import moments
from clients.dashboard.projection.curve import Point
from clients.dashboard.projection.moments import Moment
from clients.dashboard.projection.training import Training
from clients.history import RunHistory

_FAILED = {
    outcome
    for outcome in common_pb2.Outcome.values()
    if outcome not in (common_pb2.OUTCOME_UNSPECIFIED, common_pb2.OUTCOME_SUCCEEDED)
}
_KINDS = {
    trace_pb2.TRIAL_STATE_PROPOSED: "waiting",
    trace_pb2.TRIAL_STATE_RUNNING: "running",
    trace_pb2.TRIAL_STATE_EVALUATED: "running",
    trace_pb2.TRIAL_STATE_KEPT: "kept",
    trace_pb2.TRIAL_STATE_DISCARDED: "discarded",
    trace_pb2.TRIAL_STATE_REJECTED: "refused",
}


def kind_of(trial: trace_pb2.Trial) -> str:
    """What became of a trial: baseline, kept, discarded, failed, refused, running or waiting."""
    if trial.outcome in _FAILED:
        return "failed"
    if trial.number == 0 and trial.state == trace_pb2.TRIAL_STATE_KEPT:
        return "baseline"
    return _KINDS.get(trial.state, "waiting")


@dataclass
class RunView(RunHistory):
    """Fold of one trace. Prompts and answers of model calls are counted and not kept: 10,000 trials have gigabytes."""

    created: float = 0.0
    """Unix time, in seconds."""
    clock: float = 0.0
    """Seconds from then to the newest event."""
    points: list[Point] = field(default_factory=list)
    """Trials in the order in which they were decided or refused."""
    moments: list[Moment] = field(default_factory=list)
    training: dict[int, Training] = field(default_factory=dict)
    """Progress by the trial's number."""
    open: dict[int, None] = field(default_factory=dict)
    """Numbers of the trials that are being evaluated, in their order."""
    compared: dict[int, int] = field(default_factory=dict)
    """Decided trial to the trial that was the incumbent then, with which it was compared."""
    gains: dict[int, float] = field(default_factory=dict)
    """Gain over that incumbent by the trial's number, positive is better, in the objective's unit."""
    pausing: str = ""
    """Why it was asked to pause and has not yet; empty when it was not."""
    config: trace_pb2.SearchConfig = field(default_factory=trace_pb2.SearchConfig)
    """The control surface of level 1.5 as it is now."""

    decided_trials: int = 0

    @property
    def decided(self) -> int:
        """Trials kept or discarded, without baselines: counted as they come, because long runs ask often."""
        return self.decided_trials

    @property
    def newest_trial(self) -> int:
        """Number of the newest trial; -1 before the first."""
        return next(reversed(self.trials), -1)

    def base_of(self, number: int) -> int | None:
        """The trial that ``number`` was compared with, or is going to be as far as is known now."""
        return self.compared.get(number, self.bases.get(number))

    def apply(self, event: trace_pb2.TraceEvent) -> None:
        time = event.time.ToNanoseconds() / 1e9
        if event.sequence == 1:
            self.created = time
        self.clock = max(self.clock, time - self.created)
        super().apply(event)

    # One method an event kind, called on_KIND

    def on_run_state_changed(self, what: trace_pb2.RunStateChanged, event: trace_pb2.TraceEvent) -> None:
        super().on_run_state_changed(what, event)
        self.pausing = ""

    def on_pause_requested(self, what: trace_pb2.PauseRequested, event: trace_pb2.TraceEvent) -> None:
        super().on_pause_requested(what, event)
        if self.state == trace_pb2.RUN_STATE_RUNNING:
            self.pausing = what.reason or "a client asked for it"

    def on_trial_started(self, what: trace_pb2.TrialStarted, event: trace_pb2.TraceEvent) -> None:
        super().on_trial_started(what, event)
        self.training[what.number] = Training(what.number)
        self.open[what.number] = None

    def on_trial_progressed(self, what: trace_pb2.TrialProgressed, event: trace_pb2.TraceEvent) -> None:
        super().on_trial_progressed(what, event)
        if what.number in self.training:
            self.training[what.number].add(what)

    def on_trial_evaluated(self, what: trace_pb2.TrialEvaluated, event: trace_pb2.TraceEvent) -> None:
        super().on_trial_evaluated(what, event)
        self.open.pop(what.number, None)

    def on_trial_decided(self, what: trace_pb2.TrialDecided, event: trace_pb2.TraceEvent) -> None:
        before = self.incumbent
        super().on_trial_decided(what, event)
        trial = self.trials.get(what.number)
        self.decided_trials += trial is not None and trial.origin != trace_pb2.TRIAL_ORIGIN_BASELINE
        if before is not None:
            self.compared[what.number] = before
        if what.HasField("gain"):
            self.gains[what.number] = what.gain
        self._plot(what.number)

    def on_trial_rejected(self, what: trace_pb2.TrialRejected, event: trace_pb2.TraceEvent) -> None:
        super().on_trial_rejected(what, event)
        self._plot(what.number)

    def on_model_called(self, what: trace_pb2.ModelCalled, event: trace_pb2.TraceEvent) -> None:
        self.spend(what)

    def on_search_config_updated(self, what: trace_pb2.SearchConfigUpdated, event: trace_pb2.TraceEvent) -> None:
        super().on_search_config_updated(what, event)
        self.config = what.search_config
        self.moments.append(moments.configuration_changed(self.newest_trial, self.clock, what))

    def on_mechanism_installed(self, what: trace_pb2.MechanismInstalled, event: trace_pb2.TraceEvent) -> None:
        super().on_mechanism_installed(what, event)
        self.moments.append(moments.mechanism_installed(self.newest_trial, self.clock, what))

    def on_mechanism_rejected(self, what: trace_pb2.MechanismRejected, event: trace_pb2.TraceEvent) -> None:
        super().on_mechanism_rejected(what, event)
        self.moments.append(moments.mechanism_rejected(self.newest_trial, self.clock, what))

    def on_mechanism_suspended(self, what: trace_pb2.MechanismSuspended, event: trace_pb2.TraceEvent) -> None:
        super().on_mechanism_suspended(what, event)
        self.moments.append(moments.mechanism_suspended(self.newest_trial, self.clock, what))

    def on_mechanism_uninstalled(self, what: trace_pb2.MechanismUninstalled, event: trace_pb2.TraceEvent) -> None:
        super().on_mechanism_uninstalled(what, event)
        self.moments.append(moments.mechanism_uninstalled(self.newest_trial, self.clock, what))

    def _plot(self, number: int) -> None:
        trial = self.trials.get(number)
        if trial is not None:
            metric, kind = self.metric(number), kind_of(trial)
            self.points.append(Point(number, self.clock, kind, metric, self.best_metric))
