"""Runs that nothing drives: creation, reading, listing, and what their state allows. INNER-1, COMMON-2 to COMMON-4."""

from __future__ import annotations

import uuid
from typing import Any

from bilevel.v1 import inner_pb2, trace_pb2

from clients.conformance import common
from clients.conformance.expect import expect, invalid, refused, same, wrong_state
from clients.conformance.inner.subject import INNER, InnerSubject
from clients.conformance.values import wrong_values
from service_kit import translate

NO_RUN = "runs/conformance-none"


@INNER.check("COMMON-1.1")
async def health(inner: InnerSubject) -> None:
    """Health checks are answered"""
    await common.health(inner.wire)


@INNER.check("COMMON-1.2", advice=True)
async def reflection(inner: InnerSubject) -> None:
    """Server reflection lists the service"""
    await common.reflection(inner.wire)


@INNER.check("INNER-1.1")
async def tasks(inner: InnerSubject) -> None:
    """ListTasks gives every task with its description or an error"""
    for task in (await inner.wire.call("ListTasks")).tasks:
        described, error = task.HasField("description"), bool(task.error)
        expect(task.name, "every task must have a name")
        expect(described != error, f"task {task.name} must have a description or an error, and not both")
    named = (await inner.wire.call("ListTasks", names=[inner.task_name])).tasks
    same("the tasks of one name", [task.name for task in named], [inner.task_name])
    await refused(inner.wire.call("ListTasks", names=["no-such-task"]), "ListTasks of an unknown name", "NOT_FOUND")


@INNER.check("INNER-1.2")
async def creation(inner: InnerSubject) -> None:
    """CreateRun gives a CREATED run, complete"""
    run = await inner.create()
    expect(run.name.startswith("runs/"), f"name must have the form runs/RUN; it is {run.name!r}")
    same("the state of a new run", trace_pb2.RunState.Name(run.state), "RUN_STATE_CREATED")
    for field in ("task", "max_trials", "seed", "display_name"):
        same(f"spec.{field}", getattr(run.spec, field), getattr(inner.spec(), field))
    same("the task of the run", run.task.name, inner.task.name)
    missing = [field for field in ("etag", "create_time", "update_time") if not getattr(run, field)]
    expect(not missing, f"a new run must have {', '.join(missing)}")
    now = await inner.run(run.name)
    same("the etag that GetRun gives", now.etag, run.etag)
    same("the spec that GetRun gives", now.spec, run.spec)


@INNER.check("INNER-1.3")
async def wrong_specs(inner: InnerSubject) -> None:
    """A spec that cannot be searched is refused by field"""
    await refused(inner.create(task="no-such-task"), "CreateRun on an unknown task", "NOT_FOUND")
    await invalid(inner.create(max_trials=0), "CreateRun with max_trials 0", "spec.max_trials")
    beyond = inner.task.capacity + 1
    await invalid(inner.create(parallelism=beyond), f"CreateRun with parallelism {beyond}", "spec.parallelism")
    for case in wrong_values(inner.space):
        start = translate.configuration_to_proto({case.parameter: case.value})
        doing = f"CreateRun with {case.why} for {case.parameter} in start"
        await invalid(inner.create(start=start), doing, f"spec.start.{case.parameter}")


@INNER.check("COMMON-4.1")
async def once(inner: InnerSubject) -> None:
    """A repeated request_id creates nothing"""
    id_ = uuid.uuid4().hex
    first, again, other = [await inner.create(request_id=request) for request in (id_, id_, uuid.uuid4().hex)]
    same("the run of a repeated request_id", again.name, first.name)
    expect(other.name != first.name, "another request_id must create another run")
    found = [run.name for run in await common.pages(inner.wire, "ListRuns", "runs", 10)]
    same("how often ListRuns gives the run", found.count(first.name), 1)


@INNER.check("COMMON-4.2")
async def long_request_id(inner: InnerSubject) -> None:
    """A request_id of more than 64 characters is refused"""
    await invalid(inner.create(request_id="x" * 65), "CreateRun with a request_id of 65 characters", "request_id")


@INNER.check("COMMON-3.1")
async def pages_of_runs(inner: InnerSubject) -> None:
    """ListRuns gives every run once, newest first, in pages"""
    created = [(await inner.create()).name for _ in range(3)]
    listed = [run.name for run in await common.pages(inner.wire, "ListRuns", "runs", 2)]
    mine = [name for name in listed if name in created]
    same("the order of ListRuns", mine, created[::-1])


@INNER.check("COMMON-3.2")
async def wrong_pages(inner: InnerSubject) -> None:
    """Page sizes and page tokens that cannot be are refused"""
    run = (await inner.idle()).name
    await common.bad_pages(inner.wire, "ListRuns")
    await common.bad_pages(inner.wire, "ListTrials", parent=run)
    await common.bad_pages(inner.wire, "ListLessons")


