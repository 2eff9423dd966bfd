"""Campaigns: creation, reading, listing, and what their state allows. OUTER-1, OUTER-2, COMMON-1 to COMMON-4."""

from __future__ import annotations

import uuid
from typing import Any

from bilevel.v1 import outer_pb2

from clients.conformance import common
from clients.conformance.expect import expect, invalid, refused, same, wrong_state
from clients.conformance.outer.subject import OUTER, OuterSubject

State = outer_pb2.CampaignState
NO_CAMPAIGN = "campaigns/conformance-none"
_BY_NAME = ("GetCampaign", "PauseCampaign", "ResumeCampaign", "CancelCampaign")


@OUTER.check("COMMON-1.1")
async def health(outer: OuterSubject) -> None:
    """Health checks are answered"""
    await common.health(outer.wire)


@OUTER.check("COMMON-1.2", advice=True)
async def reflection(outer: OuterSubject) -> None:
    """Server reflection lists the service"""
    await common.reflection(outer.wire)


@OUTER.check("OUTER-1.1")
async def creation(outer: OuterSubject) -> None:
    """CreateCampaign gives an ACTIVE campaign with a complete policy"""
    campaign = await outer.idle()
    expect(
        campaign.name.startswith("campaigns/"), f"name must have the form campaigns/CAMPAIGN; it is {campaign.name!r}"
    )
    same("the state of a new campaign", State.Name(campaign.state), "CAMPAIGN_STATE_ACTIVE")
    expect(campaign.run.startswith("runs/"), f"run must name the run; it is {campaign.run!r}")
    missing = [field for field in ("etag", "create_time", "update_time") if not getattr(campaign, field)]
    expect(not missing, f"a new campaign must have {', '.join(missing)}")
    policy = campaign.policy
    for field in (
        "configuration_every",
        "mechanism_every",
        "mode",
        "probation_trials",
        "max_failures",
        "max_mechanisms",
    ):
        expect(getattr(policy, field), f"the default of policy.{field} must be filled in")
    expect(policy.HasField("repairs"), "the default of policy.repairs must be filled in")
    same("the policy that GetCampaign gives", (await outer.campaign(campaign.name)).policy, policy)


@OUTER.check("OUTER-1.2")
async def runs(outer: OuterSubject) -> None:
    """A campaign needs a run that has not ended"""
    await refused(outer.create("runs/conformance-none"), "CreateCampaign over no run", "NOT_FOUND")
    ended = (await outer.inner.cancelled()).name
    await wrong_state(outer.create(ended), "CreateCampaign over a CANCELLED run")


@OUTER.check("OUTER-1.3")
async def policies(outer: OuterSubject) -> None:
    """A policy that cannot be kept is refused by field"""
    run = (await outer.inner.create()).name
    both = [outer_pb2.LEVEL_CONFIGURATION, outer_pb2.LEVEL_MECHANISM]
    concurrent = {"mode": outer_pb2.CAMPAIGN_MODE_CONCURRENT}
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("policy.configuration_every", {"configuration_every": -1}),
        ("policy.repairs", {"repairs": -1}),
        ("policy.max_tokens", {"max_tokens": -1}),
        ("policy.max_cost_usd", {"max_cost_usd": -1.0}),
        ("policy.levels", {"levels": [outer_pb2.LEVEL_UNSPECIFIED]}),
        ("policy.mechanism_every", {"levels": both, "configuration_every": 4, "mechanism_every": 10, **concurrent}),
        ("policy.control", {"control": outer_pb2.CONTROL_NOOP, **concurrent}),
        ("policy.configuration_every", {"levels": both[:1], "configuration_every": 5}),
    ]
    for field, policy in wrong:
        asked = outer_pb2.CampaignPolicy(**policy)
        await invalid(outer.create(run, **policy), f"CreateCampaign with {{{' '.join(str(asked).split())}}}", field)


@OUTER.check("OUTER-1.4")
async def names(outer: OuterSubject) -> None:
    """Unknown names and names of another form are refused"""
    for method in _BY_NAME:
        await refused(outer.wire.call(method, name=NO_CAMPAIGN), f"{method} of no campaign", "NOT_FOUND")
        await invalid(outer.wire.call(method, name="no/such:form"), f"{method} with a name of another form", "name")
    for name, code in ((NO_CAMPAIGN, "NOT_FOUND"), ("no/such:form", "INVALID_ARGUMENT")):
        watch = outer.wire.messages("WatchCampaign", campaign=name, timeout=10.0)
        await refused(watch, f"WatchCampaign of {name}", code)
        await refused(outer.wire.call("ListResearchSessions", parent=name), f"ListResearchSessions of {name}", code)


