"""The inner loop from a client's side: runs, trials by hand, the trace, mechanisms, lessons."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Self

import grpc
from bilevel.v1 import common_pb2, inner_pb2, inner_pb2_grpc, trace_pb2

from clients.addresses import INNER
from clients.connection import Methods, connect
from clients.watching import HEARTBEAT, PATIENCE, resumed
from service_kit.parameters import Value
from service_kit.translate import configuration_to_proto, duration_to_proto, values_to_proto

METHODS = Methods(
    inner_pb2.DESCRIPTOR.services_by_name["InnerLoopService"],
    repeatable=(
        *("ListTasks", "CreateRun", "GetRun", "ListRuns", "GetTrial", "ListTrials", "DescribeSearch"),
        *("ListMechanisms", "ListLessons", "GetLesson", "CreateLesson"),
    ),
    slow=("Propose", "Accept", "CheckMechanism", "InstallMechanism"),
)
"""What gRPC may do about each method."""


class InnerClient:
    """A connection to one inner service. ``async with InnerClient() as inner:`` closes it at the end.

    Resources are the messages of the protocol, named as there (``runs/{run}``). Every method raises
    :class:`service_kit.errors.RemoteError`: NOT_FOUND for an unknown name, INVALID_ARGUMENT with the wrong fields,
    FAILED_PRECONDITION where the state does not allow the call, UNAVAILABLE with how to start the service.
    """

    def __init__(self, address: str = INNER.address) -> None:
        self.connection = connect(INNER.at(address), METHODS)
        # The generated stub type is for both kinds of channel; on an asynchronous one it is the asynchronous stub.
        self._stub: inner_pb2_grpc.InnerLoopServiceAsyncStub = inner_pb2_grpc.InnerLoopServiceStub(
            self.connection.channel
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that are running fail."""
        await self.connection.close()

    # Tasks and runs

    async def list_tasks(self, names: Sequence[str] = ()) -> list[inner_pb2.ConfiguredTask]:
        """The tasks that runs can name, with their descriptions where they can be reached.

        Args:
            names: Only these; a loopback address (``localhost:7500``) names the task that is served there.
        """
        response = await self.connection.call(self._stub.ListTasks, inner_pb2.ListTasksRequest(names=names))
        return list(response.tasks)

    async def create_run(self, spec: trace_pb2.RunSpec, request_id: str = "") -> trace_pb2.Run:
        """A new run in state CREATED.

        Args:
            spec: What to search for, and within which limits; see RunSpec in trace.proto.
            request_id: Repeating one returns the first one's run; by default a new one.

        Raises RemoteError: INVALID_ARGUMENT naming the wrong fields, NOT_FOUND for an unknown task, UNAVAILABLE for
        one that cannot be reached.
        """
        request = inner_pb2.CreateRunRequest(spec=spec, request_id=request_id or uuid.uuid4().hex)
        return (await self.connection.call(self._stub.CreateRun, request)).run

    async def get_run(self, name: str) -> trace_pb2.Run:
        """The run ``name`` (``runs/{run}``) as it is now. Raises RemoteError: NOT_FOUND."""
        return (await self.connection.call(self._stub.GetRun, inner_pb2.GetRunRequest(name=name))).run

    async def list_runs(self, limit: int = 50) -> list[trace_pb2.Run]:
        """Up to ``limit`` runs, newest first."""
        runs: list[trace_pb2.Run] = []
        token = ""
        while len(runs) < limit:
            request = inner_pb2.ListRunsRequest(page_size=min(limit - len(runs), 1000), page_token=token)
            page = await self.connection.call(self._stub.ListRuns, request)
            runs += page.runs
            token = page.next_page_token
            if not token:
                break
        return runs

    async def start_run(self, name: str) -> trace_pb2.Run:
        """Lets the service drive the CREATED run ``name``. Raises RemoteError: FAILED_PRECONDITION in another state."""
        return (await self.connection.call(self._stub.StartRun, inner_pb2.StartRunRequest(name=name))).run

    async def pause_run(self, name: str, reason: str = "") -> trace_pb2.Run:
        """Stops driving the RUNNING run ``name`` after its current trial; ``reason`` is kept on the trace.

        Raises RemoteError: FAILED_PRECONDITION in another state.
        """
        request = inner_pb2.PauseRunRequest(name=name, reason=reason)
        return (await self.connection.call(self._stub.PauseRun, request)).run

    async def resume_run(self, name: str) -> trace_pb2.Run:
        """Goes on with the PAUSED run ``name``. Raises RemoteError: FAILED_PRECONDITION in another state."""
        return (await self.connection.call(self._stub.ResumeRun, inner_pb2.ResumeRunRequest(name=name))).run

    async def cancel_run(self, name: str, reason: str = "") -> trace_pb2.Run:
        """Ends the run ``name`` now and kills its evaluation; ``reason`` is kept on the trace.

        Raises RemoteError: FAILED_PRECONDITION for a run that has ended.
        """
        request = inner_pb2.CancelRunRequest(name=name, reason=reason)
        return (await self.connection.call(self._stub.CancelRun, request)).run

    # Trials by hand

    async def propose(
        self, run: str, count: int = 1, *, changes: Mapping[str, Value] | None = None, hypothesis: str = ""
    ) -> list[trace_pb2.Trial]:
        """New trials of a run that the service does not drive: CREATED or PAUSED. The first is the run's baseline.

        Args:
            run: Resource name.
            count: Trials to propose, 1 to 64.
            changes: The caller's own candidate in place of the proposer's: what differs from the incumbent.
            hypothesis: The caller's, with ``changes``.

        Returns PROPOSED trials, and REJECTED ones with their reason. Raises RemoteError: INVALID_ARGUMENT naming the
        wrong parameters, FAILED_PRECONDITION, RESOURCE_EXHAUSTED when the run's trials are used up.
        """
        request = inner_pb2.ProposeRequest(parent=run, count=count, hypothesis=hypothesis)
        if changes is not None:
            request.changes.CopyFrom(configuration_to_proto(changes))
        return list((await self.connection.call(self._stub.Propose, request)).trials)

    async def evaluate(self, trial: str) -> AsyncIterator[trace_pb2.TraceEvent]:
        """Evaluates the PROPOSED trial ``trial`` (its resource name): its events as they happen.

        Leaving the loop early cancels the work. Raises RemoteError: FAILED_PRECONDITION, UNAVAILABLE for a lost task.
        """
        call = self._stub.Evaluate(inner_pb2.InnerLoopServiceEvaluateRequest(name=trial))
        try:
            async for response in call:
                yield response.event
        except grpc.RpcError as error:
            raise self.connection.explain(error) from None
        finally:
            call.cancel()

    async def accept(self, trial: str) -> trace_pb2.Trial:
        """Decides the EVALUATED trial ``trial``: KEPT or DISCARDED. Raises RemoteError: FAILED_PRECONDITION."""
        return (await self.connection.call(self._stub.Accept, inner_pb2.AcceptRequest(name=trial))).trial

    async def get_trial(self, name: str) -> trace_pb2.Trial:
        """The trial ``name`` (``runs/{run}/trials/{trial}``) as it is now. Raises RemoteError: NOT_FOUND."""
        return (await self.connection.call(self._stub.GetTrial, inner_pb2.GetTrialRequest(name=name))).trial

    async def list_trials(self, run: str) -> list[trace_pb2.Trial]:
        """Every trial of the run ``run``, oldest first; pages are followed. Raises RemoteError: NOT_FOUND."""
        trials: list[trace_pb2.Trial] = []
        token = ""
        while True:
            request = inner_pb2.ListTrialsRequest(parent=run, page_size=1000, page_token=token)
            page = await self.connection.call(self._stub.ListTrials, request)
            trials += page.trials
            token = page.next_page_token
            if not token:
                return trials

    # The trace

    async def watch_trace(
        self,
        run: str,
        after_sequence: int = 0,
        *,
        follow: bool = True,
        heartbeat: float = HEARTBEAT,
        patience: float = PATIENCE,
    ) -> AsyncIterator[trace_pb2.TraceEvent]:
        """The run's events, each once and in order; goes on by itself after a lost connection or a server's restart.

        Ends when the run is in a terminal state.

        Args:
            run: Resource name.
            after_sequence: The last number that the caller has; 0 is the whole trace.
            follow: False ends the iteration after what is committed now.
            heartbeat: Seconds without events after which the server must show that it lives.
            patience: Seconds for which a lost server may stay away.

        Raises RemoteError: NOT_FOUND, DATA_LOSS for a gap, UNAVAILABLE once ``patience`` is over.
        """

        def open_stream(after: int) -> object:
            return self._stub.WatchTrace(
                inner_pb2.WatchTraceRequest(
                    run=run, after_sequence=after, heartbeat=duration_to_proto(heartbeat), no_follow=not follow
                )
            )

        explain = self.connection.explain
        events = resumed(open_stream, explain, after_sequence, heartbeat=heartbeat, patience=patience)
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def checkpoints(self, run: str) -> AsyncIterator[trace_pb2.Run]:
        """The run at each of its checkpoints, paused, and resumed when the loop's body is done; ends with the run."""
        reached = -1
        async for event in self.watch_trace(run):
            if event.HasField("checkpoint_reached"):
                reached = event.checkpoint_reached.decided_trials
            if event.run_state_changed.to_state != trace_pb2.RUN_STATE_PAUSED:
                continue
            paused = await self.get_run(run)
            if paused.state == trace_pb2.RUN_STATE_PAUSED and paused.decided_trials == reached:
                yield paused
                await self.resume_run(run)

    async def remark(self, run: str, author: str, text: str) -> int:
        """Leaves the remark ``text`` by ``author`` on the trace of ``run``; returns its number.

        Raises RemoteError: INVALID_ARGUMENT for a text that is empty or longer than 2000 characters.
        """
        request = inner_pb2.RemarkRequest(run=run, author=author, text=text)
        return (await self.connection.call(self._stub.Remark, request)).sequence

    # How the search works, and changing it

    async def update_search_config(self, request: inner_pb2.UpdateSearchConfigRequest) -> trace_pb2.SearchConfig:
        """Freezes, unfreezes, sets strategy and guidance, as ``request`` says; returns the new control surface.

        Raises RemoteError: INVALID_ARGUMENT, ABORTED when it is based on an old revision.
        """
        return (await self.connection.call(self._stub.UpdateSearchConfig, request)).search_config

    async def configure_search(
        self,
        run: trace_pb2.Run,
        *,
        author: str,
        freeze: Mapping[str, str] | None = None,
        unfreeze: Mapping[str, str] | None = None,
        strategy: str | None = None,
        guidance: str | None = None,
    ) -> trace_pb2.SearchConfig:
        """The same in plain values; None leaves a field as it is.

        Args:
            run: The run as it was when this was decided: a change that came since is not overwritten.
            author: Who decided it, for the trace.
            freeze: Parameters that proposals leave alone from now on, each with the reason; ``unfreeze`` likewise.
            strategy: How to search, in a few words; ``guidance`` is what the proposer is told.

        Raises RemoteError: INVALID_ARGUMENT, ABORTED when the search was configured since ``run`` was read.
        """
        request = inner_pb2.UpdateSearchConfigRequest(
            run=run.name,
            freeze=_reasons(freeze or {}),
            unfreeze=_reasons(unfreeze or {}),
            strategy=strategy,
            guidance=guidance,
            author=author,
            expected_revision=run.search_config.revision,
            check_revision=True,
        )
        return await self.update_search_config(request)

    async def describe_search(self, run: str, *, lessons_prompt: bool = False) -> inner_pb2.DescribeSearchResponse:
        """What a researcher must read to improve the search of ``run``: its loop, the hooks, the language; with
        ``lessons_prompt`` also the prompt that would draw lessons from its trace now."""
        request = inner_pb2.DescribeSearchRequest(run=run, with_lessons_prompt=lessons_prompt)
        return await self.connection.call(self._stub.DescribeSearch, request)

    async def check_mechanism(
        self, run: str, source: str, *, settings: Mapping[str, Value] | None = None, allow_inert: bool = False
    ) -> trace_pb2.GateReport:
        """The gate's verdict on a mechanism, without installing it.

        Args:
            run: The run on whose history it is replayed.
            source: One Python module with a class ``Mechanism``.
            settings: What it is constructed with.
            allow_inert: Accept one that changes nothing.
        """
        request = inner_pb2.CheckMechanismRequest(
            run=run, source=source, settings=_settings(settings), allow_inert=allow_inert
        )
        return (await self.connection.call(self._stub.CheckMechanism, request)).report

    async def install_mechanism(
        self,
        run: str,
        mechanism_id: str,
        source: str,
        *,
        settings: Mapping[str, Value] | None = None,
        allow_inert: bool = False,
        author: str = "",
    ) -> trace_pb2.Mechanism:
        """Installs what the gate accepts; it acts from the next trial on.

        Args:
            run: Resource name.
            mechanism_id: Its name in the run: lower-case letters, digits, dashes and underscores.
            source: One Python module with a class ``Mechanism``.
            settings: What it is constructed with.
            allow_inert: Accept one that changes nothing, as a control.
            author: Who wrote it, for the trace.

        Raises RemoteError: FAILED_PRECONDITION with the gate's findings, ALREADY_EXISTS.
        """
        request = inner_pb2.InstallMechanismRequest(
            run=run,
            mechanism_id=mechanism_id,
            source=source,
            settings=_settings(settings),
            allow_inert=allow_inert,
            author=author,
        )
        return (await self.connection.call(self._stub.InstallMechanism, request)).mechanism

    async def uninstall_mechanism(self, name: str, reason: str = "") -> trace_pb2.Mechanism:
        """Removes the mechanism ``name`` (``runs/{run}/mechanisms/{mechanism}``); ``reason`` is kept on the trace.

        Raises RemoteError: NOT_FOUND, FAILED_PRECONDITION for one that is removed already.
        """
        request = inner_pb2.UninstallMechanismRequest(name=name, reason=reason)
        return (await self.connection.call(self._stub.UninstallMechanism, request)).mechanism

    async def list_mechanisms(self, run: str) -> list[trace_pb2.Mechanism]:
        """The mechanisms of ``run``, oldest first, removed and suspended ones included."""
        request = inner_pb2.ListMechanismsRequest(parent=run)
        return list((await self.connection.call(self._stub.ListMechanisms, request)).mechanisms)

    # Lessons

    async def lessons_page(
        self, task: str = "", page_size: int = 0, page_token: str = ""
    ) -> inner_pb2.ListLessonsResponse:
        """One page of lessons, newest first, with the token of the next.

        Args:
            task: Only lessons of this task; empty is all.
            page_size: Lessons a page, at most 1000; 0 is the service's choice.
            page_token: That of the page before; empty for the first.
        """
        request = inner_pb2.ListLessonsRequest(task=task, page_size=page_size, page_token=page_token)
        return await self.connection.call(self._stub.ListLessons, request)

    async def list_lessons(self, task: str = "", limit: int = 100) -> list[trace_pb2.Lesson]:
        """Up to ``limit`` lessons, newest first; only those of ``task`` where it is named."""
        lessons: list[trace_pb2.Lesson] = []
        token = ""
        while len(lessons) < limit:
            page = await self.lessons_page(task, min(limit - len(lessons), 1000), token)
            lessons += page.lessons
            token = page.next_page_token
            if not token:
                break
        return lessons

    async def get_lesson(self, name: str) -> trace_pb2.Lesson:
        """The lesson ``name`` (``lessons/{lesson}``). Raises RemoteError: NOT_FOUND."""
        return (await self.connection.call(self._stub.GetLesson, inner_pb2.GetLessonRequest(name=name))).lesson

    async def create_lesson(
        self, lesson: trace_pb2.Lesson, request_id: str = "", *, imported: bool = False
    ) -> trace_pb2.Lesson:
        """Writes a lesson, or supports one that says the same.

        Args:
            lesson: Its statement, task and evidence count.
            request_id: Repeating one writes it once; by default a new one.
            imported: Whether the evidence comes from elsewhere.

        Raises RemoteError: INVALID_ARGUMENT naming the wrong fields.
        """
        request = inner_pb2.CreateLessonRequest(
            lesson=lesson, request_id=request_id or uuid.uuid4().hex, imported=imported
        )
        return (await self.connection.call(self._stub.CreateLesson, request)).lesson

    async def delete_lesson(self, name: str) -> None:
        """Forgets the lesson ``name`` (``lessons/{lesson}``). Raises RemoteError: NOT_FOUND."""
        await self.connection.call(self._stub.DeleteLesson, inner_pb2.DeleteLessonRequest(name=name))


def _settings(settings: Mapping[str, Value] | None) -> common_pb2.Configuration:
    return common_pb2.Configuration(values=values_to_proto(settings or {}))


def _reasons(reasons: Mapping[str, str]) -> list[trace_pb2.FreezeReason]:
    return [trace_pb2.FreezeReason(parameter=name, reason=reason) for name, reason in reasons.items()]
