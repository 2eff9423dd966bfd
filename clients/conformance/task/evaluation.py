"""What an evaluation sends: TASK-3 and TASK-4."""

from __future__ import annotations

import math

from bilevel.v1 import common_pb2, task_pb2

from clients.conformance import common
from clients.conformance.expect import expect, invalid, shown
from clients.conformance.suite import NotSeen
from clients.conformance.task.subject import TASK, TaskSubject
from clients.conformance.values import UNKNOWN, wrong_values
from clients.conformance.wire import Refusal


@TASK.check("TASK-3.1")
async def one_result(task: TaskSubject) -> None:
    """Evaluate ends with exactly one result"""
    kinds = [message.WhichOneof("event") for message in await task.default()]
    expect(kinds.count("result") == 1, f"Evaluate must send exactly one result; it sent {kinds.count('result')}")
    expect(kinds[-1] == "result", f"the result must be the last message; {kinds[-1]} came after it")


@TASK.check("TASK-3.2")
async def result(task: TaskSubject) -> None:
    """A result has an outcome, and a finite metric exactly when it succeeded"""
    expect_result(await _result(task))


def expect_result(said: task_pb2.EvaluationResult) -> None:
    """Outcome, metric and side metrics fit each other."""
    known = said.outcome in common_pb2.Outcome.values() and said.outcome != common_pb2.OUTCOME_UNSPECIFIED
    expect(known, f"outcome must be a known one; it is {said.outcome}")
    succeeded, name = said.outcome == common_pb2.OUTCOME_SUCCEEDED, common_pb2.Outcome.Name(said.outcome)
    expect(said.HasField("metric") == succeeded, f"metric must be present exactly when SUCCEEDED; outcome is {name}")
    expect(math.isfinite(said.metric), f"metric must be finite; it is {said.metric}")
    _finite(said.side_metrics, "side_metrics")


@TASK.check("TASK-3.3")
async def progress(task: TaskSubject) -> None:
    """Progress goes forward, from 0 to 1"""
    reports = [message.progress for message in await task.default() if message.HasField("progress")]
    if not reports:
        raise NotSeen("the evaluation reported no progress")
    for before, after in zip([None, *reports[:-1]], reports, strict=True):
        expect(0 <= after.fraction <= 1, f"fraction must be from 0 to 1; it is {after.fraction}")
        _finite(after.metrics, "metrics")
        if before is not None:
            for field in ("fraction", "step"):
                old, new = getattr(before, field), getattr(after, field)
                expect(new >= old, f"{field} must not go back; it went from {old} to {new}")


@TASK.check("TASK-3.4")
async def defaults_succeed(task: TaskSubject) -> None:
    """The default configuration can be evaluated"""
    said = await _result(task)
    name = common_pb2.Outcome.Name(said.outcome)
    expect(
        said.outcome == common_pb2.OUTCOME_SUCCEEDED, f"the defaults must succeed; outcome is {name}: {said.message}"
    )


@TASK.check("TASK-3.5")
async def wrong(task: TaskSubject) -> None:
    """Evaluate refuses unknown parameters, wrong types and values out of range by name"""
    for case in wrong_values(await task.space()):
        call = task.evaluate({case.parameter: case.value})
        doing = f"Evaluate with {case.why} for {case.parameter}"
        await invalid(call, doing, case.parameter, f"configuration.{case.parameter}")


@TASK.check("TASK-3.6")
async def fractions(task: TaskSubject) -> None:
    """Evaluate refuses a budget_fraction outside 0 to 1"""
    for fraction in (-0.5, 1.5, math.nan):
        call = task.evaluate({}, budget_fraction=fraction)
        await invalid(call, f"Evaluate with a budget_fraction of {fraction}", "budget_fraction")


@TASK.check("TASK-3.7")
async def held_out(task: TaskSubject) -> None:
    """The held-out split is measured exactly where the task has one"""
    if (await task.described()).has_held_out_split:
        outcome = await task.outcome({}, split=common_pb2.SPLIT_HELD_OUT)
        measured = not isinstance(outcome, Refusal) and outcome.outcome == common_pb2.OUTCOME_SUCCEEDED
        expect(measured, f"the held-out split must be measured; Evaluate says {shown(outcome)}")
    else:
        call = task.evaluate({}, split=common_pb2.SPLIT_HELD_OUT)
        await invalid(call, "Evaluate on a held-out split that the task does not have", "split")


@TASK.check("TASK-3.8")
async def failures(task: TaskSubject) -> None:
    """A failed evaluation says why"""
    for configuration, found in await task.judged():
        if found:
            outcome = await task.outcome(configuration)
            if not isinstance(outcome, Refusal) and outcome.outcome != common_pb2.OUTCOME_SUCCEEDED:
                expect_result(outcome)
                expect(outcome.message.strip(), f"the result for {shown(configuration)} must say why it failed")
                return
    raise NotSeen("no sampled configuration ended in a failed evaluation")


@TASK.check("TASK-4.1")
async def determinism(task: TaskSubject) -> None:
    """A task that says so gives the same metric again"""
    if not (await task.described()).deterministic:
        raise NotSeen("the task does not say that it is deterministic")
    first = await _result(task)
    again = await task.outcome((await task.space()).defaults())
    expect(not isinstance(again, Refusal), f"the second evaluation of the defaults was refused: {again}")
    assert not isinstance(again, Refusal)
    expect(
        again.metric == first.metric, f"deterministic, but two evaluations gave {first.metric!r} and {again.metric!r}"
    )


@TASK.check("COMMON-2.1", advice=True)
async def details(task: TaskSubject) -> None:
    """Refusals carry ErrorInfo"""
    common.has_info(await invalid(task.evaluate({UNKNOWN: 1}), "Evaluate with an unknown parameter"))


@TASK.check("COMMON-2.2")
async def field_details(task: TaskSubject) -> None:
    """Refusals of wrong values carry BadRequest"""
    refusal = await invalid(task.evaluate({UNKNOWN: 1}), "Evaluate with an unknown parameter")
    expect(refusal.fields, "INVALID_ARGUMENT must carry BadRequest with the wrong fields")


async def _result(task: TaskSubject) -> task_pb2.EvaluationResult:
    for message in await task.default():
        if message.HasField("result"):
            return message.result
    raise NotSeen("the evaluation gave no result")


def _finite(numbers: object, field: str) -> None:
    wrong = {name: number for name, number in dict(numbers).items() if not math.isfinite(number)}  # type: ignore[call-overload]
    expect(not wrong, f"{field} must be finite; got {wrong}")
