"""Several runs on one page: best-so-far curves over trials or time, and a table."""

from __future__ import annotations

from dataclasses import asdict

from nicegui import ui

from clients.dashboard import charts
from clients.dashboard.elements import box, button, column, disable, empty, notice, text
from clients.dashboard.feeds import Feeds, Status, StreamFeed
from clients.dashboard.frame import connection, follow, frame
from clients.dashboard.projection.comparison import LIMIT, chosen, one_scale, row
from clients.dashboard.projection.run import RunView
from clients.dashboard.services import Services

_COLUMNS = [
    column("title", "Run"),
    column("state", "State"),
    column("trials", "Trials", right=True),
    column("baseline", "Baseline", right=True),
    column("best", "Best", right=True),
    column("gain", "Gain", right=True),
    column("confirmed", "Confirmed gain", right=True),
    column("best_at", "Best found at", right=True),
    column("kept", "Kept", right=True),
    column("mechanisms", "Mechanisms", right=True),
    column("tokens", "Tokens", right=True),
]
_TITLE = """<q-td :props="props"><span class="swatch" :style="{background: props.row.colour}" aria-hidden="true"></span>
    <a class="row-link" :href="'/runs/' + props.row.id">{{ props.row.title }}</a>
    <span v-if="props.row.scripted" class="tag warning">scripted</span></q-td>"""


def register(services: Services, feeds: Feeds) -> None:
    """Serve the page."""

    @ui.page("/compare")
    def page(runs: str = "") -> None:
        ids, beyond = chosen(runs)
        with frame("Compare", here="/compare"):
            with box("div", "heading"):
                text("h1", "Compare runs")
                if not ids:
                    connection(feeds.overview)
                box("span", "space")
                _chooser(feeds, ids)
            if beyond:
                notice(f"At most {LIMIT} runs are compared at the same time.", f"Left out: {', '.join(beyond)}.")
            if not ids:
                empty("No run chosen", "Choose two runs or more above; the address of this page then names them.")
                return
            _compared(ids, [feeds.run(f"runs/{run_id}") for run_id in ids])


def _chooser(feeds: Feeds, ids: list[str]) -> None:
    """The list of runs; a choice opens the page that compares them."""
    overview = feeds.overview
    wanted = ui.select({run_id: run_id for run_id in ids}, value=list(ids), multiple=True, label="Runs")
    wanted.props("dense outlined options-dense use-chips aria-label='Runs to compare'").classes("runs-chosen")

    def fill() -> None:
        listed = {row.id: f"{row.title}  ({row.id})" for row in overview.view.rows}
        options = {run_id: run_id for run_id in ids} | listed
        if options != wanted.options:
            wanted.set_options(options)

    button("Compare", lambda: ui.navigate.to(f"/compare?runs={','.join(wanted.value or [])}"), kind="primary")
    follow(overview, fill)


def _compared(ids: list[str], followed: list[StreamFeed[RunView]]) -> None:
    seconds, relative = False, False
    drawn: object = None

    def turn(*, by_time: bool | None = None, gains: bool | None = None) -> None:
        nonlocal seconds, relative
        seconds = seconds if by_time is None else by_time
        relative = relative if gains is None else gains
        draw()

    problems = box("div")
    with box("div", "panel"):
        with box("div", "panel-head"):
            text("h2", "Best so far")
            remark = text("span", "", "quiet")
            box("span", "space")
            with box("div", "switch"):
                over = [button("Trials", lambda: turn(by_time=False)), button("Time", lambda: turn(by_time=True))]
            with box("div", "switch"):
                what = [button("Metric", lambda: turn(gains=False)), button("Gain", lambda: turn(gains=True))]
            switches = over + what
        chart = ui.echart({}, renderer="svg").classes("chart")
        chart.props.update({"role": "img", "aria-label": "Best so far of each run; the table below has the numbers"})
    with box("div", "panel flush"):
        table = (
            ui.table(rows=[], columns=_COLUMNS, row_key="id").props("flat dense hide-bottom").classes("list compared")
        )
        table.add_slot("body-cell-title", _TITLE)

    def show_switches(apart: str) -> None:
        gains = relative or bool(apart)
        for element, pressed in zip(switches, (not seconds, seconds, not gains, gains), strict=True):
            element.props["aria-pressed"] = "true" if pressed else "false"
            element.update()
        disable(what[0], apart)

    def draw() -> None:
        nonlocal drawn
        now = ([(f.status, f.behind, len(f.view.points), f.view.state) for f in followed], seconds, relative)
        if now == drawn:
            return
        drawn = now
        known = [(run_id, f.view) for run_id, f in zip(ids, followed, strict=True) if f.ready]
        apart = one_scale([view for _, view in known])
        show_switches(apart)
        chart.options.clear()
        chart.options.update(
            charts.comparison(
                [(view.spec.display_name or run_id, view.points, view.maximize) for run_id, view in known],
                seconds=seconds,
                relative=relative or bool(apart),
            )
        )
        chart.update()
        remark.text = apart
        table.rows = [asdict(row(id_, view)) | {"colour": _colour(place)} for place, (id_, view) in enumerate(known)]
        problems.clear()
        with problems:
            _problems(ids, followed)

    turn()
    for feed in followed:
        follow(feed, draw)


def _problems(ids: list[str], followed: list[StreamFeed[RunView]]) -> None:
    for run_id, feed in zip(ids, followed, strict=True):
        if feed.problem is not None:
            lost = feed.status is Status.LOST
            title = f"{run_id}: {'connection lost, trying again' if lost else feed.problem.message}"
            notice(title, feed.problem.message if lost else "", feed.problem.hint, kind="warning" if lost else "error")
        elif feed.behind:
            text("p", f"{run_id}: reading {feed.view.last_sequence:,} of {feed.newest:,} events", "quiet")


def _colour(place: int) -> str:
    return f"var(--series-{place % charts.SERIES + 1})"
