"""A task of your own: anything measurable, served by three RPCs. Here, where to put three wells among five villages.

    .venv/bin/python clients/examples/own_task.py --listen 127.0.0.1:7500
    .venv/bin/bilevel run --local --task own --serve-task own=127.0.0.1:7500 --trials 20

Replace SPACE and `walk`. Nothing here but the generated code of the protocol is needed (any language does);
`service_kit` contributes the server and the typed parameters.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
from bilevel.v1 import common_pb2, task_pb2, task_pb2_grpc

from service_kit.parameters import Configuration, InvalidConfiguration, Kind, Parameter, ParameterSpace
from service_kit.server import ServerSettings, run, serve
from service_kit.translate import configuration_from_proto, duration_to_proto, space_to_proto

VILLAGES = ((1.0, 1.0), (2.0, 8.0), (6.0, 4.5), (8.5, 9.0), (9.0, 1.5))
"""Where people live, in kilometres."""

SPACE = ParameterSpace(
    tuple(
        Parameter(f"WELL_{n}_{axis}", Kind.REAL, 5.0, f"{axis} of well {n}, km", minimum=0.0, maximum=10.0, step=0.5)
        for n in (1, 2, 3)
        for axis in ("X", "Y")
    )
)  # fmt: skip


def walk(configuration: Configuration) -> float:
    """Mean way from a village to its nearest well, in kilometres."""
    wells = [(float(configuration[f"WELL_{n}_X"]), float(configuration[f"WELL_{n}_Y"])) for n in (1, 2, 3)]  # type: ignore[arg-type]
    return sum(min(math.dist(village, well) for well in wells) for village in VILLAGES) / len(VILLAGES)


class Wells(task_pb2_grpc.TaskServiceServicer):
    async def Describe(self, request: task_pb2.DescribeRequest, context: Any) -> task_pb2.DescribeResponse:
        description = task_pb2.TaskDescription(
            name="wells",
            title="Three wells for five villages",
            documentation="Place three wells so that the mean way from a village to its nearest well is short.",
            space=space_to_proto(SPACE),
            objective=common_pb2.Objective(metric="walk", unit="km", direction=common_pb2.DIRECTION_MINIMIZE),
            budget=duration_to_proto(1.0),
            budget_clock="none: an evaluation is exact",
            capacity=4,
            hard_limit=duration_to_proto(30.0),
            deterministic=True,
        )
        return task_pb2.DescribeResponse(task=description)

    async def Validate(self, request: task_pb2.ValidateRequest, context: Any) -> task_pb2.ValidateResponse:
        try:
            SPACE.validate(configuration_from_proto(request.configuration))
        except InvalidConfiguration as error:
            wrong = [
                task_pb2.ConfigurationViolation(parameter=v.field, description=v.description) for v in error.violations
            ]
            return task_pb2.ValidateResponse(violations=wrong)
        return task_pb2.ValidateResponse()

    async def Evaluate(
        self, request: task_pb2.EvaluateRequest, context: Any
    ) -> AsyncIterator[task_pb2.EvaluateResponse]:
        configuration = SPACE.validate(configuration_from_proto(request.configuration))
        yield task_pb2.EvaluateResponse(progress=task_pb2.EvaluationProgress(fraction=0.5, step=1, phase="measuring"))
        result = task_pb2.EvaluationResult(outcome=common_pb2.OUTCOME_SUCCEEDED, metric=walk(configuration))
        yield task_pb2.EvaluateResponse(result=result)


def register(server: grpc.aio.Server) -> Iterable[str]:
    task_pb2_grpc.add_TaskServiceServicer_to_server(Wells(), server)
    return [task_pb2.DESCRIPTOR.services_by_name["TaskService"].full_name]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", default="127.0.0.1:7500", help="HOST:PORT; port 0 takes any free one")
    parser.add_argument("--address-file", type=Path, help="file that receives the bound address")
    options = parser.parse_args()
    run(serve(register, ServerSettings(options.listen, options.address_file), name="wells"))