@OUTER.check("COMMON-1.3")
async def later_fields(outer: OuterSubject) -> None:
    """Fields of later versions are ignored"""
    request = outer_pb2.ListResearchSessionsRequest(parent=(await outer.idle()).name)
    await common.unknown_fields(outer.wire, "ListResearchSessions", request)


@OUTER.check("COMMON-2.1")
async def reasons(outer: OuterSubject) -> None:
    """Refusals carry ErrorInfo with a known reason"""
    call = outer.wire.call("GetCampaign", name=NO_CAMPAIGN)
    common.has_info(await refused(call, "GetCampaign of no campaign", "NOT_FOUND"))


@OUTER.check("COMMON-2.2")
async def fields(outer: OuterSubject) -> None:
    """Refusals of wrong values carry BadRequest"""
    await invalid(
        outer.wire.call("GetCampaign", name="no/such:form"), "GetCampaign with a name of another form", "name"
    )


@OUTER.check("COMMON-2.3")
async def resources(outer: OuterSubject) -> None:
    """NOT_FOUND carries ResourceInfo"""
    call = outer.wire.call("GetCampaign", name=NO_CAMPAIGN)
    common.names_resource(await refused(call, "GetCampaign of no campaign", "NOT_FOUND"), NO_CAMPAIGN)


@OUTER.check("COMMON-2.4")
async def states_are_named(outer: OuterSubject) -> None:
    """WRONG_STATE says which state it is and which ones would do"""
    call = outer.wire.call("ResumeCampaign", name=(await outer.idle()).name)
    common.says_state(await wrong_state(call, "ResumeCampaign of an ACTIVE campaign"))


@OUTER.check("COMMON-3.1")
async def pages(outer: OuterSubject) -> None:
    """ListCampaigns gives every campaign once, newest first, in pages"""
    created = [(await outer.on_new_run()).name for _ in range(3)]
    listed = [campaign.name for campaign in await common.pages(outer.wire, "ListCampaigns", "campaigns", 2)]
    same("the order of ListCampaigns", [name for name in listed if name in created], created[::-1])


@OUTER.check("COMMON-3.2")
async def wrong_pages(outer: OuterSubject) -> None:
    """Page sizes and page tokens that cannot be are refused"""
    await common.bad_pages(outer.wire, "ListCampaigns")
    await common.bad_pages(outer.wire, "ListLibraryEntries")


@OUTER.check("COMMON-4.1")
async def once(outer: OuterSubject) -> None:
    """A repeated request_id creates nothing"""
    run, id_ = (await outer.inner.create()).name, uuid.uuid4().hex
    first, again = [await outer.create(run, request_id=id_) for _ in range(2)]
    same("the campaign of a repeated request_id", again.name, first.name)


@OUTER.check("COMMON-4.2")
async def long_request_id(outer: OuterSubject) -> None:
    """A request_id of more than 64 characters is refused"""
    run = (await outer.inner.create()).name
    await invalid(
        outer.create(run, request_id="x" * 65), "CreateCampaign with a request_id of 65 characters", "request_id"
    )


@OUTER.check("OUTER-2.1")
async def pausing(outer: OuterSubject) -> None:
    """A campaign is paused and resumed, and nothing else is"""
    name = (await outer.on_new_run()).name
    await wrong_state(outer.wire.call("ResumeCampaign", name=name), "ResumeCampaign of an ACTIVE campaign")
    paused = (await outer.wire.call("PauseCampaign", name=name, reason="for a while")).campaign
    same("the state after PauseCampaign", State.Name(paused.state), "CAMPAIGN_STATE_PAUSED")
    expect("for a while" in paused.state_reason, f"state_reason must hold the reason; it is {paused.state_reason!r}")
    await wrong_state(outer.wire.call("PauseCampaign", name=name), "PauseCampaign of a PAUSED campaign")
    resumed = (await outer.wire.call("ResumeCampaign", name=name)).campaign
    same("the state after ResumeCampaign", State.Name(resumed.state), "CAMPAIGN_STATE_ACTIVE")


@OUTER.check("OUTER-2.2")
async def cancelling(outer: OuterSubject) -> None:
    """A cancelled campaign has ended, and its run has not"""
    campaign = await outer.cancelled()
    same("the state after CancelCampaign", State.Name(campaign.state), "CAMPAIGN_STATE_CANCELLED")
    expect(
        "a cancelled one" in campaign.state_reason,
        f"state_reason must hold the reason; it is {campaign.state_reason!r}",
    )
    for method in ("CancelCampaign", "PauseCampaign", "ResumeCampaign"):
        await wrong_state(outer.wire.call(method, name=campaign.name), f"{method} of a CANCELLED campaign")
    before = (await outer.inner.idle()).state
    same("the state of the run", (await outer.inner.run(campaign.run)).state, before)
