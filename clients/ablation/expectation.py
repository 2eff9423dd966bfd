"""How long it will take, from what an evaluation of this task takes here.

Measured, not asked: one evaluation of the starting configuration, in a run of its own that is cancelled afterwards and
belongs to no group. It also shows before anything else begins that the task can be measured at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from bilevel.v1 import common_pb2, trace_pb2

from clients import wording
from clients.ablation.folder import Plan
from clients.inner import InnerClient
from service_kit.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Expectation:
    """What an ablation will need of the task."""

    evaluation_seconds: float
    evaluations: int
    at_once: int
    hardware: str

    @property
    def seconds(self) -> float:
        """Evaluations alone; what models take to answer comes on top."""
        return self.evaluation_seconds * self.evaluations / self.at_once


async def measure(plan: Plan, inner: InnerClient, parallel: int) -> Expectation:
    """Evaluate the starting configuration once; a measurement of an earlier start is used again.

    Raises :class:`ServiceError` when it cannot be measured.
    """
    trial, run = await _calibration(plan, inner)
    if trial.outcome != common_pb2.OUTCOME_SUCCEEDED:
        said = f"{wording.outcome(trial.outcome)}: {trial.message}"
        raise ServiceError(f"the starting configuration of {plan.design.task!r} cannot be measured: {said}")
    at_once = max(1, min(parallel, run.task.capacity))
    seconds = trial.elapsed.seconds + trial.elapsed.nanos / 1e9
    return Expectation(seconds, plan.design.evaluations, at_once, run.task.hardware)


async def _calibration(plan: Plan, inner: InnerClient) -> tuple[trace_pb2.Trial, trace_pb2.Run]:
    """The measured trial and its run; a measurement that was cut off by the end of its client is begun anew."""
    for attempt in count(1):
        spec = trace_pb2.RunSpec(
            task=plan.design.task,
            max_trials=1,
            seed=plan.design.seed_of(1),
            display_name="calibration of an ablation",
            labels={"ablation": plan.id, "group": "calibration"},
        )
        run = await inner.create_run(spec, f"ablate-{plan.id}-calibration-{attempt}")
        trial = await _measured(inner, run)
        if trial is not None:
            return trial, run
    raise AssertionError("counting does not end")


async def _measured(inner: InnerClient, run: trace_pb2.Run) -> trace_pb2.Trial | None:
    """The run's baseline, evaluated; None when its evaluation was cancelled."""
    if run.state == trace_pb2.RUN_STATE_CREATED:
        trial = (await inner.list_trials(run.name) or await inner.propose(run.name))[0]
        if trial.outcome == common_pb2.OUTCOME_UNSPECIFIED:
            async for _ in inner.evaluate(trial.name):
                pass
        await inner.cancel_run(run.name, "it was only to measure how long an evaluation takes")
    trials = await inner.list_trials(run.name)
    measured = trials[0] if trials else trace_pb2.Trial(outcome=common_pb2.OUTCOME_CANCELLED)
    unknown = (common_pb2.OUTCOME_CANCELLED, common_pb2.OUTCOME_UNSPECIFIED)
    return None if measured.outcome in unknown else measured
