"""``bilevel campaign show`` and ``bilevel prompts show`` against running services, as a user calls them."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from typing import Any

import pytest
from bilevel.v1 import common_pb2
from bilevel.v1 import outer_pb2 as pb

from clients.campaign_story import _TELL, cost, document, story
from tests.clients.cli.shape_check import check
from tests.outer_service.conftest import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def bilevel(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-c", "from clients.cli import main; main()", *arguments]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    assert process.returncode == code, (out + err).decode()
    return (out if code == 0 else err).decode()


async def test_a_campaign_is_told_and_its_prompts_are_shown(services: Any, scripted_outer: Any) -> None:
    run = await services.run(trials=12, checkpoint=5)
    campaign = await scripted_outer.campaign(run, levels=[pb.LEVEL_CONFIGURATION, pb.LEVEL_MECHANISM])
    await services.start(run)
    await scripted_outer.events(campaign.name)
    at = ("--outer", scripted_outer.address)
    told = await bilevel("campaign", "show", campaign.name, *at)
    for part in (
        f"{campaign.name} supervises {run}: finished",
        "The scripted researcher answered: nothing here is evidence for the method.",
        "Cycle 2, after 10 trials (level 1.5 and 2)",
        "1.5 under revision 0 so far: 5 trials, ",
        "the library offers ",
        "1.5 saw: ",
        "2 explore: ",
        "considered ",
        "2 critique: chose ",
        "2 gate, attempt 1: ",
        "no price applies (scripted)",
    ):
        assert part in told
    by_run = json.loads(await bilevel("campaign", "show", run, "--json", *at))
    check("campaign show", by_run)
    assert by_run["campaign"]["name"] == campaign.name
    assert await bilevel("campaign", "show", run.removeprefix("runs/"), *at) == told
    assert json.loads(await bilevel("campaign", "list", "--json", *at))[0]["name"] == campaign.name
    listed = await bilevel("campaign", "list", *at)
    assert all(part in listed for part in ("cycles", campaign.name, "finished", "(scripted)"))
    at_inner = ("--inner", services.inner_address)
    alone = await services.run(trials=1, checkpoint=5)
    said = await bilevel("campaign", "show", alone.removeprefix("runs/"), *at, *at_inner, code=5)
    assert f"campaign of '{alone}' does not exist" in said
    said = await bilevel("campaign", "show", "nosuch", *at, *at_inner, code=5)
    assert "campaign 'nosuch' does not exist" in said
    assert "`bilevel campaign list` lists those that exist" in said
    assert "round_finished" in {key for event in by_run["events"] for key in event}
    shown = await bilevel("prompts", "show", "--round", "explore", "--run", run, "--inner", services.inner_address, *at)
    assert "===== system =====" in shown
    assert "Round 1 of 4, explore." in shown
    assert "def drive" in shown or "Left out" in shown
    small = ("--context", "9000", "--inner", services.inner_address, *at)
    short = await bilevel("prompts", "show", "--round", "explore", "--run", run, *small)
    assert "files of the loop's source" in short
    assert len(short) < len(shown)
    proposer = await bilevel(
        "prompts", "show", "--round", "propose", "--run", run, "--json", "--inner", services.inner_address
    )
    assert [message["role"] for message in json.loads(proposer)["messages"]] == ["system", "user"]
    lessons = await bilevel("prompts", "show", "--round", "lessons", "--run", run, *at_inner)
    assert "Write at most 5 lessons" in lessons
    assert "increase" in lessons
    refused = await bilevel("prompts", "show", "--round", "lessons", "--context", "9", *at_inner, code=2)
    assert "--context: has no effect with --round lessons" in refused
    missing = await bilevel("campaign", "show", "runs/none", *at, *at_inner, code=5)
    assert "campaign 'runs/none'" in missing


async def test_a_name_that_several_runs_bear_is_refused_with_the_campaigns(services: Any, scripted_outer: Any) -> None:
    runs = [await services.run(trials=1, checkpoint=5, display_name="twice") for _ in range(2)]
    campaigns = [await scripted_outer.campaign(run, levels=[pb.LEVEL_CONFIGURATION]) for run in runs]
    at = ("--outer", scripted_outer.address, "--inner", services.inner_address)
    said = await bilevel("campaign", "show", "twice", *at, code=2)
    assert "CAMPAIGN: must be one campaign; several fit 'twice': " in said
    for run, campaign in zip(runs, campaigns, strict=True):
        assert f"{campaign.name.removeprefix('campaigns/')} ({run})" in said
    assert "RUN: must be one run; several are named 'twice'" in await bilevel("report", "twice", *at, code=2)
    assert f"supervises {runs[0]}" in await bilevel("campaign", "show", runs[0], *at)


async def test_an_example_needs_no_service() -> None:
    assert "Round 4 of 4, generate." in await bilevel("prompts", "show", "--example", "--round", "generate")
    assert "Propose exactly 1 candidate" in await bilevel("prompts", "show", "--example", "--round", "propose")
    assert "Lessons that are known already." in await bilevel("prompts", "show", "--example", "--round", "lessons")


async def test_what_a_client_does_not_know_is_shown_and_not_lost() -> None:
    unknown = pb.CampaignEvent(campaign="campaigns/c", sequence=7)
    changed = pb.CampaignEvent(campaign="campaigns/c", sequence=8)
    changed.procedure_changed.SetInParent()
    head = pb.Campaign(name="campaigns/c", run="runs/r", state=pb.CAMPAIGN_STATE_ACTIVE)
    told = "\n".join(story(head, [unknown, changed]))
    assert "event 7 is of a kind that this client does not know" in told
    assert "procedure changed" in told
    assert len(document(head, [unknown, changed])["events"]) == 2


async def test_every_kind_of_event_has_words_of_its_own() -> None:
    kinds = {field.name for field in pb.CampaignEvent.DESCRIPTOR.oneofs_by_name["event"].fields}
    assert set(_TELL) == kinds


async def test_what_was_away_is_told_with_how_long() -> None:
    lost, back = pb.CampaignEvent(sequence=1), pb.CampaignEvent(sequence=2)
    lost.availability_changed.CopyFrom(common_pb2.AvailabilityChanged(dependency="the model", reason="refused"))
    back.availability_changed.CopyFrom(common_pb2.AvailabilityChanged(dependency="the model", available=True))
    back.availability_changed.away.FromSeconds(7)
    told = list(story(pb.Campaign(name="campaigns/c", run="runs/r", state=pb.CAMPAIGN_STATE_ACTIVE), [lost, back]))
    assert told[1:3] == ["  waits for the model: refused", "  the model answers again after 7.0 s"]


async def test_what_level_two_did_beside_research_has_words() -> None:
    events = [pb.CampaignEvent(sequence=number) for number in range(1, 5)]
    events[0].library_entry_chosen.offer.CopyFrom(pb.LibraryOffer(choice="standard:tabu", record="Never tried here."))
    events[0].library_entry_chosen.reason = "it fits"
    events[1].history_cleared.visible_from_trial = 11
    events[2].procedure_judged.CopyFrom(pb.ProcedureJudged(attempt=1, reason="nothing to change"))
    events[3].procedure_changed.CopyFrom(
        pb.ProcedureChanged(procedure="a" * 64, state=pb.PROCEDURE_STATE_RETIRED, reason="it failed")
    )
    told = list(story(pb.Campaign(name="campaigns/c", run="runs/r", state=pb.CAMPAIGN_STATE_ACTIVE), events))
    assert told[1:6] == [
        "  2 tries standard:tabu of the library again: Never tried here.",
        "      because it fits",
        "  2 restart control: the proposer's history begins with trial 11",
        "  research procedure, attempt 1: no change. nothing to change [0 calls, 0 tokens, 0.0 s]",
        "  research procedure changed, aaaaaaaaaaaa is now retired: it failed",
    ]


async def test_an_unknown_price_is_said_to_be_unknown() -> None:
    usage = common_pb2.TokenUsage(calls=2, prompt_tokens=10, completion_tokens=5, reasoning_tokens=3)
    assert cost(usage, scripted=False) == (
        "2 calls, 15 tokens (10 read, 5 written), 3 of them reasoning, price unknown"
    )
    usage.cost_usd = 0.25
    assert cost(usage, scripted=False).endswith("0.2500 US dollars")
    assert cost(usage, scripted=True).endswith("no price applies (scripted)")
