"""A model that is away for a while costs a campaign nothing but time."""

from collections.abc import Callable
from typing import Any

import pytest
from bilevel.v1 import outer_pb2 as pb
from bilevel.v1 import trace_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")


def of_kind(events: list[Any], kind: str) -> list[Any]:
    return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]


def is_kind(kind: str) -> Callable[[Any], bool]:
    return lambda event: event.WhichOneof("event") == kind


async def test_a_model_that_is_overloaded_for_a_while_costs_no_cycle(
    services: Any, outer_service: Callable[..., Any], model_endpoint: Any
) -> None:
    model = {"OPENAI_BASE_URL": model_endpoint.address, "BILEVEL_MODEL": "test-model"}
    model_endpoint.answers = {"analyse": [{"observation": "nothing", "strategy": "", "guidance": ""}]}
    model_endpoint.status = 503
    async with outer_service("overloaded", model, patience=60) as outer:
        run = await services.run(trials=10)
        campaign = await outer.campaign(run, levels=[pb.LEVEL_CONFIGURATION])
        await services.start(run)
        seen = await outer.events(campaign.name, is_kind("availability_changed"))
        assert seen[-1].availability_changed.patience.seconds == 60
        model_endpoint.status = 200
        events = await outer.events(campaign.name)
    assert [change.available for change in of_kind(events, "availability_changed")] == [False, True]
    assert not [cycle.error for cycle in of_kind(events, "cycle_finished") if cycle.error]
    assert (await services.get(run)).state == trace_pb2.RUN_STATE_FINISHED
