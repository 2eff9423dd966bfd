"""An inner service under examination, and the scenarios that its checks look at."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from bilevel.v1 import inner_pb2, task_pb2, trace_pb2

from clients.conformance.event_streams import EventStream
from clients.conformance.expect import expect
from clients.conformance.once import Once
from clients.conformance.suite import NotSeen, Suite
from clients.conformance.values import other_values
from clients.conformance.wire import Refusal, Wire
from service_kit import translate
from service_kit.errors import Unavailable
from service_kit.parameters import Configuration, ParameterSpace, Value

SERVICE = "bilevel.v1.InnerLoopService"
TERMINAL = (trace_pb2.RUN_STATE_FINISHED, trace_pb2.RUN_STATE_CANCELLED, trace_pb2.RUN_STATE_FAILED)
GATE_SECONDS = 180.0
"""For calls that ask a model or run the gate."""
AUTHOR = "conformance"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A trial that went through all three primitives by hand."""

    proposed: trace_pb2.Trial
    events: list[trace_pb2.TraceEvent]
    """What Evaluate streamed."""
    accepted: trace_pb2.Trial
    before: trace_pb2.Run
    after: trace_pb2.Run


@dataclass(frozen=True, slots=True)
class ByHand:
    """A run of which the baseline and one change were evaluated by hand."""

    run: str
    baseline: Evaluated
    changed: Evaluated
    changes: Configuration


