"""Outer services on PostgreSQL: two share the campaigns, one at a time leads each, and an outage ends none."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import psycopg
import pytest
from bilevel.v1 import outer_pb2 as pb
from bilevel.v1 import trace_pb2

from outer_service.store import Store

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]
LEASE = 2.0


@pytest.fixture
def url(postgres: Any) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
def model(model_endpoint: Any) -> dict[str, str]:
    """A model that is asked for research, holds its critique back, and then chooses nothing."""
    candidate = {"name": "bold", "idea": "be bold"}
    model_endpoint.asked.clear()
    model_endpoint.answers = {
        "explore": [{"bottleneck": "b", "candidates": [candidate]}],
        "critique": [{"choice": "none", "reason": "no"}],
    }
    model_endpoint.hold["critique"] = asyncio.Event()
    return {"OPENAI_BASE_URL": model_endpoint.address, "BILEVEL_MODEL": "test-model"}


def leases(url: str) -> dict[str, tuple[str, float]]:
    """Owner and end of every lease."""
    with psycopg.connect(url) as connection:
        return {
            name: (owner, until) for name, owner, until in connection.execute("SELECT name, owner, until FROM leases")
        }


async def until_asked(endpoint: Any, purpose: str, times: int) -> None:
    async with asyncio.timeout(60):
        while [asked for asked, _ in endpoint.asked].count(purpose) < times:  # noqa: ASYNC110 (the endpoint sets no event)
            await asyncio.sleep(0.05)


async def finished_once(outer: Any, services: Any, campaign: str, run: str) -> list[Any]:
    """The campaign's whole history, once it and its run have ended, with nothing lost and nothing twice."""
    async with asyncio.timeout(120):
        events = await outer.events(campaign)
        ended = await services.ended(run)
    assert ended.state == trace_pb2.RUN_STATE_FINISHED
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].campaign_state_changed.to_state == pb.CAMPAIGN_STATE_FINISHED
    rounds = [(e.round_finished.session, e.round_finished.turn.round) for e in events if e.HasField("round_finished")]
    assert len(rounds) == len(set(rounds)), "every round is there once"
    started = [e.cycle_started.cycle for e in events if e.HasField("cycle_started")]
    assert started == sorted(set(started)), "every cycle began once"
    return events


async def sound(url: str) -> None:
    store = await Store.open_for_audit(url)
    assert await store.verify() == []
    await store.close()


async def test_the_campaign_of_a_killed_service_is_taken_over_and_never_led_by_two(
    services: Any, outer_service: Callable[..., Any], model_endpoint: Any, model: dict[str, str], url: str
) -> None:
    run = await services.run(trials=20)
    shared = {"database": url, "BILEVEL_LEASE_SECONDS": str(LEASE)}
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(outer_service(name, model, **shared)) for name in ("one", "two")]
        campaign = await one.campaign(run, levels=[pb.LEVEL_MECHANISM])
        await services.start(run)
        await until_asked(model_endpoint, "critique", 1)
        owner, first = leases(url)[campaign.name]
        async with asyncio.timeout(60):  # until the lease would have been over twice, had it not been renewed
            while leases(url)[campaign.name][1] < first + 2 * LEASE:  # noqa: ASYNC110 (the database sets no event)
                await asyncio.sleep(0.1)
        assert leases(url)[campaign.name][0] == owner
        assert len(model_endpoint.asked) == len({purpose for purpose, _ in model_endpoint.asked}), "one leads it"

        await one.group.kill()
        _, ends = leases(url)[campaign.name]
        await until_asked(model_endpoint, "critique", 2)
        heir, renewed = leases(url)[campaign.name]
        assert heir != owner
        assert renewed - LEASE >= ends, "nobody takes a lease before it has run out"
        model_endpoint.hold.pop("critique").set()
        events = await finished_once(two, services, campaign.name, run)
    asked = [purpose for purpose, _ in model_endpoint.asked]
    assert asked.count("explore") == 1, "what was stored is not asked again"
    assert [e.research_finished.outcome for e in events if e.HasField("research_finished")] == [
        pb.RESEARCH_OUTCOME_NONE_CHOSEN
    ]
    await sound(url)


async def test_a_campaign_lives_through_an_outage_of_its_database(
    services: Any,
    outer_service: Callable[..., Any],
    model_endpoint: Any,
    model: dict[str, str],
    postgres: Any,
    url: str,
) -> None:
    run = await services.run(trials=20)
    async with outer_service("outage", model, database=url) as outer:
        campaign = await outer.campaign(run, levels=[pb.LEVEL_MECHANISM])
        await services.start(run)
        await until_asked(model_endpoint, "critique", 1)
        await asyncio.to_thread(postgres.halt)
        with pytest.raises(grpc.aio.AioRpcError, match="the database cannot be"):
            await outer.stub.GetCampaign(pb.GetCampaignRequest(name=campaign.name))
        model_endpoint.hold.pop("critique").set()  # the answer comes while nothing can be stored
        with pytest.raises(grpc.aio.AioRpcError, match="the database cannot be"):
            await outer.stub.GetCampaign(pb.GetCampaignRequest(name=campaign.name))
        postgres.start()  # by this thread: the kernel ends the server with the thread that started it
        await finished_once(outer, services, campaign.name, run)
    asked = [purpose for purpose, _ in model_endpoint.asked]
    assert asked.count("explore") == 1, "what was stored is not asked again"
    await sound(url)
