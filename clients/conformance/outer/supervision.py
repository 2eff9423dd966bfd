"""A campaign over a whole run, with both levels. OUTER-2.3 on, OUTER-3, OUTER-4."""

from __future__ import annotations

from typing import Any

from bilevel.v1 import outer_pb2, trace_pb2

from clients.conformance.expect import expect, invalid, refused, same
from clients.conformance.inner.runs import NO_RUN
from clients.conformance.outer.subject import OUTER, OuterSubject
from clients.conformance.suite import NotSeen


@OUTER.check("OUTER-2.4")
async def goes_on(outer: OuterSubject) -> None:
    """The run goes on from every checkpoint to its end"""
    run = (await outer.supervised()).run
    same("the state of the run", trace_pb2.RunState.Name(run.state), "RUN_STATE_FINISHED")
    same("its decided trials", run.decided_trials, 2)


@OUTER.check("OUTER-2.4")
async def goes_on_while_paused(outer: OuterSubject) -> None:
    """The run goes on from its checkpoints while the campaign is paused"""
    run = await outer.inner.create(max_trials=1, checkpoint_every=1)
    campaign = await outer.create(run.name, levels=[outer_pb2.LEVEL_CONFIGURATION], configuration_every=1)
    await outer.wire.call("PauseCampaign", name=campaign.name)
    await outer.inner.wire.call("StartRun", name=run.name)
    ended = await outer.inner.until(run.name)
    same("the state of the run", trace_pb2.RunState.Name(ended.state), "RUN_STATE_FINISHED")


@OUTER.check("OUTER-2.3")
async def finishes(outer: OuterSubject) -> None:
    """A campaign is FINISHED when its run has ended"""
    campaign = (await outer.supervised()).campaign
    same("the state of the campaign", outer_pb2.CampaignState.Name(campaign.state), "CAMPAIGN_STATE_FINISHED")
    expect(campaign.state_reason, "a finished campaign must have a state_reason")


@OUTER.check("OUTER-3.2")
async def cycles(outer: OuterSubject) -> None:
    """Cycles are counted and each one is finished"""
    seen = await outer.supervised()
    steps = [
        (kind, getattr(event, kind).cycle)
        for event in seen.events
        if (kind := str(event.WhichOneof("event"))) in ("cycle_started", "cycle_finished")
    ]
    count = len(steps) // 2
    wanted = [(kind, cycle) for cycle in range(1, count + 1) for kind in ("cycle_started", "cycle_finished")]
    same("the cycles on the stream", steps, wanted)
    expect(count >= 1, "a campaign over two checkpoints must have had a cycle")
    same("the cycles of the campaign", seen.campaign.cycles, count)


@OUTER.check("OUTER-3.3")
async def analyses(outer: OuterSubject) -> None:
    """Level 1.5 leaves its analysis, with the call to the model"""
    seen = await outer.supervised()
    found = _of(seen.events, "analysis_finished")
    same("the analyses in as many cycles", len(found), len(_of(seen.events, "cycle_started")))
    for analysis in found:
        expect(analysis.turn.prompt, "an analysis must hold the prompt of its turn")
        expect(
            analysis.turn.answer or analysis.turn.error, "an analysis must hold the answer of its turn, or its error"
        )


@OUTER.check("OUTER-3.4")
async def research(outer: OuterSubject) -> None:
    """Every research session ends with an outcome"""
    events = (await outer.supervised()).events
    started, finished = _of(events, "research_started"), _of(events, "research_finished")
    expect(started, "level 2 must leave research_started")
    same("the sessions that finished", [end.session for end in finished], [begin.session for begin in started])
    for end in finished:
        known = end.outcome in outer_pb2.ResearchOutcome.values() and end.outcome
        expect(known, f"a finished session must have a known outcome; it is {end.outcome}")
        expect(end.mechanism or end.message, "a session without a mechanism must say why")


@OUTER.check("OUTER-4.1")
async def sessions(outer: OuterSubject) -> None:
    """ListResearchSessions gives the sessions of the stream"""
    seen = await outer.supervised()
    listed = (await outer.wire.call("ListResearchSessions", parent=seen.campaign.name)).sessions
    finished = _of(seen.events, "research_finished")
    wanted = [(end.session, end.outcome) for end in finished]
    same("the sessions and their outcomes", [(session.name, session.outcome) for session in listed], wanted)


@OUTER.check("OUTER-4.2")
async def installed(outer: OuterSubject) -> None:
    """What a session says was installed is in the run"""
    seen = await outer.supervised()
    said = {end.mechanism for end in _of(seen.events, "research_finished") if end.mechanism}
    if not said:
        raise NotSeen("no session installed a mechanism")
    listed = (await outer.inner.wire.call("ListMechanisms", parent=seen.run.name)).mechanisms
    missing = said - {mechanism.name.rsplit("/", 1)[-1] for mechanism in listed}
    expect(not missing, f"{', '.join(sorted(missing))} must be among the run's mechanisms")


@OUTER.check("OUTER-4.3")
async def degrades(outer: OuterSubject) -> None:
    """Without Python in the inner service, level 2 says so and costs nothing"""
    seen = await outer.supervised()
    if seen.python:
        raise NotSeen("the inner service runs Python")
    outcomes = [outer_pb2.ResearchOutcome.Name(end.outcome) for end in _of(seen.events, "research_finished")]
    same("the outcomes of level 2", outcomes, ["RESEARCH_OUTCOME_NOT_SUPPORTED"] * len(outcomes))
    expect(outcomes, "level 2 must leave a session that says NOT_SUPPORTED")
    same("the rounds that a model was asked", len(_of(seen.events, "round_finished")), 0)


@OUTER.check("OUTER-4.4")
async def previews(outer: OuterSubject) -> None:
    """PreviewPrompt gives every round's prompt and changes nothing"""
    campaign = await outer.idle()
    before = await outer.inner.run(campaign.run)
    for round_ in (outer_pb2.RESEARCH_ROUND_UNSPECIFIED, *outer_pb2.ResearchRound.values()[1:]):
        shown = await outer.wire.call("PreviewPrompt", run=campaign.run, round=round_)
        name = outer_pb2.ResearchRound.Name(round_)
        expect(shown.messages and all(message.content for message in shown.messages), f"{name} must have messages")
        expect(shown.estimated_tokens > 0, f"{name} must say how large its prompt is")
    same("the run after previews", (await outer.inner.run(campaign.run)).etag, before.etag)
    same("the campaign after previews", (await outer.campaign(campaign.name)).usage.calls, 0)
    call = outer.wire.call("PreviewPrompt", run=campaign.run, context_tokens=-1)
    await invalid(call, "PreviewPrompt with context_tokens -1", "context_tokens")
    await refused(outer.wire.call("PreviewPrompt", run=NO_RUN), "PreviewPrompt of no run", "NOT_FOUND")


def _of(events: Any, kind: str) -> list[Any]:
    """The bodies of all events of one kind."""
    return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]
