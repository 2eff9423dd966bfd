"""The InnerLoopService on the wire. Every method translates a request, calls the domain, and translates the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import grpc
from bilevel.v1 import common_pb2, inner_pb2_grpc, task_pb2, trace_pb2
from bilevel.v1 import inner_pb2 as pb

from inner_service import description, names, requests
from inner_service.installation import Refused
from inner_service.lessons.requests import lesson_from_proto
from inner_service.loops import DRIVEN
from inner_service.mechanism import GateReport
from inner_service.run import Run, Trial
from inner_service.runs import Runs
from inner_service.search_state import TEMPLATES
from inner_service.store import Entry
from inner_service.task_messages import description_to_proto
from inner_service.tasks import Task
from inner_service.trace import TrialEvaluated, TrialProgressed, TrialStarted
from inner_service.translate import (
    entry_to_proto,
    lesson_to_proto,
    mechanism_to_proto,
    report_to_proto,
    run_to_proto,
    search_config_to_proto,
    trial_to_proto,
)
from mechanisms import reference
from mechanisms.interface import Hook
from service_kit.errors import Draining, InvalidArgument, NotFound, ServiceError
from service_kit.llm.failures import LimitTooSmall, Message
from service_kit.security.auth import caller_name
from service_kit.server import RECONNECT_SECONDS
from service_kit.translate import configuration_from_proto

NAME = "bilevel.v1.InnerLoopService"
_ATTACHED_BYTES = 3000
"""Largest report in an error's details: gRPC clients take 8 KiB of trailers. The trace has the complete one."""

_TASKS_ASKED = 64

_Context = grpc.aio.ServicerContext[Any, Any]


