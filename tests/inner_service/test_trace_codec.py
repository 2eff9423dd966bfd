"""Events keep every field through JSON and onto the wire."""

import json
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bilevel.v1 import trace_pb2

from inner_service import trace, trace_codec
from inner_service.conflicts import ConflictKind
from inner_service.early_stopping import EarlyStopping, EarlyStoppingRule
from inner_service.fold import apply
from inner_service.lessons.lesson import FailureClass, Lesson, LessonKind
from inner_service.mechanism import GateFinding, GateReport, HookEffect, Mechanism, MechanismEffect
from inner_service.noise import NoiseFloor, NoiseRule
from inner_service.run import (
    Confirmation,
    ParallelMode,
    RemeasurePurpose,
    RunSpec,
    RunState,
    SearchConfig,
    Trial,
)
from inner_service.store import Entry
from inner_service.task import EvaluationProgress, EvaluationResult, SourceFile, TaskDescription, TaskFault
from inner_service.translate import entry_to_proto, mechanism_to_proto, run_to_proto, trial_to_proto
from mechanisms.findings import Stage
from mechanisms.interface import Hook, Origin
from mechanisms.report import Verdict
from service_kit.llm.failures import Message
from service_kit.llm.usage import Usage
from service_kit.parameters import Kind, Objective, Outcome, Parameter, ParameterSpace, Split

SECOND, NOW = timedelta(seconds=1.5), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SPACE = ParameterSpace(
    (
        Parameter("x", Kind.REAL, 0.5, "real", minimum=0, maximum=1),
        Parameter("pair", Kind.LIST, (0.5, 0.9), minimum=0, maximum=1, length=2),
    ),
    ("a constraint",),
)
TASK = TaskDescription(
    "t", "title", "docs", SPACE, Objective("loss", unit="bits"), SECOND, "wall clock", 2, SECOND,
    (SourceFile("a.py", "x = 1"),), True, True, {"corpus": "abc"}, "cpu", "loss_so_far",
)  # fmt: skip
VALUES: Any = {"x": 0.25, "i": 3, "flag": True, "word": "SSSL", "pair": (0.5, 0.9)}
SPEC = RunSpec(
    "t", 7, 1, 2, 2, VALUES, True, 3, "name", {"group": "A"}, SECOND, 1000, True,
    ParallelMode.ASYNCHRONOUS, SECOND, 1.5, EarlyStopping(EarlyStoppingRule.MEDIAN), NoiseRule(4),
)  # fmt: skip
TRIAL = Trial(0, VALUES, VALUES, "why", Origin.MECHANISM, "m", incumbent_metric=0.5, incumbent=3, audited=True)
EFFECT = HookEffect(Hook.VETO, 5, 2, SECOND)
REPORT = GateReport(
    Verdict.REJECTED, Stage.REPLAY, (GateFinding(Stage.REPLAY, 3, "what", "do"),), (Hook.VETO,), 4, (EFFECT,), "ab",
    "text", "sum",
)  # fmt: skip
MECHANISM = Mechanism(
    "m", "sum", "source", "ab", (Hook.VETO,), VALUES, REPORT, "author", effect=MechanismEffect((EFFECT,), 2, 1),
    sandbox_layers=("seccomp",), installed_after_trial=3, state_reason="why", install_time=NOW,
)  # fmt: skip
CONFIG = SearchConfig(("x",), "explore", "look", 4)
LESSON = Lesson(
    "ab", "x helps", "t", "cpu", ("runs/r/trials/1",), NOW, NOW, LessonKind.IDEA, FailureClass.FUNDAMENTAL, ("x",),
    "gpt", True, True, 1, 2, 3, 4,
)  # fmt: skip
CONFIRMATION = Confirmation((1, 2), (0.5, 0.6), (0.4, 0.5), Split.HELD_OUT, 0.1, 0.05, 0.15, 0.2, 3)
EXAMPLES: list[trace.Event] = [
    trace.RunCreated(SPEC, TASK),
    trace.RunStateChanged(RunState.RUNNING, RunState.PAUSED, "why"),
    trace.TrialProposed(TRIAL),
    trace.TrialRejected(1, "why", "m"),
    trace.TrialStarted(1, 2, 3, 0.5),
    trace.TrialProgressed(1, EvaluationProgress(0.5, 3, SECOND, {"train_loss": 2.0}, "training")),
    trace.TrialEvaluated(
        1, EvaluationResult(Outcome.SUCCEEDED, 0.5, {"steps": 3.0}, "note", SECOND, {"corpus": "abc"})
    ),
    trace.TrialDecided(1, True, "why", True, 0.25),
    trace.ProposalFailed("why", 2),
    trace.SearchConfigUpdated(CONFIG, "a", (trace.FreezeReason("x", "r"),), (trace.FreezeReason("y", "s"),)),
    trace.MechanismInstalled(MECHANISM),
    trace.MechanismRejected("m", REPORT, "source"),
    trace.MechanismSuspended("m", Hook.VETO, "raised", "text", 3, 4),
    trace.MechanismsConflicted(ConflictKind.RANKINGS, ("a", "b"), "b", "text", 4),
    trace.MechanismUninstalled("m", "why", MechanismEffect((EFFECT,), 2, 1)),
    trace.DecisionChanged("m", Hook.VETO, 3, "before", "after"),
    trace.HooksCounted(3, (trace.MechanismHookCounts("m", (EFFECT,), 4, "hash"),)),
    trace.ModelCalled(
        "propose", "gpt", Usage(1, 2, 3, 4, 0.5), SECOND, (Message("user", "hi"),), "answer", "error", True
    ),
    trace.CheckpointReached(5),
    trace.RunConfirmed(CONFIRMATION),
    trace.LessonsShown(3, ("a", "b"), ("this", "that")),
    trace.Remarked("me", "text"),
    trace.MechanismReplayed("m", 3, True),
    trace.AvailabilityChanged("the task", False, "away", SECOND, SECOND),
    trace.TaskMisbehaved(3, TaskFault.SECOND_RESULT, "what", "do"),
    trace.TaskChanged(("capacity is 2, was 4",), True),
    trace.LessonsWritten(
        4,
        (LESSON,),
        (trace.LessonMerged("b", "y", ("runs/r/trials/2",), 0.75),),
        (trace.LessonRefused("z", "why"),),
        ("c",),
        "error",
    ),
    trace.LessonsCited(3, ("a",)),
    trace.LessonsCompared(3, "this", "that", True),
    trace.PauseRequested("lunch"),
    trace.TrialRemeasured(
        1, RemeasurePurpose.GAIN_CHECK, 3, Split.SEARCH, EvaluationResult(Outcome.SUCCEEDED, 0.5, elapsed=SECOND)
    ),
    trace.EarlyStopJudged(1, EarlyStoppingRule.LEARNING_CURVE, 0.5, 2.0, 1.5, 1.0, 7, True, 1.25),
    trace.NoiseEstimated(NoiseFloor((1, 2), (0.5, 0.6), 0.07, 0.2)),
    trace.GainChecked(2, 1, 3, 0.1, 0.2, True),
]
ONLY_HERE = {"observed", "state_hash", "incumbent"}
"""Fields that the log keeps for itself."""


