"""A database that is full or read-only stops a campaign for all to see, loses nothing, and it goes on by itself."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from bilevel.v1 import outer_pb2 as pb
from bilevel.v1 import outer_pb2_grpc, trace_pb2
from structlog.testing import capture_logs

from clients.doctor import Severity
from clients.doctor import services as doctor
from mechanisms.sandbox.limits import SandboxPolicy
from outer_service import events
from outer_service.campaign import Level, Policy
from outer_service.inner_client import InnerClient
from outer_service.service import NAME, OuterLoopServicer
from outer_service.store import Store
from outer_service.supervisor import Supervisor
from service_kit.llm.client import LanguageModel
from service_kit.probe import probe
from service_kit.security.channels import ChannelSecurity
from service_kit.server import ServerSettings, serving
from service_kit.settings import ModelSettings
from service_kit.status import remote_error
from service_kit.waits import WAITS
from tests.outer_service.conftest import Outer
from tests.storage import WAYS, Switch, bilevel

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Here(Outer):
    """An outer service in this process."""

    store: Store
    supervisor: Supervisor
    switch: Switch

    async def waiting(self, name: str, cause: str) -> pb.Campaign:
        """The campaign, once it waits."""
        async with asyncio.timeout(30):
            while WAITS not in (found := await self.get(name)).state_reason:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert cause in found.state_reason
        assert found.state == pb.CAMPAIGN_STATE_ACTIVE
        return found

    async def get(self, name: str) -> pb.Campaign:
        return (await self.stub.GetCampaign(pb.GetCampaignRequest(name=name))).campaign  # type: ignore[no-any-return]

    async def goes_on(self, name: str, cause: str) -> list[Any]:
        """The events of a campaign that waited, once it has ended."""
        found = await asyncio.wait_for(self.events(name), 60)
        assert [event.sequence for event in found] == list(range(1, len(found) + 1))
        told = [e.availability_changed for e in found if e.WhichOneof("event") == "availability_changed"]
        assert [change.available for change in told] == [False, True] * (len(told) // 2)
        assert told
        assert all(change.dependency == "the database" for change in told)
        assert all(cause in change.reason for change in told[::2])
        assert all(change.away.ToTimedelta().total_seconds() > 0 for change in told[1::2])
        finished = await self.get(name)
        assert finished.state == pb.CAMPAIGN_STATE_FINISHED
        assert WAITS not in finished.state_reason
        assert await self.store.verify() == []
        return found


@pytest_asyncio.fixture(loop_scope="module")
async def here(services: Any, tmp_path: Path) -> AsyncIterator[Here]:
    settings = ModelSettings.load(base_url=f"http://{services.researcher}/v1", model="scripted-researcher", retries=0)
    model, sandbox, draining = LanguageModel(settings), SandboxPolicy(), asyncio.Event()
    store = await Store.open(f"sqlite:///{tmp_path / 'outer.db'}")
    with closing(sqlite3.connect(tmp_path / "outer.db")) as file:
        file.execute("VACUUM")  # no page is free, so that one which may not grow is full
    switch = Switch(store)
    inner = InnerClient(services.inner_address, ChannelSecurity.load())
    supervisor = Supervisor(store, inner, model, 0, sandbox)

    def register(server: grpc.aio.Server) -> list[str]:
        servicer = OuterLoopServicer(
            store, inner, supervisor, draining, priced=False, context_tokens=0, sandbox=sandbox
        )
        outer_pb2_grpc.add_OuterLoopServiceServicer_to_server(servicer, server)
        return [NAME]

    async def stop() -> None:
        for close in (supervisor.close, inner.close, model.close, store.close):
            await close()

    async with (
        serving(
            register, ServerSettings(grace=1), name="outer", draining=draining, on_stop=stop, waits=store.waits
        ) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Here(outer_pb2_grpc.OuterLoopServiceStub(channel), None, address, store, supervisor, switch)  # type: ignore[arg-type]


@WAYS
async def test_a_campaign_says_that_it_waits_and_afterwards_why_and_how_long(
    services: Any, here: Here, broken: str, mended: str, cause: str, hint: str
) -> None:
    run = await services.run(trials=10)
    campaign = await here.campaign(run, levels=[pb.LEVEL_CONFIGURATION])
    here.switch.to(broken)
    await services.start(run)
    await here.waiting(campaign.name, cause)
    here.switch.to(mended)
    found = await here.goes_on(campaign.name, cause)
    cycles = [event.cycle_finished for event in found if event.WhichOneof("event") == "cycle_finished"]
    assert [cycle.cycle for cycle in cycles if not cycle.error] == [1]
    assert (await services.get(run)).state == trace_pb2.RUN_STATE_FINISHED


async def test_what_waits_is_in_the_list_and_in_the_doctors_findings(services: Any, here: Here) -> None:
    run = await services.run(trials=10)
    campaign = await here.campaign(run, levels=[pb.LEVEL_CONFIGURATION])
    _, there = await doctor.running(inner="127.0.0.1:1", outer=here.address)
    assert there.severity is Severity.GOOD
    here.switch.to("PRAGMA query_only=ON")
    await services.start(run)
    waiting = await here.waiting(campaign.name, "readonly database")
    (listed,) = (await here.stub.ListCampaigns(pb.ListCampaignsRequest())).campaigns
    assert listed.state_reason == waiting.state_reason
    assert f"{campaign.name} {waiting.state_reason}" in await bilevel("campaign", "list", "--outer", here.address)
    _, there = await doctor.running(inner="127.0.0.1:1", outer=here.address)
    assert there.severity is Severity.BAD
    assert "waits for its database" in there.text
    assert "`bilevel campaign list`" in there.advice
    assert await probe(here.address), "a new container would wait as well"
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await here.stub.CancelCampaign(pb.CancelCampaignRequest(name=campaign.name))
    assert remote_error(refusal.value).reason == "STORAGE_FAILED"
    await here.waiting(campaign.name, "readonly database")
    here.switch.to("PRAGMA query_only=OFF")
    await here.goes_on(campaign.name, "readonly database")
    _, there = await doctor.running(inner="127.0.0.1:1", outer=here.address)
    assert there.severity is Severity.GOOD


async def test_a_campaign_whose_lease_cannot_be_taken_is_supervised_later(services: Any, here: Here) -> None:
    run = await services.run(trials=5)
    created = events.CampaignCreated(run, "valley", Policy(levels=(Level.CONFIGURATION,)))
    campaign, _ = await here.store.create("later", created)
    here.switch.to("PRAGMA query_only=ON")
    here.supervisor.adopt(campaign)
    await here.waiting(campaign.name, "readonly database")
    await services.start(run)
    here.switch.to("PRAGMA query_only=OFF")
    await here.goes_on(campaign.name, "readonly database")


async def test_whatever_else_keeps_a_lease_from_being_taken_is_loud_and_tried_again(
    services: Any, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: str) -> bool:
        raise ZeroDivisionError("a mistake of ours")

    run = await services.run(trials=5)
    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(here.store.leases, "keep", broken)
        campaign = await here.campaign(run, levels=[pb.LEVEL_CONFIGURATION])
        await here.waiting(campaign.name, "internal error (ZeroDivisionError)")
    assert [line for line in logs if isinstance(line.get("exc_info"), ZeroDivisionError)]
    await services.start(run)
    await here.goes_on(campaign.name, "internal error (ZeroDivisionError)")
