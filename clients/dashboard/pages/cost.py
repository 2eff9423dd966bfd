"""What one run's model calls used, the inner loop's and the outer loop's, by what they were for."""

from __future__ import annotations

from nicegui import ui

from clients import wording
from clients.dashboard.elements import box, notice, text
from clients.dashboard.feeds import Feeds
from clients.dashboard.frame import follow
from clients.dashboard.part import Part
from clients.dashboard.projection.research import CampaignView
from clients.dashboard.run_frame import run_frame
from clients.dashboard.services import Services
from clients.history import RunHistory, Spending
from service_kit.errors import RemoteError

_COLUMNS = ("for", "calls", "failed", "tokens read", "tokens written", "cost")


def register(services: Services, feeds: Feeds) -> None:
    """Serve the page."""

    @ui.page("/runs/{run_id}/cost")
    async def page(run_id: str) -> None:
        absent = ""
        try:
            campaign = await services.outer.campaign_of(f"runs/{run_id}")
        except RemoteError as error:
            campaign, absent = None, str(error)
        outer = feeds.campaign(campaign.name) if campaign is not None else None
        with run_frame(services, feeds, run_id, "/cost") as feed:
            if absent:
                notice("The outer loop's cost is not known now", absent, kind="warning")
            part = Part()

        def draw() -> None:
            view = outer.view if outer is not None else None
            calls = (feed.view.spending.calls, view.spending.calls if view is not None else 0)
            part.draw(calls, lambda: _table(feed.view, view))

        follow(feed, draw)
        if outer is not None:
            follow(outer, draw)


def _table(run: RunHistory, campaign: CampaignView | None) -> None:
    rows = [(f"inner loop: {purpose}", spending) for purpose, spending in run.by_purpose.items()]
    if campaign is not None:
        rows += [(f"outer loop: {name}", spending) for name, spending in campaign.by_round.items()]
    total = run.spending + campaign.spending if campaign is not None else run.spending
    with box("section", "panel flush"), box("div", "scroll"), box("table", "plain-table"):
        text("caption", "Calls of language models", "visually-hidden")
        with box("thead"), box("tr"):
            for name in _COLUMNS:
                text("th", name).props["scope"] = "col"
        with box("tbody"):
            for name, spending in rows:
                _row(name, spending)
        with box("tfoot"):
            _row("total", total)
    models = ", ".join(f"{model} ({wording.count(answers, 'answer')})" for model, answers in total.models.items())
    text("p", f"Answered by {models}." if models else "No model was asked yet.", "quiet")
    if total.cost_usd is None:
        notice(
            "The price of at least one call is unknown",
            "Unknown is not free. BILEVEL_PRICE_INPUT and BILEVEL_PRICE_OUTPUT, or BILEVEL_PRICES, tell the services "
            "what a token costs; what is recorded already stays as it is.",
            kind="warning",
        )


def _row(name: str, spending: Spending) -> None:
    with box("tr"):
        text("th", name).props["scope"] = "row"
        for value in (spending.calls, spending.failed, spending.prompt_tokens, spending.completion_tokens):
            text("td", f"{value:,}")
        text("td", wording.cost(spending.cost_usd, scripted=bool(spending.scripted_calls)))
