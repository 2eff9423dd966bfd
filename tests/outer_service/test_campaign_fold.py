"""The campaign's state machine: state is what the log says, and what cannot happen cannot be committed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechanisms.findings import Stage
from outer_service import events
from outer_service.campaign import (
    Campaign,
    CampaignState,
    Control,
    Level,
    Mode,
    Policy,
    ResearchOutcome,
    Round,
    Turn,
    Verdict,
)
from outer_service.fold import TRANSITIONS, IllegalEvent, apply, fold
from outer_service.observed import GateReport, MechanismEffect
from outer_service.store import Store
from service_kit.errors import AlreadyExists, NotFound
from service_kit.llm.failures import Message
from service_kit.llm.usage import Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(levels=(Level.CONFIGURATION, Level.MECHANISM))
TURN = Turn((Message("user", "?"),), "!", Usage(1, 100, 10, 0, 0.5), 0.1, "m-1", False)
REPORT = GateReport(True, Stage.EFFECT, source_sha256="a" * 64, text="fine", summary="Does things.")
SESSION = "campaigns/c/researchSessions/1"

CREATED = events.CampaignCreated("runs/r", "gpt", POLICY)
CYCLE = events.CycleStarted(1, 10, (Level.CONFIGURATION, Level.MECHANISM), 77)
RESEARCH = [
    events.ResearchStarted(SESSION, 10),
    events.RoundFinished(SESSION, Round.EXPLORE, TURN, "s", "{}"),
    events.MechanismJudged(SESSION, 1, REPORT, "class Mechanism: ..."),
    events.ResearchFinished(SESSION, ResearchOutcome.INSTALLED, "m", "tabu", "a" * 64, 10),
]
WHOLE = [
    CREATED,
    CYCLE,
    events.AnalysisFinished(TURN, "o"),
    *RESEARCH,
    events.CycleFinished(1),
    events.VerdictReached("tabu", Verdict.KEEP, "r", MechanismEffect(), 0.0, 0.1),
    events.CampaignStateChanged(CampaignState.ACTIVE, CampaignState.FINISHED, "the run is finished"),
]


def folded(*happened: events.Event) -> Campaign:
    return fold("c", ((event, NOW + timedelta(seconds=i), i) for i, event in enumerate(happened, 1)))


def after(campaign: Campaign, event: events.Event) -> Campaign:
    return apply(campaign, event, NOW, campaign.last_sequence + 1, "c")


def test_a_whole_campaign_adds_up() -> None:
    campaign = folded(*WHOLE)
    assert campaign.state is CampaignState.FINISHED
    assert (campaign.cycles, campaign.sessions, campaign.run_sequence) == (1, 1, 77)
    assert campaign.usage == Usage(2, 200, 20, 0, 1.0)
    assert campaign.acted == {Level.CONFIGURATION: 10, Level.MECHANISM: 10}
    assert [(m.id, m.verdict) for m in campaign.mechanisms] == [("tabu", Verdict.KEEP)]
    assert (campaign.model, campaign.scripted) == ("m-1", False)


@pytest.mark.parametrize("event", WHOLE, ids=events.kind_of)
def test_every_event_survives_the_log(event: events.Event) -> None:
    stored = events.encode(event)
    assert events.decode(stored.kind, stored.payload) == event


@pytest.mark.parametrize("state", CampaignState)
@pytest.mark.parametrize("to", CampaignState)
def test_state_changes_are_the_listed_ones(state: CampaignState, to: CampaignState) -> None:
    before = folded(CREATED)
    if state is not CampaignState.ACTIVE:
        before = after(before, events.CampaignStateChanged(before.state, state, ""))
    change = events.CampaignStateChanged(state, to, "because")
    if to in TRANSITIONS[state]:
        assert after(before, change).state is to
    else:
        with pytest.raises(IllegalEvent):
            after(before, change)


def test_what_is_open_must_be_closed_first() -> None:
    open_cycle = folded(CREATED, CYCLE)
    with pytest.raises(IllegalEvent, match="cycle 1 is still open"):
        after(open_cycle, events.CampaignStateChanged(CampaignState.ACTIVE, CampaignState.CANCELLED, ""))
    with pytest.raises(IllegalEvent, match="still open"):
        after(folded(CREATED, CYCLE, RESEARCH[0]), events.CycleFinished(1))
    with pytest.raises(IllegalEvent):
        after(open_cycle, events.CycleStarted(2, 15, (), 80))


def test_failures_count_in_a_row_and_a_resume_forgives_them() -> None:
    failing = [CREATED]
    for number in (1, 2):
        failing += [events.CycleStarted(number, 5 * number, (Level.CONFIGURATION,), number)]
        failing += [events.CycleFinished(number, "no answer")]
    assert folded(*failing).failures == 2
    paused = events.CampaignStateChanged(CampaignState.ACTIVE, CampaignState.PAUSED, "failures")
    resumed = events.CampaignStateChanged(CampaignState.PAUSED, CampaignState.ACTIVE, "resumed")
    assert folded(*failing, paused, resumed).failures == 0
    third = [events.CycleStarted(3, 15, (), 3), events.CycleFinished(3)]
    assert folded(*failing, *third).failures == 0


def test_a_failure_that_is_nobodys_fault_does_not_count() -> None:
    assert folded(CREATED, CYCLE, events.CycleFinished(1, "the run is finished", counted=False)).failures == 0


@pytest.mark.parametrize(
    ("acted", "decided", "due"),
    [
        ({}, 4, ()),
        ({}, 5, (Level.CONFIGURATION,)),
        ({Level.CONFIGURATION: 5}, 9, ()),
        ({Level.CONFIGURATION: 5}, 10, (Level.CONFIGURATION, Level.MECHANISM)),
        ({Level.CONFIGURATION: 10, Level.MECHANISM: 10}, 19, (Level.CONFIGURATION,)),
        ({Level.CONFIGURATION: 12, Level.MECHANISM: 12}, 14, ()),
        ({Level.CONFIGURATION: 12, Level.MECHANISM: 12}, 27, (Level.CONFIGURATION, Level.MECHANISM)),
    ],
)
def test_levels_are_due_once_for_every_interval(acted: dict[Level, int], decided: int, due: tuple[Level, ...]) -> None:
    assert POLICY.due(acted, decided) == due


def test_a_budget_is_spent_by_tokens_or_money() -> None:
    used = folded(CREATED, CYCLE, events.AnalysisFinished(TURN, "o"))
    for policy, spent in ((Policy(max_tokens=111), ""), (Policy(max_tokens=110), "110 tokens"), (Policy(), "")):
        campaign = Campaign("c", "runs/r", "t", policy, NOW, NOW, 1, usage=used.usage)
        assert spent in campaign.budget_spent
        assert bool(campaign.budget_spent) is bool(spent)
    campaign = Campaign("c", "runs/r", "t", Policy(max_cost_usd=0.5), NOW, NOW, 1, usage=used.usage)
    assert "0.5 US dollars" in campaign.budget_spent


POSSIBLE = [
    CYCLE,
    events.CycleStarted(2, 15, (Level.CONFIGURATION,), 90),
    events.CycleFinished(1),
    events.CycleFinished(2, "failed"),
    events.AnalysisFinished(TURN, "o"),
    *RESEARCH,
    events.CampaignStateChanged(CampaignState.ACTIVE, CampaignState.PAUSED, ""),
    events.CampaignStateChanged(CampaignState.PAUSED, CampaignState.ACTIVE, ""),
    events.CampaignStateChanged(CampaignState.ACTIVE, CampaignState.CANCELLED, ""),
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(POSSIBLE), max_size=25))
def test_whatever_is_tried_only_sensible_states_arise(tried: list[events.Event]) -> None:
    happened: list[events.Event] = [CREATED]
    campaign = folded(CREATED)
    for event in tried:
        try:
            campaign = after(campaign, event)
        except IllegalEvent:
            continue
        happened.append(event)
        assert campaign.session is None or campaign.cycle is not None
        assert not campaign.state.terminal or campaign.cycle is None
    assert campaign.last_sequence == len(happened)
    again = folded(*happened)
    assert (again.state, again.cycle, again.session, again.usage) == (
        campaign.state,
        campaign.cycle,
        campaign.session,
        campaign.usage,
    )


async def test_the_stored_campaign_is_the_fold_of_its_log(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path}/outer.db")
    try:
        created = events.CampaignCreated("runs/r", "gpt", POLICY)
        campaign, new = await store.create("c", created, "request")
        assert new
        for event in WHOLE[1:]:
            campaign = await store.commit("c", lambda _, event=event: [event])
        entries = [entry async for entry in store.entries("c")]
        assert fold("c", ((e.event, e.time, e.sequence) for e in entries)) == campaign == await store.campaign("c")
        with pytest.raises(IllegalEvent):
            await store.commit("c", lambda _: [events.CycleFinished(1)])
        assert (await store.campaign("c")).last_sequence == len(WHOLE)
        again, new = await store.create("d", created, "request")
        assert (again.id, new) == ("c", False)
    finally:
        await store.close()


async def test_a_run_has_one_supervisor_at_a_time(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path}/outer.db")
    try:
        await store.create("c", CREATED)
        with pytest.raises(AlreadyExists, match="runs/r"):
            await store.create("d", CREATED)
        with pytest.raises(NotFound):
            await store.campaign("d")
    finally:
        await store.close()


async def test_the_library_remembers_what_was_accepted_and_judged_but_no_controls(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path}/outer.db")
    try:
        await store.create("c", CREATED)
        for event in WHOLE[1:]:
            await store.commit("c", lambda _, event=event: [event])
        [(_, entry)] = await store.library(10)
        assert (entry.id, entry.author, entry.task, entry.session) == ("a" * 64, "m-1", "gpt", SESSION)
        assert (entry.summary, entry.source) == ("Does things.", "class Mechanism: ...")
        assert [verdict.verdict for verdict in entry.trials[0].verdicts] == [Verdict.KEEP]
        control = Policy(levels=(Level.MECHANISM,), control=Control.NOOP, mode=Mode.CONCURRENT)
        await store.create("d", events.CampaignCreated("runs/s", "gpt", control))
        session = "campaigns/d/researchSessions/1"
        for event in (
            events.CycleStarted(1, 10, (Level.MECHANISM,), 5),
            events.ResearchStarted(session, 10),
            events.ResearchFinished(session, ResearchOutcome.INSTALLED, "", "noop", "b" * 64, 10, control=True),
        ):
            await store.commit("d", lambda _, event=event: [event])
        assert len(await store.library(10)) == 1
        with pytest.raises(NotFound):
            await store.library_entry("b" * 64)
    finally:
        await store.close()
