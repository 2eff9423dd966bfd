"""Each wrong call gets a status whose details name the field or the state and say what is allowed."""

import asyncio
from typing import Any

import pytest
from bilevel.v1 import common_pb2, trace_pb2
from bilevel.v1 import inner_pb2 as pb
from google.protobuf.duration_pb2 import Duration


def spec(**fields: Any) -> pb.CreateRunRequest:
    return pb.CreateRunRequest(spec=trace_pb2.RunSpec(**({"task": "quadratic", "max_trials": 3} | fields)))


def values(**fields: Any) -> common_pb2.Configuration:
    return common_pb2.Configuration(values={name: common_pb2.Value(**v) for name, v in fields.items()})


WRONG_SPECS = [
    ({"task": ""}, "spec.task", "ListTasks"),
    ({"max_trials": 0}, "spec.max_trials", "from 1 to 100000"),
    ({"max_trials": 100_001}, "spec.max_trials", "from 1 to 100000"),
    ({"checkpoint_every": -1}, "spec.checkpoint_every", "from 0"),
    ({"parallelism": 5}, "spec.parallelism", "from 1 to 4"),
    ({"parallelism": -1}, "spec.parallelism", "from 1 to 4"),
    ({"confirmation_seeds": -1}, "spec.confirmation_seeds", "from 0"),
    ({"max_tokens": -1}, "spec.max_tokens", "at least 0"),
    ({"max_duration": Duration(seconds=-1)}, "spec.max_duration", "longer than 0"),
    ({"display_name": "n" * 201}, "spec.display_name", "at most 200"),
    ({"start": values(x={"double_value": 11})}, "spec.start.x", "from -10 to 10"),
    ({"start": values(wide={"double_value": 1})}, "spec.start.wide", "is not a parameter"),
    ({"start": values(depth={"int_value": 4})}, "spec.start.depth", "locked at 3"),
    ({"start": values(x={})}, "spec.start.values[x]", "int_value"),
    ({"start": values(x={"double_value": 10}, y={"int_value": 10})}, "spec.start.x", "below 19"),
]


@pytest.mark.parametrize(("fields", "field", "says"), WRONG_SPECS, ids=lambda x: str(x)[:40])
async def test_a_wrong_spec_names_its_field_and_the_range(inner, fields, field, says) -> None:
    error = await inner.refusal(inner.stub.CreateRun(spec(**fields)))
    assert (error.code, [v.field for v in error.violations]) == ("INVALID_ARGUMENT", [field])
    assert says in error.violations[0].description


async def test_all_wrong_fields_of_a_spec_are_named_at_once(inner) -> None:
    error = await inner.refusal(inner.stub.CreateRun(spec(max_trials=0, max_tokens=-3)))
    assert [v.field for v in error.violations] == ["spec.max_trials", "spec.max_tokens"]


async def test_an_unknown_task_is_answered_with_the_configured_ones(inner) -> None:
    error = await inner.refusal(inner.stub.CreateRun(spec(task="chess")))
    assert error.code == "NOT_FOUND"
    assert "quadratic, lost" in error.hint


async def test_an_unreachable_task_is_unavailable_and_the_hint_says_what_to_do(inner) -> None:
    error = await inner.refusal(inner.stub.CreateRun(spec(task="lost")))
    assert error.code == "UNAVAILABLE"
    assert "127.0.0.1:9" in error.message
    assert "Start it" in error.hint


NO_RUN = [
    ("GetRun", pb.GetRunRequest(name="runs/none")),
    ("StartRun", pb.StartRunRequest(name="runs/none")),
    ("PauseRun", pb.PauseRunRequest(name="runs/none")),
    ("ResumeRun", pb.ResumeRunRequest(name="runs/none")),
    ("CancelRun", pb.CancelRunRequest(name="runs/none")),
    ("Propose", pb.ProposeRequest(parent="runs/none")),
    ("Accept", pb.AcceptRequest(name="runs/none/trials/0")),
    ("GetTrial", pb.GetTrialRequest(name="runs/none/trials/0")),
    ("ListTrials", pb.ListTrialsRequest(parent="runs/none")),
    ("UpdateSearchConfig", pb.UpdateSearchConfigRequest(run="runs/none")),
    ("DescribeSearch", pb.DescribeSearchRequest(run="runs/none")),
    ("CheckMechanism", pb.CheckMechanismRequest(run="runs/none")),
    ("InstallMechanism", pb.InstallMechanismRequest(run="runs/none", mechanism_id="a")),
    ("UninstallMechanism", pb.UninstallMechanismRequest(name="runs/none/mechanisms/a")),
    ("ListMechanisms", pb.ListMechanismsRequest(parent="runs/none")),
    ("Remark", pb.RemarkRequest(run="runs/none", text="hello")),
    ("DeleteLesson", pb.DeleteLessonRequest(name="lessons/none")),
]


