"""From the inner loop's messages to the outer loop's own types, and the gate's report both ways."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from bilevel.v1 import task_pb2, trace_pb2

from mechanisms.findings import Stage
from mechanisms.interface import Hook, Origin, TrialRecord
from outer_service.observed import (
    GateFinding,
    GateReport,
    HookEffect,
    MechanismEffect,
    MechanismState,
    ObservedLesson,
    ObservedMechanism,
    ObservedRun,
    ObservedTask,
    RunState,
    SearchConfig,
    SourceFile,
)
from service_kit.translate import (
    configuration_from_proto,
    duration_from_proto,
    duration_to_proto,
    objective_from_proto,
    outcome_from_proto,
    space_from_proto,
)

_DECISIONS = {trace_pb2.TRIAL_STATE_KEPT: True, trace_pb2.TRIAL_STATE_DISCARDED: False}
_ENDED = frozenset((*_DECISIONS, trace_pb2.TRIAL_STATE_REJECTED))
_KINDS: dict[int, str] = {trace_pb2.LESSON_KIND_IDEA: "idea", trace_pb2.LESSON_KIND_EXPERIMENT: "experiment"}
_FAILURES: dict[int, str] = {
    trace_pb2.FAILURE_CLASS_IMPLEMENTATION: "implementation",
    trace_pb2.FAILURE_CLASS_FUNDAMENTAL: "fundamental",
}
_E = TypeVar("_E", bound=enum.StrEnum)


def run_from_proto(message: trace_pb2.Run) -> ObservedRun:
    """The head of a run."""
    return ObservedRun(
        name=message.name,
        configured_task=message.spec.task,
        state=_member(RunState, trace_pb2.RunState.Name(message.state)),
        state_reason=message.state_reason,
        max_trials=message.spec.max_trials,
        checkpoint_every=message.spec.checkpoint_every,
        decided_trials=message.decided_trials,
        task=_task(message.task),
        config=config_from_proto(message.search_config),
        incumbent=_number(message.incumbent_trial),
        best=_number(message.best_trial),
        baseline_metric=message.baseline_metric if message.HasField("baseline_metric") else None,
        last_sequence=message.last_sequence,
    )


def config_from_proto(message: trace_pb2.SearchConfig) -> SearchConfig:
    """The control surface."""
    return SearchConfig(
        tuple(message.frozen), message.strategy, message.guidance, message.revision, message.visible_from_trial
    )


def trials_from_proto(messages: Iterable[trace_pb2.Trial]) -> tuple[TrialRecord, ...]:
    """The decided and rejected trials among ``messages``, by number."""
    ended = (message for message in messages if message.state in _ENDED)
    return tuple(sorted(map(_trial, ended), key=lambda trial: trial.number))


def mechanism_from_proto(message: trace_pb2.Mechanism) -> ObservedMechanism:
    return ObservedMechanism(
        id=message.name.rsplit("/", 1)[-1],
        summary=message.summary,
        source=message.source,
        source_sha256=message.source_sha256,
        hooks=_hooks(message.hooks),
        state=_member(MechanismState, trace_pb2.MechanismState.Name(message.state)),
        state_reason=message.state_reason,
        effect=effect_from_proto(message.effect),
        installed_after_trial=message.installed_after_trial,
        author=message.author,
    )


def effect_from_proto(message: trace_pb2.MechanismEffect) -> MechanismEffect:
    effects = tuple(map(_hook_effect, message.hooks))
    return MechanismEffect(effects, message.changed_decisions, message.proposed_trials, message.kept_trials)


def effect_to_proto(effect: MechanismEffect) -> trace_pb2.MechanismEffect:
    return trace_pb2.MechanismEffect(
        hooks=map(_hook_effect_to_proto, effect.hooks),
        changed_decisions=effect.changed_decisions,
        proposed_trials=effect.proposed_trials,
        kept_trials=effect.kept_trials,
    )


def report_from_proto(message: trace_pb2.GateReport) -> GateReport:
    return GateReport(
        accepted=message.verdict == trace_pb2.GATE_VERDICT_ACCEPTED,
        stage=_stage(message.stage),
        findings=tuple(GateFinding(_stage(f.stage), f.line, f.message, f.hint) for f in message.findings),
        hooks=_hooks(message.hooks),
        replayed_trials=message.replayed_trials,
        replay=tuple(map(_hook_effect, message.replay)),
        source_sha256=message.source_sha256,
        text=message.text,
        summary=message.summary,
    )


def report_to_proto(report: GateReport) -> trace_pb2.GateReport:
    verdict = trace_pb2.GATE_VERDICT_ACCEPTED if report.accepted else trace_pb2.GATE_VERDICT_REJECTED
    return trace_pb2.GateReport(
        verdict=verdict,
        stage=_stage_to_proto(report.stage),
        findings=[
            trace_pb2.GateFinding(stage=_stage_to_proto(f.stage), line=f.line, message=f.message, hint=f.hint)
            for f in report.findings
        ],
        hooks=map(hook_to_proto, report.hooks),
        replayed_trials=report.replayed_trials,
        replay=map(_hook_effect_to_proto, report.replay),
        source_sha256=report.source_sha256,
        text=report.text,
        summary=report.summary,
    )


def sources_from_proto(messages: Iterable[task_pb2.SourceFile]) -> tuple[SourceFile, ...]:
    return tuple(SourceFile(message.path, message.content) for message in messages)


def lessons_from_proto(messages: Iterable[trace_pb2.Lesson]) -> tuple[ObservedLesson, ...]:
    return tuple(
        ObservedLesson(
            statement=message.statement,
            kind=_KINDS.get(message.kind, ""),
            failure=_FAILURES.get(message.failure, ""),
            task=message.task,
            hardware=message.hardware,
            parameters=tuple(message.parameters),
            evidence=len(message.evidence),
            shown=message.times_shown,
            helped=message.times_helped,
            cited=message.times_cited,
            cited_kept=message.times_cited_kept,
        )
        for message in messages
    )


def _task(message: task_pb2.TaskDescription) -> ObservedTask:
    return ObservedTask(
        name=message.name,
        title=message.title,
        documentation=message.documentation,
        space=space_from_proto(message.space, "run.task.space"),
        objective=objective_from_proto(message.objective, "run.task.objective"),
        budget_seconds=duration_from_proto(message.budget),
        budget_clock=message.budget_clock,
        hardware=message.hardware,
    )


def _trial(message: trace_pb2.Trial) -> TrialRecord:
    return TrialRecord(
        number=message.number,
        configuration=configuration_from_proto(message.configuration, "trial.configuration"),
        changes=configuration_from_proto(message.changes, "trial.changes"),
        hypothesis=message.hypothesis,
        origin=_member(Origin, trace_pb2.TrialOrigin.Name(message.origin)),
        proposer=message.proposer.rsplit("/", 1)[-1],
        outcome=outcome_from_proto(message.outcome, "trial.outcome"),
        metric=message.metric if message.HasField("metric") else None,
        kept=_DECISIONS.get(message.state),
        incumbent_metric=message.incumbent_metric if message.HasField("incumbent_metric") else None,
        budget_fraction=message.budget_fraction or 1.0,
        side_metrics=dict(message.side_metrics),
        message=message.message,
    )


def touched_from_proto(messages: Iterable[trace_pb2.Trial]) -> dict[str, frozenset[int]]:
    """Numbers of the trials that each mechanism proposed or changed, by the mechanism's id."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for message in messages:
        for name in (message.proposer, *message.changed_by):
            if name:
                found[name.rsplit("/", 1)[-1]].add(message.number)
    return {name: frozenset(numbers) for name, numbers in found.items()}


