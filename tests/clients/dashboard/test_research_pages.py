"""The pages on mechanisms, research, library and cost, as a browser's user meets them: over a recorded campaign."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from bilevel.v1 import outer_pb2, outer_pb2_grpc
from nicegui.testing import User, user_simulation

from clients.dashboard.app import register_pages
from clients.dashboard.feeds import Feeds
from clients.dashboard.panels.code import markup
from clients.dashboard.projection.mechanism import before_after
from clients.dashboard.projection.research import CampaignView, passages
from clients.dashboard.services import Services
from clients.history import RunHistory
from clients.report.record import RunRecord
from tests.clients.conftest import HOSTILE, SOURCE
from tests.clients.dashboard.conftest import RecordedInner


class RecordedOuter(outer_pb2_grpc.OuterLoopServiceServicer):
    """Tells one campaign, and a library with one entry."""

    def __init__(self, record: RunRecord) -> None:
        self.events = record.campaign_events
        run = record.events[0].run
        self.campaign = outer_pb2.Campaign(name="campaigns/c1", run=run, last_sequence=len(self.events))
        trial = outer_pb2.LibraryTrial(campaign="campaigns/c1", run=run, mechanism="turn-round")
        self.entry = outer_pb2.LibraryEntry(
            name=f"libraryEntries/{'ab' * 32}",
            title="turn-round",
            summary=HOSTILE,
            source=SOURCE,
            origin=1,
            trials=[trial],
        )

    async def ListCampaigns(self, request, context) -> outer_pb2.ListCampaignsResponse:  # noqa: N802
        return outer_pb2.ListCampaignsResponse(campaigns=[self.campaign])

    async def GetCampaign(self, request, context) -> outer_pb2.GetCampaignResponse:  # noqa: N802
        return outer_pb2.GetCampaignResponse(campaign=self.campaign)

    async def WatchCampaign(self, request, context) -> AsyncIterator[outer_pb2.WatchCampaignResponse]:  # noqa: N802
        for event in self.events[request.after_sequence :]:
            yield outer_pb2.WatchCampaignResponse(event=event)

    async def ListLibraryEntries(self, request, context) -> outer_pb2.ListLibraryEntriesResponse:  # noqa: N802
        return outer_pb2.ListLibraryEntriesResponse(entries=[self.entry])

    async def GetLibraryEntry(self, request, context) -> outer_pb2.GetLibraryEntryResponse:  # noqa: N802
        if request.name != self.entry.name:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such entry")
        return outer_pb2.GetLibraryEntryResponse(entry=self.entry)


@pytest.fixture
async def user(recorded: RecordedInner, bilevel: RunRecord) -> AsyncIterator[User]:
    """Someone at a dashboard of the recorded run and its campaign."""
    recorded.tell(bilevel)
    server = grpc.aio.server()
    outer_pb2_grpc.add_OuterLoopServiceServicer_to_server(RecordedOuter(bilevel), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with user_simulation() as someone:
        services = Services(recorded.address, f"127.0.0.1:{port}")
        register_pages(services, Feeds(services))
        yield someone
    await server.stop(None)


async def sees(user: User, *words: str) -> None:
    for each in words:
        await user.should_see(each, retries=100)


async def test_a_mechanism_is_shown_with_its_walls_and_with_what_it_did(user: User, bilevel: RunRecord) -> None:
    run = f"/{bilevel.events[0].run}"
    await user.open(f"{run}/mechanisms")
    await sees(user, "turn-round", "active", "halve it instead")
    await user.open(f"{run}/mechanisms/turn-round")
    await sees(user, "Decisions changed", "no new privs", "seccomp", "accepted", "Research session 1", "Retire")
    await sees(user, "None yet: it is judged 10 decided trials after its installation.")


async def test_a_mechanism_is_retired_only_when_asked_twice_and_while_the_run_goes_on(
    user: User, recorded: RecordedInner, bilevel: RunRecord
) -> None:
    run = bilevel.events[0].run
    await user.open(f"/{run}/mechanisms/turn-round")
    await sees(user, "Decisions changed")
    user.find("Retire").click()
    await sees(user, "Not possible now: the run has ended.")
    last = max(n for n, event in enumerate(bilevel.events) if event.WhichOneof("event") == "hooks_counted")
    for number, event in enumerate(bilevel.events[: last + 1], 1):
        copy = type(event)()
        copy.CopyFrom(event)
        copy.run = "runs/going"
        recorded.traces.setdefault("runs/going", []).append(copy)
        assert copy.sequence == number
    await user.open("/runs/going/mechanisms/turn-round")
    await sees(user, "Decisions changed")
    user.find("Retire").click()
    await sees(user, "Retire turn-round?")
    assert not recorded.asked
    user.find("Retire it").click()
    await sees(user, "removed", "retired by a person")
    assert [type(request).__name__ for request in recorded.asked] == ["UninstallMechanismRequest"]


async def test_a_run_without_lessons_says_how_to_have_them(user: User, bilevel: RunRecord) -> None:
    await user.open(f"/{bilevel.events[0].run}/lessons")
    await sees(user, "This run works without lessons", "bilevel run --lessons")


async def test_the_research_is_a_conversation_with_both_sides(user: User, bilevel: RunRecord) -> None:
    await user.open(f"/{bilevel.events[0].run}/research")
    await sees(user, "Cycle 1", "Explore: what holds the search back?", "Generate: the source", "The gate, attempt 1")
    await sees(
        user, "The session ended: installed turn-round", "froze WEIGHT_DECAY", "The scripted researcher answered"
    )


async def test_cost_is_listed_by_purpose_for_both_loops(user: User, bilevel: RunRecord) -> None:
    await user.open(f"/{bilevel.events[0].run}/cost")
    await sees(user, "inner loop: propose", "outer loop: explore", "total", "price of at least one call is unknown")


async def test_the_library_lists_and_explains_its_entries(user: User) -> None:
    await user.open("/library")
    await sees(user, "turn-round", HOSTILE)
    await user.open(f"/library/{'ab' * 32}")
    await sees(user, "No verdict.", "Source")
    await user.open("/library/0000")
    await sees(user, "The library has no such mechanism")


def test_source_becomes_no_markup_but_that_of_its_colours() -> None:
    shown = markup(f'x = "</span>{HOSTILE}"\n# {HOSTILE}\n', marked={2})
    assert "<script" not in shown
    assert "<b>" not in shown
    assert shown.count('class="line') == 2
    assert shown.splitlines()[1].startswith('<span class="line marked">')


def test_improvements_are_counted_since_a_mechanism_came_and_as_long_before(bilevel: RunRecord) -> None:
    history = RunHistory.of(bilevel.events)
    rates = before_after(history, history.mechanisms["turn-round"])
    assert (rates.before.trials, rates.after.trials) == (10, 20)
    best, improved = history.baseline_metric, 0
    for number in range(11, 31):
        metric = history.metric(number)
        earlier = [history.metric(n) for n in range(number) if history.metric(n) is not None]
        improved += metric is not None and metric < min(earlier)
    assert best is not None
    assert rates.after.improved == improved > 0


def test_the_conversation_keeps_every_entry_in_order_and_adds_up_what_sessions_used(bilevel: RunRecord) -> None:
    view = CampaignView()
    for event in bilevel.campaign_events:
        view.apply(event)
    spoken = [event for event in bilevel.campaign_events if event.WhichOneof("event") != "campaign_created"]
    assert [entry.kind for entry in view.entries] == [event.WhichOneof("event") for event in spoken]
    assert set(view.by_round) == {"analysis", "explore", "critique", "specify", "generate"}
    assert view.by_session["campaigns/c1/researchSessions/1"].calls == 4
    assert sum(spending.calls for spending in view.by_round.values()) == view.spending.calls


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        ('{"source": "x = 1", "reason": "why"}', [("source", ("x = 1",), True), ("reason", ("why",), False)]),
        ('{"candidates": [{"name": "tabu", "idea": "forbid", "hooks": ["veto"]}]}',
         [("candidates", ("tabu \N{EN DASH} idea: forbid; hooks: veto",), False)]),
        ("no JSON", [("answer", ("no JSON",), False)]),
        ('{"freeze": [], "strategy": ""}', []),
        ("[1]", [("answer", ("[1]",), False)]),
        ("", []),
    ],
)  # fmt: skip
def test_answers_are_told_in_named_passages(answer: str, lines: list[tuple[str, tuple[str, ...], bool]]) -> None:
    assert [(p.name, p.lines, p.source) for p in passages(answer)] == lines
