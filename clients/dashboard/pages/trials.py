"""Every trial of a run: sorted, filtered and paged by the server, so that a page is sent fifty of 10,000."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from clients.dashboard.elements import box, text, words_filter
from clients.dashboard.feeds import Feeds
from clients.dashboard.frame import follow
from clients.dashboard.panels.trial_table import rows, trial_table
from clients.dashboard.projection.trials import KINDS, Filter, matching, proposers
from clients.dashboard.run_frame import run_frame
from clients.dashboard.services import Services

PAGE = 50
"""Rows a page."""


def register(services: Services, feeds: Feeds) -> None:
    """Serve the page."""

    @ui.page("/runs/{run_id}/trials")
    def page(run_id: str) -> None:
        with run_frame(services, feeds, run_id, "/trials") as feed:
            filters = box("div", "filters")
            with filters:
                wanted = words_filter("trials", "parameter, hypothesis, message", debounce=250)
                # Quasar gives the control of a select no other name than its label.
                kind = ui.select({"": "Every outcome", **{k: k for k in KINDS}}, value="", label="Outcome")
                proposer = ui.select({"": "Proposed by anyone"}, value="", label="Proposed by")
                for chooser in (kind, proposer):
                    chooser.props("dense outlined options-dense")
                count = text("span", "", "quiet number")
            pagination: dict[str, Any] = {
                "sortBy": "number",
                "descending": True,
                "page": 1,
                "rowsPerPage": PAGE,
                "rowsNumber": 0,
            }
            panel = box("div", "panel flush")
            with panel:
                table = trial_table(run_id, feed, pagination=pagination)
                table.props(':rows-per-page-options="[25, 50, 100]" binary-state-sort')

            def draw() -> None:
                view = feed.view
                filters.set_visibility(feed.ready)
                panel.set_visibility(feed.ready)
                if not feed.ready:
                    return
                found = Filter(kind.value or "", proposer.value or "", wanted.value or "")
                numbers = matching(
                    view, found, by=pagination["sortBy"] or "number", descending=bool(pagination["descending"])
                )
                size = int(pagination["rowsPerPage"])
                last = max(1, -(-len(numbers) // size))
                pagination["page"] = min(int(pagination["page"]), last)
                start = (int(pagination["page"]) - 1) * size
                _show(
                    table, rows(run_id, view, numbers[start : start + size]), pagination | {"rowsNumber": len(numbers)}
                )
                count.text = f"{len(numbers):,} of {len(view.trials):,}"
                names = {"": "Proposed by anyone", **{name: name for name in proposers(view)}}
                if names != proposer.options:
                    proposer.set_options(names)

            def turn(event: Any) -> None:
                pagination.update(event.args["pagination"])
                draw()

            def narrow() -> None:
                pagination["page"] = 1
                draw()

            table.on("request", turn)
            for field in (wanted, kind, proposer):
                field.on_value_change(narrow)
            follow(feed, draw)


def _show(table: ui.table, shown: list[dict[str, Any]], pagination: dict[str, Any]) -> None:
    """Send what is different, if anything is."""
    if table.rows != shown:
        table.rows = shown
    if table.pagination != pagination:
        table.pagination = pagination
