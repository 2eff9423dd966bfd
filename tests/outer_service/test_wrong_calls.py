"""A wrong call of each kind gets a status whose details name the field, and every RPC of the contract is served."""

from typing import Any

import grpc
import pytest
from bilevel.v1 import outer_pb2 as pb

from outer_service.service import OuterLoopServicer
from service_kit.status import remote_error

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH = [pb.LEVEL_CONFIGURATION, pb.LEVEL_MECHANISM]
NOWHERE = "campaigns/000000000000"


def create(run: str, request_id: str = "", **policy: Any) -> pb.CreateCampaignRequest:
    return pb.CreateCampaignRequest(run=run, policy=pb.CampaignPolicy(**policy), request_id=request_id)


async def refused(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return remote_error(error.value)


async def stream(call: Any) -> list[Any]:
    return [item async for item in call]


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        ({"configuration_every": -1}, ["policy.configuration_every"]),
        ({"levels": BOTH, "configuration_every": 4, "mechanism_every": 10}, ["policy.mechanism_every"]),
        ({"repairs": 11}, ["policy.repairs"]),
        ({"max_tokens": -5}, ["policy.max_tokens"]),
        ({"after_failures": 9}, ["policy.after_failures"]),
        ({"max_cost_usd": 1.0}, ["policy.max_cost_usd"]),
        ({"max_cost_usd": float("nan")}, ["policy.max_cost_usd"]),
        ({"levels": [7]}, ["policy.levels"]),
        ({"mode": 9}, ["policy.mode"]),
        ({"control": pb.CONTROL_RESTART}, ["policy.control"]),
        ({"library": 7, "max_cycle_time": {"nanos": 1}}, ["policy.library", "policy.max_cycle_time"]),
        ({"control": pb.CONTROL_NOOP}, ["policy.control"]),
        ({"max_failures": -1, "max_mechanisms": 65}, ["policy.max_failures", "policy.max_mechanisms"]),
        ({"levels": BOTH, "configuration_every": 7, "mechanism_every": 14}, 2 * ["policy"]),
        ({"levels": BOTH, "mode": pb.CAMPAIGN_MODE_CONCURRENT}, ["policy.mode"]),
    ],
)
async def test_a_policy_that_cannot_work_is_refused_field_by_field(
    services: Any, scripted_outer: Any, policy: dict[str, Any], fields: list[str]
) -> None:
    error = await refused(scripted_outer.stub.CreateCampaign(create(await services.run(), **policy)))
    assert error.code == "INVALID_ARGUMENT"
    assert [violation.field[: len(field)] for violation, field in zip(error.violations, fields, strict=True)] == fields


async def test_a_run_that_does_not_pause_in_time_says_how_to_create_one_that_does(
    services: Any, scripted_outer: Any
) -> None:
    run = await services.run(checkpoint=3)
    error = await refused(scripted_outer.stub.CreateCampaign(create(run, levels=BOTH)))
    assert [v.field for v in error.violations] == ["policy.configuration_every", "policy.mechanism_every"]
    assert "checkpoint_every = 3; it must divide 5" in error.message
    assert "checkpoint_every = 5" in error.hint


async def test_unknown_things_are_not_found(scripted_outer: Any) -> None:
    stub = scripted_outer.stub
    for call in (
        stub.CreateCampaign(create("runs/0000000000")),
        stub.GetCampaign(pb.GetCampaignRequest(name=NOWHERE)),
        stub.PauseCampaign(pb.PauseCampaignRequest(name=NOWHERE)),
        stub.ResumeCampaign(pb.ResumeCampaignRequest(name=NOWHERE)),
        stub.CancelCampaign(pb.CancelCampaignRequest(name=NOWHERE)),
        stub.ListResearchSessions(pb.ListResearchSessionsRequest(parent=NOWHERE)),
        stub.GetLibraryEntry(pb.GetLibraryEntryRequest(name=f"libraryEntries/{'0' * 64}")),
        stream(stub.WatchCampaign(pb.WatchCampaignRequest(campaign=NOWHERE))),
    ):
        assert (await refused(call)).code == "NOT_FOUND"


async def test_malformed_names_and_numbers_name_their_field(services: Any, scripted_outer: Any) -> None:
    stub = scripted_outer.stub
    campaign = (await scripted_outer.campaign(await services.run())).name
    for call, field in (
        (stub.CreateCampaign(create("trials/1")), "run"),
        (stub.CreateCampaign(create("runs/x", request_id="x" * 65)), "request_id"),
        (stub.GetCampaign(pb.GetCampaignRequest(name="campaigns/")), "name"),
        (stub.ListResearchSessions(pb.ListResearchSessionsRequest(parent="x")), "parent"),
        (stub.ListCampaigns(pb.ListCampaignsRequest(page_size=-1)), "page_size"),
        (stub.ListCampaigns(pb.ListCampaignsRequest(page_token="tomorrow")), "page_token"),
        (stub.ListLibraryEntries(pb.ListLibraryEntriesRequest(page_size=1001)), "page_size"),
        (stub.GetLibraryEntry(pb.GetLibraryEntryRequest(name="libraryEntries/abc")), "name"),
        (stub.PauseCampaign(pb.PauseCampaignRequest(name=campaign, reason="x" * 2001)), "reason"),
        (stream(stub.WatchCampaign(pb.WatchCampaignRequest(campaign=campaign, after_sequence=99))), "after_sequence"),
        (stream(stub.WatchCampaign(pb.WatchCampaignRequest(campaign="x"))), "campaign"),
    ):
        error = await refused(call)
        assert (error.code, [v.field for v in error.violations]) == ("INVALID_ARGUMENT", [field])


async def test_calls_that_do_not_fit_the_state_say_which_states_do(services: Any, scripted_outer: Any) -> None:
    stub = scripted_outer.stub
    run = await services.run()
    campaign = (await scripted_outer.campaign(run)).name
    error = await refused(stub.ResumeCampaign(pb.ResumeCampaignRequest(name=campaign)))
    assert (error.code, error.metadata["state"], error.metadata["allowed"]) == (
        "FAILED_PRECONDITION",
        "active",
        "paused",
    )
    assert (await refused(stub.CreateCampaign(create(run)))).code == "ALREADY_EXISTS"
    await stub.CancelCampaign(pb.CancelCampaignRequest(name=campaign))
    assert (await refused(stub.CancelCampaign(pb.CancelCampaignRequest(name=campaign)))).code == "FAILED_PRECONDITION"
    await stub.CreateCampaign(create(run))


async def test_creation_is_idempotent_by_request_id(services: Any, scripted_outer: Any) -> None:
    request = create(await services.run(), request_id=f"once-{services.folder.name}")
    first, second = [(await scripted_outer.stub.CreateCampaign(request)).campaign.name for _ in range(2)]
    assert first == second


async def test_pages_hold_every_campaign_once(services: Any, scripted_outer: Any) -> None:
    names = {(await scripted_outer.campaign(await services.run())).name for _ in range(3)}
    found: list[str] = []
    token = ""
    while True:
        page = await scripted_outer.stub.ListCampaigns(pb.ListCampaignsRequest(page_size=2, page_token=token))
        found += [campaign.name for campaign in page.campaigns]
        token = page.next_page_token
        if not token:
            break
    assert names <= set(found)
    assert len(found) == len(set(found))


async def test_every_rpc_of_the_contract_is_served() -> None:
    methods = [method.name for method in pb.DESCRIPTOR.services_by_name["OuterLoopService"].methods]
    assert not [name for name in methods if name not in vars(OuterLoopServicer)]