@INNER.check("COMMON-1.3")
async def later_fields(inner: InnerSubject) -> None:
    """Fields of later versions are ignored"""
    request = inner_pb2.ListMechanismsRequest(parent=(await inner.idle()).name)
    await common.unknown_fields(inner.wire, "ListMechanisms", request)


@INNER.check("COMMON-2.1")
async def reasons(inner: InnerSubject) -> None:
    """Refusals carry ErrorInfo with a known reason"""
    common.has_info(await refused(inner.wire.call("GetRun", name=NO_RUN), "GetRun of no run", "NOT_FOUND"))
    common.has_info(await invalid(inner.create(max_trials=-1), "CreateRun with max_trials -1"))


@INNER.check("COMMON-2.2")
async def wrong_names(inner: InnerSubject) -> None:
    """Names of another form are refused with BadRequest"""
    for method, field in _NAMED.items():
        call = _drained(inner, method, **{field: "no/such:form"})
        await invalid(call, f"{method} with a name of another form", field)


@INNER.check("COMMON-2.3")
async def unknown_names(inner: InnerSubject) -> None:
    """Unknown names are answered with NOT_FOUND and ResourceInfo"""
    refusal = await refused(inner.wire.call("GetRun", name=NO_RUN), "GetRun of no run", "NOT_FOUND")
    common.names_resource(refusal, NO_RUN)
    for method, field in _NAMED.items():
        name = NO_RUN + {"GetTrial": "/trials/0", "Evaluate": "/trials/0", "Accept": "/trials/0"}.get(method, "")
        name += "/mechanisms/none" if method == "UninstallMechanism" else ""
        name = "lessons/none" if method.endswith("Lesson") else name
        more = {"text": "?", "author": "?"} if method == "Remark" else {}
        await refused(_drained(inner, method, **{field: name}, **more), f"{method} of {name}", "NOT_FOUND")


@INNER.check("INNER-1.4")
async def before_start(inner: InnerSubject) -> None:
    """A CREATED run can be neither paused nor resumed"""
    run = (await inner.idle()).name
    await wrong_state(inner.wire.call("PauseRun", name=run), "PauseRun of a CREATED run")
    await wrong_state(inner.wire.call("ResumeRun", name=run), "ResumeRun of a CREATED run")


@INNER.check("COMMON-2.4")
async def states_are_named(inner: InnerSubject) -> None:
    """WRONG_STATE says which state it is and which ones would do"""
    run = (await inner.idle()).name
    common.says_state(await wrong_state(inner.wire.call("ResumeRun", name=run), "ResumeRun of a CREATED run"))


@INNER.check("INNER-1.5")
async def cancelling(inner: InnerSubject) -> None:
    """CancelRun ends a run, with the reason"""
    run = await inner.cancelled()
    same("the state of a cancelled run", trace_pb2.RunState.Name(run.state), "RUN_STATE_CANCELLED")
    expect("cancelled run does" in run.state_reason, f"state_reason must hold the reason; it is {run.state_reason!r}")
    await wrong_state(inner.wire.call("CancelRun", name=run.name), "CancelRun of a CANCELLED run")


@INNER.check("INNER-1.5")
async def cancelling_closes(inner: InnerSubject) -> None:
    """CancelRun closes the run's open trials"""
    run = (await inner.create()).name
    await inner.propose(run)
    await inner.wire.call("CancelRun", name=run)
    open_ = (trace_pb2.TRIAL_STATE_PROPOSED, trace_pb2.TRIAL_STATE_RUNNING, trace_pb2.TRIAL_STATE_EVALUATED)
    left = [trial.number for trial in await inner.trials(run) if trial.state in open_]
    expect(not left, f"trials of a cancelled run must be closed; {left} are open")


@INNER.check("INNER-1.6")
async def after_the_end(inner: InnerSubject) -> None:
    """Nothing changes a run that has ended"""
    run = (await inner.cancelled()).name
    calls: dict[str, dict[str, Any]] = {
        "StartRun": {"name": run},
        "PauseRun": {"name": run},
        "ResumeRun": {"name": run},
        "Propose": {"parent": run},
        "UpdateSearchConfig": {"run": run, "strategy": "too late"},
    }
    for method, fields in calls.items():
        await wrong_state(inner.wire.call(method, **fields), f"{method} of a CANCELLED run")


_NAMED = {
    **dict.fromkeys(("GetRun", "StartRun", "PauseRun", "ResumeRun", "CancelRun"), "name"),
    **dict.fromkeys(("GetTrial", "Evaluate", "Accept", "UninstallMechanism", "GetLesson", "DeleteLesson"), "name"),
    **dict.fromkeys(("Propose", "ListTrials", "ListMechanisms"), "parent"),
    **dict.fromkeys(("WatchTrace", "UpdateSearchConfig", "DescribeSearch", "Remark"), "run"),
}
"""The field of each method's request that names a resource."""


async def _drained(inner: InnerSubject, method: str, **fields: Any) -> object:
    if inner.wire.service.methods_by_name[method].server_streaming:
        return await inner.wire.messages(method, timeout=10.0, **fields)
    return await inner.wire.call(method, **fields)
