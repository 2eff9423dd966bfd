"""State is what the log says: a campaign as the fold of its events.

:func:`apply` is a pure function of the campaign so far and the next event. It is also the state machine: an event that
cannot happen raises :class:`IllegalEvent`, so that no transaction can commit it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import singledispatch

from outer_service import events
from outer_service.campaign import (
    Campaign,
    CampaignState,
    CompletedRound,
    Installed,
    Judgement,
    Level,
    OpenCycle,
    OpenSession,
    ResearchOutcome,
    Turn,
    Verdict,
)
from service_kit.patience import AvailabilityChanged

TRANSITIONS: dict[CampaignState, tuple[CampaignState, ...]] = {
    CampaignState.ACTIVE: (
        CampaignState.PAUSED,
        CampaignState.FINISHED,
        CampaignState.CANCELLED,
        CampaignState.FAILED,
    ),
    CampaignState.PAUSED: (
        CampaignState.ACTIVE,
        CampaignState.FINISHED,
        CampaignState.CANCELLED,
        CampaignState.FAILED,
    ),
    CampaignState.FINISHED: (),
    CampaignState.CANCELLED: (),
    CampaignState.FAILED: (),
}
"""Where a campaign can go from each state."""


class IllegalEvent(Exception):
    """The event cannot happen in this state. Reaching it is a bug: callers check what a client asks for."""


def apply(campaign: Campaign | None, event: events.Event, at: datetime, sequence: int, campaign_id: str) -> Campaign:
    """The campaign after ``event``, which was committed ``at`` with number ``sequence``."""
    if campaign is None:
        if not isinstance(event, events.CampaignCreated):
            raise IllegalEvent(f"a campaign begins with campaign_created, not {events.kind_of(event)}")
        head = Campaign(campaign_id, event.run, event.task, event.policy, at, at, sequence)
        return replace(head, procedure=event.procedure, owner=event.owner)
    if sequence != campaign.last_sequence + 1:
        raise IllegalEvent(f"event {sequence} follows event {campaign.last_sequence}")
    if campaign.state.terminal:
        raise IllegalEvent(f"{events.kind_of(event)} in a {campaign.state.value} campaign")
    return replace(_on(event, campaign, at), last_sequence=sequence)


def fold(campaign_id: str, entries: Iterable[tuple[events.Event, datetime, int]]) -> Campaign:
    """The campaign after all ``entries``: event, time of commit and number of each."""
    campaign: Campaign | None = None
    for event, at, sequence in entries:
        campaign = apply(campaign, event, at, sequence, campaign_id)
    if campaign is None:
        raise IllegalEvent("an empty log has no state")
    return campaign


@singledispatch
def _on(event: object, campaign: Campaign, at: datetime) -> Campaign:
    raise IllegalEvent(f"{type(event).__name__} cannot happen here")


@_on.register
def _(event: events.CampaignStateChanged, campaign: Campaign, at: datetime) -> Campaign:
    if event.from_state is not campaign.state or event.to_state not in TRANSITIONS[campaign.state]:
        raise IllegalEvent(f"a {campaign.state.value} campaign does not go to {event.to_state.value}")
    if event.to_state.terminal and campaign.cycle is not None:
        raise IllegalEvent(f"cycle {campaign.cycle.number} is still open")
    failures = 0 if event.to_state is CampaignState.ACTIVE else campaign.failures
    return replace(campaign, state=event.to_state, state_reason=event.reason, failures=failures, update_time=at)


@_on.register
def _(event: events.CycleStarted, campaign: Campaign, at: datetime) -> Campaign:
    if campaign.state is not CampaignState.ACTIVE or campaign.cycle is not None:
        raise IllegalEvent("a cycle begins in an active campaign, when the last one has ended")
    if event.cycle != campaign.cycles + 1:
        raise IllegalEvent(f"cycle {event.cycle} follows cycle {campaign.cycles}")
    return replace(
        campaign,
        cycles=event.cycle,
        cycle=OpenCycle(event.cycle, event.decided_trials, event.levels),
        acted={**campaign.acted, **dict.fromkeys(event.levels, event.decided_trials)},
        run_sequence=event.run_sequence,
    )


@_on.register
def _(event: events.CycleFinished, campaign: Campaign, at: datetime) -> Campaign:
    _open_cycle(campaign, event.cycle)
    if campaign.session is not None:
        raise IllegalEvent(f"{campaign.session.name} is still open")
    failures = campaign.failures + 1 if event.error and event.counted else campaign.failures if event.error else 0
    return replace(campaign, cycle=None, failures=failures)


@_on.register
def _(event: events.AnalysisFinished, campaign: Campaign, at: datetime) -> Campaign:
    return _done(_counted(campaign, event.turn), Level.CONFIGURATION)


@_on.register
def _(event: events.ResearchStarted, campaign: Campaign, at: datetime) -> Campaign:
    _open_cycle(campaign)
    if campaign.session is not None:
        raise IllegalEvent(f"{campaign.session.name} is still open")
    session = OpenSession(
        event.session,
        event.after_trial,
        offered=event.offered,
        replaces=event.replaces,
        advice=event.advice,
        record=event.record,
    )
    return replace(campaign, session=session, sessions=campaign.sessions + 1, replacing=())


@_on.register
def _(event: events.RoundFinished, campaign: Campaign, at: datetime) -> Campaign:
    session = _open_session(campaign, event.session)
    if not event.turn.error:
        session = replace(session, rounds=(*session.rounds, CompletedRound(event.round, event.answer)))
    return replace(_counted(campaign, event.turn), session=session)


@_on.register
def _(event: events.MechanismJudged, campaign: Campaign, at: datetime) -> Campaign:
    session = _open_session(campaign, event.session)
    if event.attempt != len(session.judgements) + 1:
        raise IllegalEvent(f"attempt {event.attempt} follows attempt {len(session.judgements)}")
    judgement = Judgement(event.source, event.report)
    return replace(campaign, session=replace(session, judgements=(*session.judgements, judgement)))


@_on.register
def _(event: events.ResearchFinished, campaign: Campaign, at: datetime) -> Campaign:
    _open_session(campaign, event.session)
    campaign = _done(replace(campaign, session=None), Level.MECHANISM)
    if event.outcome is not ResearchOutcome.INSTALLED:
        return campaign
    new = Installed(event.mechanism, event.source_sha256, event.session, event.after_decided, event.control)
    return replace(campaign, mechanisms=(*campaign.mechanisms, new))


@_on.register
def _(event: events.LibraryEntryChosen, campaign: Campaign, at: datetime) -> Campaign:
    session = _open_session(campaign, event.session)
    if session.offer(event.offer.choice) is None:
        raise IllegalEvent(f"{event.offer.choice} was not offered to {event.session}")
    return campaign


@_on.register
def _(event: events.HistoryCleared, campaign: Campaign, at: datetime) -> Campaign:
    _open_session(campaign, event.session)
    return campaign


@_on.register
def _(event: events.ProcedureJudged, campaign: Campaign, at: datetime) -> Campaign:
    return _spent(campaign, event.turn)


@_on.register
def _(event: events.ProcedureChanged, campaign: Campaign, at: datetime) -> Campaign:
    return campaign


@_on.register
def _(event: events.ConfigurationMeasured, campaign: Campaign, at: datetime) -> Campaign:
    return campaign


@_on.register
def _(event: events.VerdictReached, campaign: Campaign, at: datetime) -> Campaign:
    if all(mechanism.id != event.mechanism for mechanism in campaign.mechanisms):
        raise IllegalEvent(f"{event.mechanism} was not installed by this campaign")
    judged = tuple(_judged(m, event) if m.id == event.mechanism else m for m in campaign.mechanisms)
    replacing = (event.mechanism,) if event.verdict is Verdict.REPLACE else ()
    return replace(campaign, mechanisms=judged, replacing=(*campaign.replacing, *replacing))


def _judged(installed: Installed, event: events.VerdictReached) -> Installed:
    if installed.verdict is not None and installed.verdict.removes:
        raise IllegalEvent(f"{installed.id} was removed by a verdict")
    return replace(
        installed,
        verdict=event.verdict,
        examinations=installed.examinations + 1,
        examined_after=event.decided_trials,
        changed_before=event.effect.changed_decisions,
    )


@_on.register
def _(event: AvailabilityChanged, campaign: Campaign, at: datetime) -> Campaign:
    return campaign  # for those who watch


def _open_cycle(campaign: Campaign, number: int | None = None) -> OpenCycle:
    cycle = campaign.cycle
    if cycle is None or (number is not None and cycle.number != number):
        raise IllegalEvent("no such cycle is open")
    return cycle


def _open_session(campaign: Campaign, name: str) -> OpenSession:
    session = campaign.session
    if session is None or session.name != name:
        raise IllegalEvent(f"{name} is not open")
    return session


def _done(campaign: Campaign, level: Level) -> Campaign:
    cycle = _open_cycle(campaign)
    return replace(campaign, cycle=replace(cycle, done=(*cycle.done, level)))


def _counted(campaign: Campaign, turn: Turn) -> Campaign:
    _open_cycle(campaign)
    return _spent(campaign, turn)


def _spent(campaign: Campaign, turn: Turn) -> Campaign:
    model = turn.model or campaign.model
    return replace(
        campaign, usage=campaign.usage + turn.usage, model=model, scripted=campaign.scripted or turn.scripted
    )