class InnerSubject:
    """Reaches an inner service; cancels every run that it created in the end, and forgets its lessons."""

    def __init__(self, wire: Wire, task: str = "") -> None:
        self.wire, self.wires = wire, (wire,)
        self.patience = 60.0
        self.trace = EventStream(wire, "WatchTrace", "run")
        self.id = f"conformance {uuid.uuid4().hex[:12]}"
        """Marks what this examination created."""
        self.lessons: list[str] = []
        self.by_hand = Once(self._by_hand)
        self.idle = Once(self.create)
        """A CREATED run on which nothing happens but remarks and configuration changes."""
        self.cancelled = Once(self._cancelled)
        self._wanted = task
        self._runs: list[str] = []
        self._task: inner_pb2.ConfiguredTask | None = None

    async def reach(self) -> None:
        """Chooses the task. Raises Unavailable where nothing answers or no task can be reached."""
        await self.wire.reachable()
        try:
            tasks = list((await self.wire.call("ListTasks")).tasks)
        except Refusal as refusal:
            raise Unavailable("the list of tasks", hint=f"ListTasks was refused with {refusal}") from None
        usable = [task for task in tasks if task.HasField("description") and self._wanted in ("", task.name)]
        if not usable:
            said = "; ".join(f"{task.name}: {task.error or 'reachable'}" for task in tasks) or "it has no tasks"
            what = f"task {self._wanted!r}" if self._wanted else "a task to examine it on"
            raise Unavailable(what, hint=f"An inner service is examined on one of its tasks: {said}")
        self._task = usable[0]
        self.patience = 60.0 + 8 * translate.duration_from_proto(self.task.budget)

    async def close(self) -> None:
        """Leaves nothing behind that runs or that later searches would read."""
        for lesson in self.lessons:
            await self._quietly("DeleteLesson", name=lesson)
        for run in self._runs:
            await self._quietly("CancelRun", name=run, reason="the examination is over")
        await self.wire.close()

    async def _quietly(self, method: str, **fields: Any) -> None:
        """A call that may be refused: what it is to bring about may be so already."""
        try:
            await self.wire.call(method, **fields)
        except Refusal:
            return

    @property
    def task(self) -> task_pb2.TaskDescription:
        assert self._task is not None
        return self._task.description

    @property
    def task_name(self) -> str:
        assert self._task is not None
        return self._task.name

    @property
    def space(self) -> ParameterSpace:
        return translate.space_from_proto(self.task.space)

    def spec(self, **fields: Any) -> trace_pb2.RunSpec:
        complete: dict[str, Any] = {
            "task": self.task_name,
            "max_trials": 3,
            "seed": 11,
            "display_name": self.id,
        } | fields
        return trace_pb2.RunSpec(**complete)

    async def create(self, request_id: str = "", **spec: Any) -> trace_pb2.Run:
        """A new run."""
        created = await self.wire.call("CreateRun", spec=self.spec(**spec), request_id=request_id)
        self.remember(created.run.name)
        run: trace_pb2.Run = created.run
        return run

    def remember(self, run: str) -> None:
        """``run`` is cancelled at the end."""
        self._runs.append(run)

    async def run(self, name: str) -> trace_pb2.Run:
        run: trace_pb2.Run = (await self.wire.call("GetRun", name=name)).run
        return run

    async def propose(self, run: str, changes: Configuration | None = None, **fields: Any) -> list[trace_pb2.Trial]:
        if changes is not None:
            fields["changes"] = translate.configuration_to_proto(changes)
        answer = await self.wire.call("Propose", parent=run, timeout=GATE_SECONDS, **fields)
        return list(answer.trials)

    async def evaluate(self, trial: str) -> list[trace_pb2.TraceEvent]:
        """The events of an evaluation by hand."""
        return [message.event for message in await self.wire.messages("Evaluate", name=trial)]

    async def through(self, trial: trace_pb2.Trial) -> Evaluated:
        """Evaluates and accepts a PROPOSED trial."""
        run = trial.name.rsplit("/trials/", 1)[0]
        before = await self.run(run)
        events = await self.evaluate(trial.name)
        accepted = (await self.wire.call("Accept", name=trial.name)).trial
        return Evaluated(trial, events, accepted, before, await self.run(run))

    async def trials(self, run: str) -> list[trace_pb2.Trial]:
        answer = await self.wire.call("ListTrials", parent=run, page_size=1000)
        return list(answer.trials)

    async def until(self, run: str, *states: int) -> trace_pb2.Run:
        """The run, once it is in one of ``states`` or has ended."""
        now = await self.run(run)
        while now.state not in (*states, *TERMINAL):
            # A later change of the state, and not one of those that led to the present state.
            await self.trace.until(run, lambda event: event.HasField("run_state_changed"), now.last_sequence)
            now = await self.run(run)
        return now

    async def _by_hand(self) -> ByHand:
        run = await self.create(max_trials=20)
        baseline = await self._proposed(run.name, None)
        evaluated = await self.through(baseline)
        changes, trial = await self.changed(run.name)
        return ByHand(run.name, evaluated, await self.through(trial), changes)

    async def _proposed(self, run: str, changes: Configuration | None) -> trace_pb2.Trial:
        trials = await self.propose(run, changes)
        expect(len(trials) == 1, f"Propose must give one trial; it gave {len(trials)}")
        return trials[0]

    async def changed(self, run: str) -> tuple[dict[str, Value], trace_pb2.Trial]:
        """A PROPOSED trial with one parameter changed, and the change. Tries values until the task takes one."""
        incumbent = await self.incumbent(run)
        for parameter in self.space.editable:
            for value in other_values(parameter, incumbent.get(parameter.name, parameter.default)):
                try:
                    trial = await self._proposed(run, {parameter.name: value})
                except Refusal as refusal:
                    if refusal.code != "INVALID_ARGUMENT":
                        raise
                    continue
                if trial.state == trace_pb2.TRIAL_STATE_PROPOSED:
                    return {parameter.name: value}, trial
        raise NotSeen("no single change of a parameter was taken by the task")

    async def incumbent(self, run: str) -> dict[str, Value]:
        """The configuration that the run's search continues from; empty before there is one."""
        name = (await self.run(run)).incumbent_trial
        if not name:
            return {}
        trial = (await self.wire.call("GetTrial", name=name)).trial
        return dict(translate.configuration_from_proto(trial.configuration))

    async def _cancelled(self) -> trace_pb2.Run:
        run = await self.create()
        answer = await self.wire.call("CancelRun", name=run.name, reason="to see what a cancelled run does")
        cancelled: trace_pb2.Run = answer.run
        return cancelled


INNER: Suite[InnerSubject] = Suite("inner", ("full", "no-python"))