class InnerLoopServicer(inner_pb2_grpc.InnerLoopServiceServicer):
    """Serves ``runs``. Watch streams end when ``draining`` is set."""

    def __init__(self, runs: Runs, draining: asyncio.Event) -> None:
        self._runs = runs
        self._store = runs.store
        self._draining = draining

    async def ListTasks(self, request: pb.ListTasksRequest, context: _Context) -> pb.ListTasksResponse:  # noqa: N802
        async def configured(task: Task) -> pb.ConfiguredTask:
            try:
                return pb.ConfiguredTask(name=task.name, description=description_to_proto(await task.describe()))
            except ServiceError as error:
                return pb.ConfiguredTask(name=task.name, error=str(error))

        if len(request.names) > _TASKS_ASKED:
            raise InvalidArgument.of("names", f"must be at most {_TASKS_ASKED}; got {len(request.names)}")
        tasks = self._runs.tasks
        asked = [tasks.get(name) for name in request.names] or tasks.all()
        return pb.ListTasksResponse(tasks=await asyncio.gather(*map(configured, asked)))

    async def CreateRun(self, request: pb.CreateRunRequest, context: _Context) -> pb.CreateRunResponse:  # noqa: N802
        run = await self._runs.create(requests.spec_from_proto(request.spec), request.request_id, caller_name())
        return pb.CreateRunResponse(run=run_to_proto(run))

    async def GetRun(self, request: pb.GetRunRequest, context: _Context) -> pb.GetRunResponse:  # noqa: N802
        search = await self._store.search(names.run_id(request.name, "name"))
        return pb.GetRunResponse(run=self._shown(search.run))

    async def ListRuns(self, request: pb.ListRunsRequest, context: _Context) -> pb.ListRunsResponse:  # noqa: N802
        size = names.page_size(request.page_size, 50)
        found = await self._store.runs(size + 1, names.page_position(request.page_token))
        more = names.page_token(found[size - 1][0]) if len(found) > size else ""
        return pb.ListRunsResponse(runs=[self._shown(run) for _, run in found[:size]], next_page_token=more)

    def _shown(self, run: Run) -> trace_pb2.Run:
        # Clients tell a checkpoint by the reason of PAUSED.
        return run_to_proto(run, self._store.waits.of(run.name) if run.state in DRIVEN else None)

    async def StartRun(self, request: pb.StartRunRequest, context: _Context) -> pb.StartRunResponse:  # noqa: N802
        run = await self._runs.start(names.run_id(request.name, "name"))
        return pb.StartRunResponse(run=run_to_proto(run))

    async def PauseRun(self, request: pb.PauseRunRequest, context: _Context) -> pb.PauseRunResponse:  # noqa: N802
        run = await self._runs.pause(names.run_id(request.name, "name"), request.reason)
        return pb.PauseRunResponse(run=run_to_proto(run))

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: _Context) -> pb.ResumeRunResponse:  # noqa: N802
        run = await self._runs.resume(names.run_id(request.name, "name"))
        return pb.ResumeRunResponse(run=run_to_proto(run))

    async def CancelRun(self, request: pb.CancelRunRequest, context: _Context) -> pb.CancelRunResponse:  # noqa: N802
        run = await self._runs.cancel(names.run_id(request.name, "name"), request.reason)
        return pb.CancelRunResponse(run=run_to_proto(run))

    async def Propose(self, request: pb.ProposeRequest, context: _Context) -> pb.ProposeResponse:  # noqa: N802
        run_id, count = names.run_id(request.parent, "parent"), requests.count_from_proto(request)
        changes = requests.changes_from_proto(request)
        trials = await self._runs.propose(run_id, count, changes, request.hypothesis)
        return pb.ProposeResponse(trials=[trial_to_proto(run_id, trial) for trial in trials])

    async def Evaluate(  # noqa: N802
        self, request: pb.InnerLoopServiceEvaluateRequest, context: _Context
    ) -> AsyncIterator[pb.InnerLoopServiceEvaluateResponse]:
        run_id, number = names.trial_of(request.name, "name")
        after, over = (await self._store.search(run_id)).run.last_sequence, asyncio.Event()
        work: asyncio.Task[Trial] = asyncio.create_task(self._runs.evaluate(run_id, number))
        # An evaluation that is cancelled with its whole run ends with the run's trace.
        work.add_done_callback(lambda done: None if done.cancelled() else over.set())
        try:
            async for item in self._store.watch(run_id, after, heartbeat=3600, draining=over):
                if isinstance(item, Entry) and _concerns(item, number):
                    yield pb.InnerLoopServiceEvaluateResponse(event=entry_to_proto(item))
                    if isinstance(item.event, TrialEvaluated):
                        return
            await work
        finally:
            if self._draining.is_set():
                self._runs.leave()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def Accept(self, request: pb.AcceptRequest, context: _Context) -> pb.AcceptResponse:  # noqa: N802
        run_id, number = names.trial_of(request.name, "name")
        trial = await self._runs.accept(run_id, number)
        return pb.AcceptResponse(trial=trial_to_proto(run_id, trial))

    async def GetTrial(self, request: pb.GetTrialRequest, context: _Context) -> pb.GetTrialResponse:  # noqa: N802
        run_id, number = names.trial_of(request.name, "name")
        trials = (await self._store.search(run_id)).trials
        if number >= len(trials):
            raise NotFound("trial", request.name, f"the run has {len(trials)} trials, counted from 0")
        return pb.GetTrialResponse(trial=trial_to_proto(run_id, trials[number]))

    async def ListTrials(self, request: pb.ListTrialsRequest, context: _Context) -> pb.ListTrialsResponse:  # noqa: N802
        run_id, size = names.run_id(request.parent, "parent"), names.page_size(request.page_size, 100)
        after = names.page_position(request.page_token)
        found = await self._store.trials(run_id, size + 1, -1 if after is None else after)
        more = names.page_token(found[size - 1].number) if len(found) > size else ""
        return pb.ListTrialsResponse(
            trials=[trial_to_proto(run_id, trial) for trial in found[:size]], next_page_token=more
        )

    async def WatchTrace(  # noqa: N802
        self, request: pb.WatchTraceRequest, context: _Context
    ) -> AsyncIterator[pb.WatchTraceResponse]:
        run_id, after = names.run_id(request.run, "run"), request.after_sequence
        heartbeat = requests.heartbeat_from_proto(request)
        last = (await self._store.search(run_id)).run.last_sequence
        if not 0 <= after <= last:
            description_ = f"must be from 0 to {last}, the newest event's number; got {after}"
            raise InvalidArgument.of("after_sequence", description_)
        if request.no_follow:
            async for entry in self._store.entries(run_id, after):
                yield pb.WatchTraceResponse(event=entry_to_proto(entry))
            return
        async for item in self._store.watch(run_id, after, heartbeat=heartbeat, draining=self._draining):
            if isinstance(item, Entry):
                yield pb.WatchTraceResponse(event=entry_to_proto(item))
            else:
                yield pb.WatchTraceResponse(heartbeat=pb.Heartbeat(last_sequence=item.sequence))
            after = item.sequence
        run = (await self._store.search(run_id)).run
        if not run.state.terminal or after < run.last_sequence:
            raise Draining(f"the trace of {run.name}", RECONNECT_SECONDS)

    async def UpdateSearchConfig(  # noqa: N802
        self, request: pb.UpdateSearchConfigRequest, context: _Context
    ) -> pb.UpdateSearchConfigResponse:
        run_id = names.run_id(request.run, "run")
        config = await self._runs.update_search_config(run_id, requests.change_from_proto(request))
        return pb.UpdateSearchConfigResponse(search_config=search_config_to_proto(config))

    async def DescribeSearch(  # noqa: N802
        self, request: pb.DescribeSearchRequest, context: _Context
    ) -> pb.DescribeSearchResponse:
        run_id = names.run_id(request.run, "run")
        search, loop = await self._store.search(run_id), await self._runs.loop(run_id)
        return pb.DescribeSearchResponse(
            loop_sources=[task_pb2.SourceFile(path=f.path, content=f.content) for f in description.loop_sources()],
            mechanism_reference=reference.describe(),
            examples=[task_pb2.SourceFile(path=f.path, content=f.content) for f in description.examples()],
            capabilities=pb.InnerCapabilities(
                mechanism_languages=["python"],
                hooks=[trace_pb2.MechanismHook.Value(f"MECHANISM_HOOK_{hook.name}") for hook in Hook],
                implementation=description.implementation(),
            ),
            proposer_prompt=await _sendable(loop.proposer.preview()),
            lessons_prompt=await _sendable(loop.lessons.preview()) if request.with_lessons_prompt else (),
            prompt_version=TEMPLATES.version,
            lessons=map(lesson_to_proto, await loop.proposer.lessons(search)),
        )

    async def CheckMechanism(  # noqa: N802
        self, request: pb.CheckMechanismRequest, context: _Context
    ) -> pb.CheckMechanismResponse:
        installer = await self._runs.installer(names.run_id(request.run, "run"))
        settings = configuration_from_proto(request.settings, "settings")
        report = await installer.check(request.source, settings, request.allow_inert)
        return pb.CheckMechanismResponse(report=report_to_proto(report))

    async def InstallMechanism(  # noqa: N802
        self, request: pb.InstallMechanismRequest, context: _Context
    ) -> pb.InstallMechanismResponse:
        run_id = names.run_id(request.run, "run")
        installer = await self._runs.installer(run_id)
        settings = configuration_from_proto(request.settings, "settings")
        try:
            mechanism = await installer.install(
                request.mechanism_id, request.source, settings, allow_inert=request.allow_inert, author=request.author
            )
        except Refused as refused:
            refused.attachments = [_attached(refused.report)]
            raise
        return pb.InstallMechanismResponse(mechanism=mechanism_to_proto(run_id, mechanism))

    async def UninstallMechanism(  # noqa: N802
        self, request: pb.UninstallMechanismRequest, context: _Context
    ) -> pb.UninstallMechanismResponse:
        run_id, mechanism_id = names.mechanism_of(request.name, "name")
        installer = await self._runs.installer(run_id)
        mechanism = await installer.uninstall(mechanism_id, request.reason)
        return pb.UninstallMechanismResponse(mechanism=mechanism_to_proto(run_id, mechanism))

    async def ListMechanisms(  # noqa: N802
        self, request: pb.ListMechanismsRequest, context: _Context
    ) -> pb.ListMechanismsResponse:
        run_id = names.run_id(request.parent, "parent")
        mechanisms = (await self._store.search(run_id)).mechanisms
        return pb.ListMechanismsResponse(mechanisms=[mechanism_to_proto(run_id, m) for m in mechanisms])

    async def Remark(self, request: pb.RemarkRequest, context: _Context) -> pb.RemarkResponse:  # noqa: N802
        run_id = names.run_id(request.run, "run")
        return pb.RemarkResponse(sequence=await self._runs.remark(run_id, request.author, request.text))

    async def ListLessons(self, request: pb.ListLessonsRequest, context: _Context) -> pb.ListLessonsResponse:  # noqa: N802
        size = names.page_size(request.page_size, 100)
        found = await self._store.lessons.list(request.task, size + 1, names.page_position(request.page_token))
        more = names.page_token(found[size - 1][0]) if len(found) > size else ""
        return pb.ListLessonsResponse(lessons=[lesson_to_proto(x) for _, x in found[:size]], next_page_token=more)

    async def GetLesson(self, request: pb.GetLessonRequest, context: _Context) -> pb.GetLessonResponse:  # noqa: N802
        lesson = await self._store.lessons.get(names.lesson_id(request.name, "name"))
        return pb.GetLessonResponse(lesson=lesson_to_proto(lesson))

    async def CreateLesson(  # noqa: N802
        self, request: pb.CreateLessonRequest, context: _Context
    ) -> pb.CreateLessonResponse:
        wanted = await lesson_from_proto(request, self._store.has_trial)
        lesson = await self._store.lessons.create(wanted, request.request_id)
        return pb.CreateLessonResponse(lesson=lesson_to_proto(lesson))

    async def DeleteLesson(  # noqa: N802
        self, request: pb.DeleteLessonRequest, context: _Context
    ) -> pb.DeleteLessonResponse:
        await self._store.lessons.delete(names.lesson_id(request.name, "name"))
        return pb.DeleteLessonResponse()


def _concerns(entry: Entry, number: int) -> bool:
    event = entry.event
    return isinstance(event, TrialStarted | TrialProgressed | TrialEvaluated) and event.number == number


async def _sendable(prompt: Awaitable[Sequence[Message]]) -> list[common_pb2.ChatMessage]:
    """A prompt that would be sent; nothing where even its shortest form is longer than the model's context."""
    try:
        return [common_pb2.ChatMessage(role=message.role, content=message.content) for message in await prompt]
    except LimitTooSmall:
        return []


def _attached(report: GateReport) -> trace_pb2.GateReport:
    """The report, shortened to what fits into trailers."""
    message = report_to_proto(report)
    while message.ByteSize() > _ATTACHED_BYTES and len(message.findings) > 1:
        del message.findings[-1]
    excess = message.ByteSize() - _ATTACHED_BYTES
    if excess > 0:
        message.text = message.text.encode()[: max(0, len(message.text.encode()) - excess - 8)].decode(errors="ignore")
    return message