@pytest.mark.parametrize(("method", "request_"), NO_RUN, ids=lambda x: x if isinstance(x, str) else "")
async def test_what_does_not_exist_is_not_found_by_its_name(inner, method, request_) -> None:
    error = await inner.refusal(getattr(inner.stub, method)(request_))
    assert error.code == "NOT_FOUND"
    assert error.metadata["name"].split("/")[1] == "none"


@pytest.mark.parametrize("method", ["Evaluate", "WatchTrace"])
async def test_streams_of_unknown_runs_are_not_found(inner, method) -> None:
    request = {
        "Evaluate": pb.InnerLoopServiceEvaluateRequest(name="runs/none/trials/0"),
        "WatchTrace": pb.WatchTraceRequest(run="runs/none"),
    }[method]
    error = await inner.refusal(getattr(inner.stub, method)(request).read())
    assert error.code == "NOT_FOUND"


async def test_unknown_trials_and_mechanisms_are_not_found(inner) -> None:
    name = await inner.create()
    for call in (
        inner.stub.GetTrial(pb.GetTrialRequest(name=f"{name}/trials/4")),
        inner.stub.Accept(pb.AcceptRequest(name=f"{name}/trials/4")),
        inner.stub.UninstallMechanism(pb.UninstallMechanismRequest(name=f"{name}/mechanisms/none")),
        inner.evaluate(f"{name}/trials/4"),
    ):
        assert (await inner.refusal(call)).code == "NOT_FOUND"


WRONG_NAMES = [
    ("GetRun", pb.GetRunRequest(name="run/1"), "name", "runs/RUN"),
    ("GetTrial", pb.GetTrialRequest(name="runs/a/trials/x"), "name", "runs/RUN/trials/NUMBER"),
    ("Propose", pb.ProposeRequest(parent=""), "parent", "runs/RUN"),
    ("DeleteLesson", pb.DeleteLessonRequest(name="lesson"), "name", "lessons/LESSON"),
    ("UninstallMechanism", pb.UninstallMechanismRequest(name="runs/a"), "name", "mechanisms/MECHANISM"),
    ("ListRuns", pb.ListRunsRequest(page_size=-1), "page_size", "from 0 to 1000"),
    ("ListRuns", pb.ListRunsRequest(page_token="here"), "page_token", "next_page_token"),
    ("ListTrials", pb.ListTrialsRequest(parent="runs/a", page_size=1001), "page_size", "from 0 to 1000"),
    ("CreateLesson", pb.CreateLessonRequest(), "lesson.statement", "1 to 2000"),
    ("CreateLesson", pb.CreateLessonRequest(lesson=trace_pb2.Lesson(statement="s")), "lesson.task", "must name"),
    ("CreateRun", pb.CreateRunRequest(spec=spec().spec, request_id="r" * 65), "request_id", "at most 64"),
]


@pytest.mark.parametrize(("method", "request_", "field", "says"), WRONG_NAMES, ids=lambda x: str(x)[:20])
async def test_a_malformed_field_is_named_with_its_form(inner, method, request_, field, says) -> None:
    error = await inner.refusal(getattr(inner.stub, method)(request_))
    assert (error.code, error.violations[0].field) == ("INVALID_ARGUMENT", field)
    assert says in error.violations[0].description


