"""The research of one run's campaign, as a conversation: what it saw, proposed, doubted, wrote, and what came of it."""

from __future__ import annotations

from bilevel.v1 import outer_pb2
from nicegui import ui

from clients import wording
from clients.campaign_history import TERMINAL
from clients.dashboard.elements import box, empty, facts, notice, problem, text
from clients.dashboard.feeds import Feeds, StreamFeed
from clients.dashboard.folding import heading
from clients.dashboard.frame import connection, follow
from clients.dashboard.panels.conversation import LEVELS, offers, outcome, say, used
from clients.dashboard.projection.research import CampaignView, Entry
from clients.dashboard.run_frame import run_frame
from clients.dashboard.services import Services
from clients.history import Spending, short
from service_kit.errors import RemoteError

LOOK_AGAIN = 3.0
"""Seconds between two looks for a campaign that a run does not have yet."""


def register(services: Services, feeds: Feeds) -> None:
    """Serve the page."""

    @ui.page("/runs/{run_id}/research")
    def page(run_id: str) -> None:
        with run_frame(services, feeds, run_id, "/research"):
            body = box()

        async def look() -> None:
            campaign: outer_pb2.Campaign | None = None
            said: RemoteError | None = None
            try:
                campaign = await services.outer.campaign_of(f"runs/{run_id}")
            except RemoteError as error:
                said = error
            body.clear()
            with body:
                if campaign is not None:
                    looking.cancel()
                    _conversation(feeds.campaign(campaign.name), run_id)
                elif said is not None:
                    problem(said)
                else:
                    _none()

        looking = ui.timer(LOOK_AGAIN, look, immediate=True)


def _none() -> None:
    empty(
        "No outer loop supervises this run",
        "Levels 1.5 and 2 are what a campaign does; this run has none. Start a run with both levels:",
        command="bilevel run --levels 1,1.5,2",
    )


def _conversation(feed: StreamFeed[CampaignView], run_id: str) -> None:
    with box("div", "heading"):
        text("h2", "Campaign", "title")
        connection(feed)
        box("span", "space")
    head, entries = box(), box("div", "conversation")
    drawn = 0
    sessions: dict[str, _Session] = {}

    def draw() -> None:
        nonlocal drawn
        view = feed.view
        head.clear()
        with head:
            _head(view)
        for entry in view.entries[drawn:]:
            if entry.kind == "research_started":
                with entries:
                    sessions[entry.session] = _Session(entry)
            elif entry.session in sessions:
                sessions[entry.session].say(entry, view, run_id)
            else:
                with entries:
                    say(entry, run_id)
        drawn = len(view.entries)

    follow(feed, draw)


def _head(view: CampaignView) -> None:
    state = wording.member(outer_pb2.CampaignState.Name(view.state), "CAMPAIGN_STATE_")
    levels = " and ".join(LEVELS.get(level, str(level)) for level in view.policy.levels) or "none"
    with box("section", "panel"):
        facts(
            [
                ("State", state),
                *([("Now", view.activity)] if view.state not in TERMINAL else []),
                ("Levels", levels),
                ("Answered by", ", ".join(view.spending.models) or wording.NOTHING),
                ("Sessions", str(len(view.research))),
                ("Installed", str(view.installed)),
                ("Tokens", f"{view.spending.prompt_tokens + view.spending.completion_tokens:,}"),
                ("Cost", wording.cost(view.spending.cost_usd, scripted=bool(view.spending.scripted_calls))),
            ]
        )
    if view.spending.scripted_calls:
        notice(
            "The scripted researcher answered",
            "It is a script and no language model: nothing here is evidence for the method.",
            kind="warning",
        )
    if not view.entries:
        empty(
            "The outer loop has not looked yet",
            f"It looks after every {view.policy.configuration_every or 5} decided trials.",
        )


class _Session:
    """One research session, drawn as it goes on. It stays open until it has ended."""

    def __init__(self, started: Entry) -> None:
        what: outer_pb2.ResearchStarted = started.what
        self._details = box("details", "session")
        self._details.props.update({"open": True, "id": f"session-{short(what.session)}"})
        with self._details:
            self._note = heading(f"Level 2: research session {short(what.session)}, after {what.after_trial} trials")
            self._body = box("div", "folded")
        with self._body:
            offers(what)

    def say(self, entry: Entry, view: CampaignView, run_id: str) -> None:
        with self._body:
            say(entry, run_id)
        spending = view.by_session.get(entry.session, Spending())
        end = entry.what if entry.kind == "research_finished" else None
        said = outcome(end) if end is not None else "goes on"
        self._note.text = f"{said} · {used(spending)}"
