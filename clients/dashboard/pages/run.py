"""A run as it goes on: the best so far, what is being evaluated, the newest trials, and what changed the search."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nicegui import ui

from clients import wording
from clients.dashboard import charts
from clients.dashboard.elements import MARKS, Facts, box, button, empty, link, text
from clients.dashboard.feeds import Feeds, StreamFeed
from clients.dashboard.frame import follow
from clients.dashboard.panels.trial_table import rows, trial_table
from clients.dashboard.projection.moments import Moment
from clients.dashboard.projection.run import RunView
from clients.dashboard.projection.training import Training, curve_metric
from clients.dashboard.run_frame import run_frame
from clients.dashboard.services import Services

RECENT = 8
"""Newest trials on this page."""
MOMENTS = 6
"""Newest moments on this page."""
TRAINED = 8
"""Most curves of trials that run at the same time."""
MEASURED = 4
"""Most measurements beside the progress of a trial."""


def register(services: Services, feeds: Feeds) -> None:
    """Serve the page."""

    @ui.page("/runs/{run_id}")
    def page(run_id: str) -> None:
        with run_frame(services, feeds, run_id, "") as feed:
            with box("div") as content:
                draws: list[Callable[[], None]] = [_facts(feed), _best_so_far(run_id, feed)]
                with box("div", "columns"):
                    with box("div", "panel flush"):
                        with box("div", "panel-head"):
                            text("h2", "Newest trials")
                            link("All trials", f"/runs/{run_id}/trials")
                        draws.append(_newest(run_id, feed))
                    with box("div"):
                        draws += [_current(feed), _moments(feed)]

            def draw() -> None:
                content.set_visibility(feed.ready)
                if feed.ready:
                    for each in draws:
                        each()

            follow(feed, draw)


def _facts(feed: StreamFeed[RunView]) -> Callable[[], None]:
    with box("div", "panel"):
        shown = Facts("big")

    def draw() -> None:
        view = feed.view
        spending = view.spending
        shown.set("Trials", f"{view.decided:,} / {view.spec.max_trials:,}")
        shown.set("Best", wording.metric(view.best_metric))
        shown.set("Baseline", wording.metric(view.baseline_metric))
        shown.set("Gain", wording.gain(view.search_gain))
        shown.set("Confirmed gain", wording.interval(view.confirmation))
        shown.set("Time", wording.duration(view.clock))
        shown.set("Tokens", f"{spending.prompt_tokens + spending.completion_tokens:,}")
        shown.set("Cost", wording.cost(spending.cost_usd, scripted=spending.scripted_calls > 0))

    return draw


def _best_so_far(run_id: str, feed: StreamFeed[RunView]) -> Callable[[], None]:
    seconds = False
    drawn: object = None

    def open_trial(event: Any) -> None:
        if isinstance(event.value, list) and len(event.value) > 2 and isinstance(event.value[2], int | float):
            ui.navigate.to(f"/runs/{run_id}/trials/{int(event.value[2])}")

    def turn(wanted: bool) -> None:
        nonlocal seconds
        seconds = wanted
        for element, pressed in ((by_trial, not wanted), (by_time, wanted)):
            element.props["aria-pressed"] = "true" if pressed else "false"
            element.update()
        draw()

    with box("div", "panel"):
        with box("div", "panel-head"):
            text("h2", "Best so far")
            direction = text("span", "", "quiet")
            box("span", "space")
            with box("div", "switch") as switch:
                by_trial, by_time = button("Trials", lambda: turn(False)), button("Time", lambda: turn(True))
            switch.props.update({"role": "group", "aria-label": "What the chart runs over"})
        chart = ui.echart(charts.best_so_far([], [], None, maximize=False, metric=""), open_trial, renderer="svg")
        chart.classes("chart")
        chart.props["role"] = "img"
        _legend()

    def draw() -> None:
        nonlocal drawn
        view = feed.view
        now = (len(view.points), len(view.moments), seconds)
        if now == drawn:
            return
        drawn = now
        objective = view.task.objective
        options = charts.best_so_far(
            view.points,
            view.moments,
            view.baseline_metric,
            maximize=view.maximize,
            metric=objective.metric,
            seconds=seconds,
        )
        chart.options.clear()
        chart.options.update(options)
        said = (
            f"Best {objective.metric} so far: {wording.metric(view.best_metric)} after {view.decided} trials, "
            f"baseline {wording.metric(view.baseline_metric)}"
        )
        chart.props["aria-label"] = said
        chart.update()
        unit = f", {objective.unit}" if objective.unit else ""
        direction.text = f"{objective.metric}{unit}, {'higher' if view.maximize else 'lower'} is better"

    turn(False)
    return draw


def _legend() -> None:
    with box("div", "legend"):
        for kind in ("baseline", "kept", "discarded", "failed", "refused"):
            with box("span", f"mark mark-{kind}"):
                text("span", MARKS[kind], "shape").props["aria-hidden"] = "true"
                text("span", kind)
        for kind, words in (("configuration", "level 1.5"), ("mechanism", "level 2"), ("person", "a person")):
            with box("span", f"mark moment-{kind}"):
                text("span", "▾", "shape").props["aria-hidden"] = "true"
                text("span", words)


def _current(feed: StreamFeed[RunView]) -> Callable[[], None]:
    drawn: object = None
    with box("div", "panel"):
        text("h2", "Being evaluated")
        bars = box("div", "running")
        chart = ui.echart(charts.training([], ("", ()), TRAINED), renderer="svg").classes("chart small")
        caption = text("p", "", "sub")

    def draw() -> None:
        nonlocal drawn
        view = feed.view
        running = [view.training[number] for number in view.open][:TRAINED]
        now = ([(one.number, one.fraction, one.step, one.phase) for one in running], view.state, view.incumbent)
        if now == drawn:
            return
        drawn = now
        bars.clear()
        with bars:
            for place, one in enumerate(running):
                _bar(one, place)
            if not running:
                text("p", _idle(view), "quiet")
        metric = curve_metric(running, view.task.intermediate_metric)
        reference = view.training.get(view.incumbent) if view.incumbent is not None else None
        chart.set_visibility(bool(metric))
        if metric:
            curves = [(f"trial {one.number}", one.curve(metric)) for one in running]
            before = (f"incumbent, trial {view.incumbent}", reference.curve(metric) if reference is not None else [])
            chart.options.clear()
            chart.options.update(charts.training(curves, before, TRAINED))
            chart.update()
        caption.text = f"{metric}; the grey line is the incumbent, trial {view.incumbent}" if metric else ""

    return draw


def _bar(one: Training, place: int) -> None:
    with box("div", "progress"):
        with box("div", "progress-head"):
            name = text("span", f"Trial {one.number}", "strong")
            name.style(f"border-color: var(--series-{place % charts.SERIES + 1})")
            text("span", one.phase or "starting", "quiet")
            box("span", "space")
            text("span", f"{one.fraction:.0%}", "number")
        with box("div", "bar wide") as bar:
            box("span").style(f"width: {100 * min(1.0, one.fraction):.1f}%")
        bar.props.update(
            {"role": "progressbar", "aria-valuenow": round(100 * one.fraction), "aria-label": f"Trial {one.number}"}
        )
        measured = [f"{name} {_number(value)}" for name, value in sorted(one.newest.items())[:MEASURED]]
        text("span", "  ·  ".join([f"step {one.step:,}", wording.duration(one.elapsed), *measured]), "sub")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _idle(view: RunView) -> str:
    words = wording.run_state(view.state)
    return {
        "created": "Nothing yet: the run was not started.",
        "running": "Between trials: the next one is being proposed.",
        "confirming": "The best configuration is measured again on fresh seeds.",
        "paused": "Nothing: the run is paused.",
    }.get(words, f"Nothing: the run is {words}.")


def _newest(run_id: str, feed: StreamFeed[RunView]) -> Callable[[], None]:
    table = trial_table(run_id, feed).props("hide-bottom")
    nothing = box("div")
    with nothing:
        empty("No trial yet", "The first one measures the starting configuration: the baseline.")

    def draw() -> None:
        view = feed.view
        newest = sorted(view.trials)[-RECENT:][::-1] if len(view.trials) <= RECENT else _last(view)
        shown = rows(run_id, view, newest)
        if table.rows != shown:
            table.rows = shown
        nothing.set_visibility(not shown)

    return draw


def _last(view: RunView) -> list[int]:
    numbers = reversed(view.trials)
    return [number for number, _ in zip(numbers, range(RECENT), strict=False)]


def _moments(feed: StreamFeed[RunView]) -> Callable[[], None]:
    drawn = -1
    with box("div", "panel"):
        text("h2", "What changed the search")
        place = box("ol", "moments")

    def draw() -> None:
        nonlocal drawn
        view = feed.view
        if len(view.moments) == drawn:
            return
        drawn = len(view.moments)
        place.clear()
        with place:
            for moment in reversed(view.moments[-MOMENTS:]):
                _moment(moment, view.created)
            if not view.moments:
                text("li", "Nothing yet: level 1.5, level 2 and people are listed here when they act.", "quiet")

    return draw


def _moment(moment: Moment, created: float) -> None:
    at = time.strftime("%H:%M", time.gmtime(created + moment.seconds))
    with box("li", f"moment-{moment.kind}"):
        text("span", "▾", "shape").props["aria-hidden"] = "true"
        with box("div"):
            text("span", moment.title, "strong")
            text("span", f"after trial {moment.after}, {at} UTC", "sub")
            if moment.detail:
                text("span", moment.detail, "sub clamp")