async def test_wrong_fields_about_an_existing_run_are_named(inner) -> None:
    name = await inner.create()
    freeze = trace_pb2.FreezeReason
    everything = [freeze(parameter=p) for p in ("x", "y", "mode", "betas")]
    cases = [
        (inner.stub.Propose(pb.ProposeRequest(parent=name, count=65)), "count"),
        (inner.stub.Remark(pb.RemarkRequest(run=name, text=" ")), "text"),
        (inner.stub.WatchTrace(pb.WatchTraceRequest(run=name, after_sequence=99)).read(), "after_sequence"),
        (inner.stub.WatchTrace(pb.WatchTraceRequest(run=name, heartbeat=Duration(nanos=1))).read(), "heartbeat"),
        (self_update(inner, name, freeze=[freeze(parameter="z")]), "freeze[0].parameter"),
        (self_update(inner, name, unfreeze=[freeze(parameter="depth")]), "unfreeze[0].parameter"),
        (self_update(inner, name, freeze=everything), "freeze"),
        (self_update(inner, name, guidance="g" * 4001), "guidance"),
        (self_update(inner, name, expected_revision=-1), "expected_revision"),
        (inner.install(name, "class Mechanism: pass", "Not An Id"), "mechanism_id"),
    ]
    for call, field in cases:
        error = await inner.refusal(call)
        assert (error.code, error.violations[0].field) == ("INVALID_ARGUMENT", field)


def self_update(inner: Any, name: str, **fields: Any) -> Any:
    return inner.stub.UpdateSearchConfig(pb.UpdateSearchConfigRequest(run=name, **fields))


async def test_a_clients_own_changes_are_checked_like_any_other(inner) -> None:
    name = await inner.create()
    await inner.one_trial(name)
    for wanted, field in (
        (values(x={"double_value": 77}), "changes.x"),
        (values(z={"double_value": 1}), "changes.z"),
        (values(depth={"int_value": 5}), "changes.depth"),
        (values(x={"double_value": 8}), "changes"),
        (values(x={"double_value": 10}, y={"int_value": 10}), "changes.x"),
    ):
        error = await inner.refusal(inner.propose(name, changes=wanted))
        assert (error.code, [v.field for v in error.violations]) == ("INVALID_ARGUMENT", [field])
    assert len(await inner.trials(name)) == 1


async def test_a_call_in_the_wrong_state_names_the_state_and_the_allowed_ones(inner, task) -> None:
    task.gate.clear()
    name = await inner.create()
    for method, request, allowed in (
        ("PauseRun", pb.PauseRunRequest(name=name), "running"),
        ("ResumeRun", pb.ResumeRunRequest(name=name), "paused"),
    ):
        error = await inner.refusal(getattr(inner.stub, method)(request))
        assert (error.code, error.metadata["state"]) == ("FAILED_PRECONDITION", "created")
        assert error.metadata["allowed"] == allowed
    await inner.start(name)
    await task.started.get()
    for call in (
        inner.start(name),
        inner.propose(name),
        inner.accept(f"{name}/trials/0"),
        inner.evaluate(f"{name}/trials/0"),
    ):
        error = await inner.refusal(call)
        assert (error.reason, error.metadata["state"]) == ("WRONG_STATE", "running")
    await inner.stub.CancelRun(pb.CancelRunRequest(name=name))
    for call in (
        inner.stub.CancelRun(pb.CancelRunRequest(name=name)),
        self_update(inner, name, strategy="late"),
        inner.install(name, "class Mechanism: pass", "late"),
    ):
        error = await inner.refusal(call)
        assert (error.reason, error.metadata["state"]) == ("WRONG_STATE", "cancelled")


async def test_a_trial_is_evaluated_and_accepted_once_and_in_order(inner, task) -> None:
    name = await inner.create()
    [trial] = await inner.propose(name)
    assert (await inner.refusal(inner.accept(trial.name))).metadata["state"] == "proposed"
    assert (await inner.refusal(inner.propose(name))).reason == "WRONG_STATE", "the baseline waits"
    task.gate.clear()
    evaluating = asyncio.create_task(inner.evaluate(trial.name))
    await task.started.get()
    assert (await inner.refusal(inner.evaluate(trial.name))).metadata["state"] == "being evaluated"
    assert (await inner.refusal(inner.start(name))).reason == "WRONG_STATE", "one driver at a time"
    task.gate.set()
    await evaluating
    assert (await inner.refusal(inner.evaluate(trial.name))).metadata["state"] == "evaluated"
    await inner.accept(trial.name)
    assert (await inner.refusal(inner.accept(trial.name))).metadata["state"] == "kept"


async def test_own_changes_need_a_baseline_first(inner) -> None:
    name = await inner.create()
    error = await inner.refusal(inner.propose(name, changes=values(x={"double_value": 1})))
    assert error.reason == "WRONG_STATE"
    assert "baseline" in error.hint