def test_there_is_an_example_of_every_kind_and_the_wire_has_the_same_kinds() -> None:
    assert [trace_codec.kind_of(event) for event in EXAMPLES] == list(trace_codec.KINDS)
    assert set(trace_codec.KINDS) == {field.name for field in trace_pb2.TraceEvent.DESCRIPTOR.oneofs[0].fields}


@pytest.mark.parametrize("event", EXAMPLES, ids=trace_codec.kind_of)
def test_an_event_survives_the_log(event: trace.Event) -> None:
    stored = trace_codec.encode(event)
    assert trace_codec.decode(stored.kind, json.loads(json.dumps(stored.payload, allow_nan=False))) == event


@pytest.mark.parametrize("event", EXAMPLES, ids=trace_codec.kind_of)
def test_an_event_reaches_the_wire_with_every_field(event: trace.Event) -> None:
    message = entry_to_proto(Entry("r", 9, NOW, event))
    assert (message.run, message.sequence, message.time.ToDatetime(UTC)) == ("runs/r", 9, NOW)
    assert message.WhichOneof("event") == trace_codec.kind_of(event)
    body = getattr(message, trace_codec.kind_of(event))
    _same_fields(event, body)


def _same_fields(value: Any, message: Any) -> None:
    """Every field of ``value`` that is set is in ``message``, and nothing in ``message`` was left empty."""
    present = {field.name for field, _ in message.ListFields()}
    for field in fields(value):
        found = getattr(value, field.name)
        if not found or field.name in ONLY_HERE - present:
            continue
        assert field.name in present, field.name
        if is_dataclass(found) and not isinstance(found, TaskDescription | Usage):
            _same_fields(found, getattr(message, field.name))


def test_a_run_a_trial_and_a_mechanism_fill_every_field_of_their_messages() -> None:
    search = apply(None, trace.RunCreated(SPEC, TASK), NOW, 1, "r")
    known = {field.name for field in fields(search.run)} | {"name", "etag", "incumbent_trial", "best_trial"}
    assert {field.name for field in trace_pb2.Run.DESCRIPTOR.fields} <= known
    known = {field.name for field in fields(Trial)} | {"name", "incumbent_trial"}
    assert {field.name for field in trace_pb2.Trial.DESCRIPTOR.fields} <= known
    known = {field.name for field in fields(Mechanism)}
    assert {field.name for field in trace_pb2.Mechanism.DESCRIPTOR.fields} <= known
    assert run_to_proto(search.run).name == "runs/r"
    assert trial_to_proto("r", TRIAL).name == "runs/r/trials/0"
    assert trial_to_proto("r", TRIAL).incumbent_trial == "runs/r/trials/3"
    assert mechanism_to_proto("r", MECHANISM).name == "runs/r/mechanisms/m"
    assert mechanism_to_proto("r", MECHANISM).effect.changed_decisions == 2


def test_an_unknown_kind_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="unknown kind 'moon_landed'"):
        trace_codec.decode("moon_landed", {})
