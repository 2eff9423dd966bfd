"""The mechanisms of one run, and each by itself: source, gate, sandbox, what it did, and what was decided about it."""

from __future__ import annotations

from nicegui import ui

from clients import wording
from clients.dashboard.acts.controls import say
from clients.dashboard.acts.retiring import ask_to_retire
from clients.dashboard.elements import box, button, disable, empty, facts, link, tag, text
from clients.dashboard.feeds import Feeds, StreamFeed
from clients.dashboard.folding import fold
from clients.dashboard.frame import follow
from clients.dashboard.panels.code import code
from clients.dashboard.panels.gate_report import finding_lines, gate_report
from clients.dashboard.panels.mechanism import MechanismPage, state_tag
from clients.dashboard.part import Part
from clients.dashboard.permission import driving_refusal
from clients.dashboard.projection.mechanism import before_after, proposed_trials, reason_of, state_of
from clients.dashboard.projection.research import CampaignView
from clients.dashboard.projection.run import RunView
from clients.dashboard.run_frame import run_frame
from clients.dashboard.services import Services
from clients.history import TERMINAL, MechanismHistory, short
from service_kit.errors import RemoteError


def register(services: Services, feeds: Feeds) -> None:
    """Serve the pages."""

    @ui.page("/runs/{run_id}/mechanisms")
    def all_of_run(run_id: str) -> None:
        with run_frame(services, feeds, run_id, "/mechanisms") as feed:
            part = Part()

        def draw() -> None:
            view = feed.view
            counted = [(m.name, state_of(m), len(m.changes), _calls(m)) for m in view.mechanisms.values()]
            part.draw((counted, len(view.rejected), view.decided, feed.behind), lambda: _list(feed, run_id))

        follow(feed, draw)

    @ui.page("/runs/{run_id}/mechanisms/{name}")
    async def one(run_id: str, name: str) -> None:
        refusal = await driving_refusal(services)
        campaign = await _campaign(services, feeds, f"runs/{run_id}")
        with run_frame(services, feeds, run_id, "/mechanisms") as feed:
            with box("div", "heading"):
                text("h2", name, "title")
                box("span", "space")
                retire = button("Retire", lambda: ask(), kind="danger")
            page = MechanismPage(run_id)

        def ask() -> None:
            # A button that is marked as disabled can still be pressed: it says why it does nothing.
            if retire.props.get("aria-disabled"):
                say(f"Not possible now: {retire.props['title']}.")
            else:
                ask_to_retire(services, f"runs/{run_id}/mechanisms/{name}")

        def draw() -> None:
            mechanism = feed.view.mechanisms.get(name)
            installed = mechanism is not None and state_of(mechanism) != "removed"
            over = "the run has ended" if feed.view.state in TERMINAL else ""
            disable(retire, over or refusal if installed else "it is not installed")
            if mechanism is None:
                page.head.draw(feed.behind, lambda: _unknown(feed, name, run_id))
            else:
                page.draw(feed.view, mechanism, campaign.view if campaign is not None else None)

        follow(feed, draw)
        if campaign is not None:
            follow(campaign, draw)


async def _campaign(services: Services, feeds: Feeds, run: str) -> StreamFeed[CampaignView] | None:
    """The campaign that supervises ``run``; None where there is none, or nobody to ask."""
    try:
        campaign = await services.outer.campaign_of(run)
    except RemoteError:
        return None
    return feeds.campaign(campaign.name) if campaign is not None else None


def _calls(mechanism: MechanismHistory) -> int:
    return sum(count.calls for count in mechanism.hooks.values())


def _list(feed: StreamFeed[RunView], run_id: str) -> None:
    view = feed.view
    if feed.behind:
        text("p", "Reading the trace.", "quiet")
        return
    if not view.mechanisms and not view.rejected:
        empty(
            "No mechanism yet",
            "Level 2 writes them while a run goes on; you can also install one of your own.",
            command=f"bilevel mechanisms install {run_id} my_mechanism.py",
        )
        return
    for mechanism in view.mechanisms.values():
        _card(view, mechanism, run_id)
    if view.rejected:
        text("h2", "Refused by the gate at installation").classes("section-title")
    for rejected in view.rejected:
        with box("section", "panel"):
            with box("div", "panel-head"):
                text("h3", short(rejected.mechanism))
            gate_report(rejected.report)
            _folded_source(rejected.source, finding_lines(rejected.report))


def _folded_source(source: str, marked: set[int]) -> None:
    def build() -> None:
        code(source, marked)

    fold("Source", build, note=wording.count(source.count("\n") + 1, "line"))


def _card(view: RunView, mechanism: MechanismHistory, run_id: str) -> None:
    installed = mechanism.mechanism
    proposed, kept = proposed_trials(view, mechanism.name)
    with box("section", "panel"):
        with box("div", "panel-head"):
            with text("h2", ""):
                link(mechanism.name, f"/runs/{run_id}/mechanisms/{mechanism.name}")
            state_tag(mechanism)
            tag(installed.author)
        text("p", installed.summary, "quiet")
        rates = before_after(view, mechanism)
        facts(
            [
                ("Hooks", ", ".join(wording.hook(hook) for hook in installed.hooks)),
                ("Since trial", str(installed.installed_after_trial)),
                ("Calls", f"{_calls(mechanism):,}"),
                ("Decisions changed", f"{len(mechanism.changes):,}"),
                ("Trials proposed", str(proposed)),
                ("Kept", str(kept)),
                ("Improved since", str(rates.after)),
                ("Before it", str(rates.before)),
            ],
            "gap-above",
        )
        if reason := reason_of(mechanism):
            text("p", reason, "quiet gap-above")


def _unknown(feed: StreamFeed[RunView], name: str, run_id: str) -> None:
    if feed.behind:
        text("p", "Reading the trace.", "quiet")
        return
    empty(f"This run has no mechanism {name}", "The list of its mechanisms says which it has.")
    link("All mechanisms of the run", f"/runs/{run_id}/mechanisms")
