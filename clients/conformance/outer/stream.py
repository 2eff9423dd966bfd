"""The campaign's event stream. COMMON-5, OUTER-3.1."""

from __future__ import annotations

from typing import Any

from clients.conformance.expect import expect, same
from clients.conformance.outer.subject import OUTER, OuterSubject


@OUTER.check("COMMON-5.1")
async def numbered(outer: OuterSubject) -> None:
    """Events are numbered from 1 without gaps"""
    await outer.stream.is_numbered((await outer.cancelled()).name, "campaign_created")


@OUTER.check("COMMON-5.2")
async def resumes(outer: OuterSubject) -> None:
    """A watch resumes exactly, from any number"""
    await outer.stream.resumes((await outer.cancelled()).name)


@OUTER.check("COMMON-5.3")
async def no_follow(outer: OuterSubject) -> None:
    """A watch that does not follow ends"""
    await outer.stream.ends_without_following((await outer.idle()).name)


@OUTER.check("COMMON-5.4")
async def heartbeats(outer: OuterSubject) -> None:
    """An idle watch sends heartbeats"""
    await outer.stream.beats((await outer.idle()).name)


@OUTER.check("COMMON-5.5")
async def follows(outer: OuterSubject) -> None:
    """A watch that follows gets new events, once"""
    name = (await outer.on_new_run()).name

    async def happen() -> Any:
        return await outer.wire.call("PauseCampaign", name=name, reason="while somebody watches")

    await outer.stream.follows(name, happen)


@OUTER.check("COMMON-5.6")
async def ends(outer: OuterSubject) -> None:
    """A watch ends with its campaign"""
    await outer.stream.ends_with_its_resource((await outer.cancelled()).name)


@OUTER.check("COMMON-5.7")
async def wrong_numbers(outer: OuterSubject) -> None:
    """Numbers that do not exist and heartbeats out of range are refused"""
    await outer.stream.refuses_wrong_numbers((await outer.idle()).name)


@OUTER.check("COMMON-5.8")
async def head(outer: OuterSubject) -> None:
    """last_sequence and etag follow the events"""
    name = (await outer.on_new_run()).name
    before = await outer.campaign(name)
    same("last_sequence", before.last_sequence, (await outer.stream.committed(name))[-1].sequence)
    same("the etag while nothing happens", (await outer.campaign(name)).etag, before.etag)
    await outer.wire.call("PauseCampaign", name=name)
    after = await outer.campaign(name)
    expect(after.etag != before.etag, "the etag must change with the campaign")
    same("last_sequence after a change", after.last_sequence, (await outer.stream.committed(name))[-1].sequence)


@OUTER.check("OUTER-3.1")
async def moves(outer: OuterSubject) -> None:
    """Every change of state is on the stream"""
    campaign = await outer.on_new_run()
    for method in ("PauseCampaign", "ResumeCampaign", "CancelCampaign"):
        await outer.wire.call(method, name=campaign.name)
    events = await outer.stream.committed(campaign.name)
    moves = [e.campaign_state_changed for e in events if e.HasField("campaign_state_changed")]
    path = [campaign.state, *(move.to_state for move in moves)]
    same("the states on the stream", [move.from_state for move in moves], path[:-1])
    same("how many changes are on the stream", len(moves), 3)
    same("the last state on the stream", path[-1], (await outer.campaign(campaign.name)).state)
