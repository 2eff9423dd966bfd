"""A task of your own: anything measurable, served by three RPCs. Here, when and how much a shop should order.

    .venv/bin/python clients/examples/own_task.py --listen 127.0.0.1:7500
    .venv/bin/bilevel run --local --task localhost:7500 --trials 20

Replace SPACE and `cost_of`. Nothing here but the generated code of the protocol is needed (any language does);
`service_kit` contributes the server and the typed parameters.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
from bilevel.v1 import common_pb2, task_pb2, task_pb2_grpc

from service_kit.errors import InvalidArgument
from service_kit.parameters import InvalidConfiguration, Kind, Parameter, ParameterSpace, Scale, Value
from service_kit.server import ServerSettings, run, serve
from service_kit.translate import configuration_from_proto, duration_to_proto, space_to_proto

DAYS = 2000
"""Length of a simulation."""

SPACE = ParameterSpace(
    (
        Parameter("ORDER_SIZE", Kind.INTEGER, 1024, "Units in one order.", minimum=8, maximum=8192, scale=Scale.LOG2),
        Parameter("REORDER_LEVEL", Kind.INTEGER, 80, "Order when no more units are left.", minimum=0, maximum=400),
        Parameter("REVIEW_DAYS", Kind.INTEGER, 1, "Days between two looks at the shelf.", minimum=1, maximum=14),
    )
)


def cost_of(configuration: dict[str, Value], seed: int) -> float:
    """Mean cost a day of a shop that sells about 20 units a day and waits three days for an order.

    An order costs 30, a unit on the shelf 0.02 a day, a lost sale 2, a look at the shelf 0.5.
    """
    size, level, review = (int(configuration[parameter.name]) for parameter in SPACE.parameters)  # type: ignore[arg-type]
    rng, stock, cost = random.Random(seed), size, 0.0
    arriving: dict[int, int] = {}
    for day in range(DAYS):
        stock += arriving.pop(day, 0)
        wanted = round(rng.gauss(20, 6))
        cost += 2.0 * max(0, wanted - stock)
        stock = max(0, stock - max(0, wanted))
        if day % review == 0:
            cost += 0.5
            if stock <= level and not arriving:
                arriving[day + 3], cost = size, cost + 30.0
        cost += 0.02 * stock
    return cost / DAYS


class Shop(task_pb2_grpc.TaskServiceServicer):
    async def Describe(self, request: task_pb2.DescribeRequest, context: Any) -> task_pb2.DescribeResponse:
        description = task_pb2.TaskDescription(
            name="shop",
            title="When and how much a shop should order",
            documentation=(cost_of.__doc__ or "").strip(),
            space=space_to_proto(SPACE),
            objective=common_pb2.Objective(metric="cost", unit="a day", direction=common_pb2.DIRECTION_MINIMIZE),
            budget=duration_to_proto(1.0),
            budget_clock="none: every evaluation simulates the same number of days",
            capacity=4,
            hard_limit=duration_to_proto(30.0),
            has_held_out_split=True,
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
        if not 0.0 <= request.budget_fraction <= 1.0:
            raise InvalidArgument.of("budget_fraction", f"must be from 0 to 1; got {request.budget_fraction}")
        configuration = SPACE.validate(configuration_from_proto(request.configuration))
        yield task_pb2.EvaluateResponse(progress=task_pb2.EvaluationProgress(fraction=0.5, step=1, phase="simulating"))
        # Other customers than the search has seen: another stream of random numbers.
        seed = request.seed + (2**32 if request.split == common_pb2.SPLIT_HELD_OUT else 0)
        result = task_pb2.EvaluationResult(outcome=common_pb2.OUTCOME_SUCCEEDED, metric=cost_of(configuration, seed))
        yield task_pb2.EvaluateResponse(result=result)


def register(server: grpc.aio.Server) -> Iterable[str]:
    task_pb2_grpc.add_TaskServiceServicer_to_server(Shop(), server)
    return [task_pb2.DESCRIPTOR.services_by_name["TaskService"].full_name]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", default="127.0.0.1:7500", help="HOST:PORT; port 0 takes any free one")
    parser.add_argument("--address-file", type=Path, help="file that receives the bound address")
    options = parser.parse_args()
    run(serve(register, ServerSettings(options.listen, options.address_file), name="shop"))