def revisions_from_proto(messages: Iterable[trace_pb2.Trial]) -> dict[int, int]:
    """The revision of the search configuration under which each trial was proposed, by the trial's number."""
    return {message.number: message.config_revision for message in messages}


def _number(name: str) -> int | None:
    """The number in ``runs/{run}/trials/{number}``; None for an empty name."""
    return int(name.rsplit("/", 1)[-1]) if name else None


def _hook_effect(message: trace_pb2.HookEffect) -> HookEffect:
    hook = _member(Hook, trace_pb2.MechanismHook.Name(message.hook))
    return HookEffect(hook, message.calls, message.changed, duration_from_proto(message.time))


def _hook_effect_to_proto(effect: HookEffect) -> trace_pb2.HookEffect:
    time = duration_to_proto(effect.seconds)
    return trace_pb2.HookEffect(hook=hook_to_proto(effect.hook), calls=effect.calls, changed=effect.changed, time=time)


def _hooks(numbers: Sequence[int]) -> tuple[Hook, ...]:
    wire: Any = trace_pb2.MechanismHook
    return tuple(_member(Hook, wire.Name(number)) for number in numbers)


def hook_to_proto(hook: Hook) -> trace_pb2.MechanismHook.ValueType:
    return trace_pb2.MechanismHook.Value(f"MECHANISM_HOOK_{hook.name}")


def _stage(number: int) -> Stage:
    wire: Any = trace_pb2.GateStage
    return _member(Stage, wire.Name(number)) if number else Stage.SIZE


def _stage_to_proto(stage: Stage) -> trace_pb2.GateStage.ValueType:
    return trace_pb2.GateStage.Value(f"GATE_STAGE_{stage.name}")


def _member(members: type[_E], name: str) -> _E:
    """The member whose name ends the wire name, as RUN_STATE_PAUSED ends with PAUSED."""
    for member in members:
        if name.endswith(f"_{member.name}"):
            return member
    raise ValueError(f"{name} is not known to this version")
