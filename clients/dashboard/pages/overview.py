"""All runs with their campaigns: state, task, trials, best, gain, age."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from clients import wording
from clients.dashboard.elements import age, box, column, empty, notice, text, words_filter
from clients.dashboard.feeds import LISTED, Feeds
from clients.dashboard.frame import connection, follow, frame
from clients.dashboard.projection.overview import RunRow
from clients.dashboard.services import Services

_COLUMNS = [
    column("title", "Run", sortable=True),
    column("state", "State", sortable=True),
    column("task", "Task", sortable=True),
    column("trials", "Trials", field="share", sortable=True),
    column("best", "Best", right=True),
    column("gain", "Gain", right=True),
    column("confirmed", "Confirmed gain", right=True),
    column("campaign", "Outer loop"),
    column("age", "Created", field="created", right=True, sortable=True),
]

_CELLS = {
    "title": """<q-td :props="props">
        <a class="row-link" :href="'/runs/' + props.row.id">{{ props.row.title }}</a>
        <span class="sub">{{ props.row.model }}
            <span v-if="props.row.scripted" class="tag warning">scripted</span></span></q-td>""",
    "state": """<q-td :props="props">
        <span class="state" :data-state="props.row.state">{{ props.row.state }}</span>
        <span class="sub reason" :title="props.row.reason">{{ props.row.reason }}</span></q-td>""",
    "trials": """<q-td :props="props"><span class="number">{{ props.row.decided }} / {{ props.row.trials }}</span>
        <span class="bar" aria-hidden="true"><span :style="{width: props.row.share + '%'}"></span></span></q-td>""",
    "best": """<q-td :props="props"><span class="number">{{ props.row.best }}</span>
        <span class="sub">{{ props.row.metric }}</span></q-td>""",
    "age": """<q-td :props="props"><span class="number">{{ props.row.age }}</span></q-td>""",
}


def register(services: Services, feeds: Feeds) -> None:
    """Serve the page."""

    @ui.page("/")
    def page() -> None:
        feed = feeds.overview
        with frame("Runs", here="/"):
            with box("div", "heading"):
                text("h1", "Runs")
                connection(feed)
                box("span", "space")
                wanted = words_filter("runs", "name, task, state, model")
            remarks, body = box(), box("div", "panel flush")
            with body:
                table = ui.table(rows=[], columns=_COLUMNS, row_key="id").props("flat dense hide-bottom")
                table.classes("list runs")
                for name, cell in _CELLS.items():
                    table.add_slot(f"body-cell-{name}", cell)
            said: list[str] = []

            def draw() -> None:
                view = feed.view
                rows = [_row(row) for row in view.rows if row.mentions(wanted.value or "")]
                body.set_visibility(bool(rows))
                if rows != table.rows:
                    table.rows = rows
                lines = _remarks(len(view.rows), len(rows), view.read, str(view.outer_problem or ""))
                if lines != said:
                    said[:] = lines
                    remarks.clear()
                    with remarks:
                        _remark(lines)

            wanted.on_value_change(draw)
            follow(feed, draw)


def _row(row: RunRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "title": row.title,
        "model": row.model,
        "scripted": row.scripted,
        "state": row.state,
        "reason": row.reason,
        "task": row.task,
        "decided": row.decided,
        "trials": row.trials,
        "share": round(100 * row.decided / row.trials) if row.trials else 0,
        "best": wording.metric(row.best),
        "metric": f"{row.metric}, {row.unit}" if row.unit else row.metric,
        "gain": wording.gain(row.gain),
        "confirmed": row.confirmed,
        "campaign": row.campaign or wording.NOTHING,
        "created": row.created,
        "age": age(row.created),
    }


def _remarks(listed: int, shown: int, read: bool, outer_problem: str) -> list[str]:
    lines = []
    if read and not listed:
        lines.append("empty")
    elif listed and not shown:
        lines.append("none")
    if listed >= LISTED:
        lines.append(f"The newest {LISTED} runs are listed; `bilevel runs` lists all.")
    if outer_problem:
        lines.append(outer_problem)
    return lines


def _remark(lines: list[str]) -> None:
    for line in lines:
        if line == "empty":
            empty(
                "No run yet",
                "A run searches over one task; it appears here as soon as it is created. Start one with:",
                command="bilevel run --trials 30",
            )
        elif line == "none":
            empty("No run matches", "Clear the filter to see all of them.")
        else:
            notice(*line.split("\n"), kind="warning")
