"""What every page about one run has: its title, its state, the controls, and the links between its pages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bilevel.v1 import trace_pb2

from clients import wording
from clients.dashboard.acts.controls import controls
from clients.dashboard.elements import box, tag, text
from clients.dashboard.feeds import Feeds, StreamFeed
from clients.dashboard.frame import connection, follow, frame, run_tabs
from clients.dashboard.projection.run import RunView
from clients.dashboard.services import Services
from clients.history import TERMINAL


@contextlib.contextmanager
def run_frame(services: Services, feeds: Feeds, run_id: str, current: str) -> Iterator[StreamFeed[RunView]]:
    """The page around what it says about the run ``run_id``; yields the run's feed.

    ``current`` is the address of the tab (one of :data:`clients.dashboard.frame.RUN_TABS`).
    """
    run = f"runs/{run_id}"
    feed = feeds.run(run)
    with frame(run_id, here="/"):
        with box("div", "heading"):
            title = text("h1", run_id)
            state = text("span", "", "state")
            scripted = tag("scripted researcher", "warning")
            scripted.props["title"] = "no language model answered: what is shown is no evidence for the method"
            connection(feed)
            box("span", "space")
            controls(services, feed, run)
        reason = text("p", "", "reason-line")
        remark = text("p", "", "notice warning")
        remark.props["role"] = "status"
        run_tabs(run_id, current)

        def draw() -> None:
            view = feed.view
            title.text = view.spec.display_name or run_id
            state.text, reason.text = _state(view), view.state_reason if view.state in TERMINAL else ""
            state.props["data-state"] = wording.run_state(view.state)
            state.update()
            reason.set_visibility(bool(reason.text))
            state.set_visibility(view.last_sequence > 0)
            scripted.set_visibility(view.spending.scripted_calls > 0)
            remark.text = _remark(feed)
            remark.set_visibility(bool(remark.text))

        follow(feed, draw)
        yield feed


def _state(view: RunView) -> str:
    words = wording.run_state(view.state)
    if view.pausing:
        return f"{words}, pauses after its current trials"
    if view.state == trace_pb2.RUN_STATE_PAUSED and view.at_checkpoint:
        return "at a checkpoint"
    if view.state == trace_pb2.RUN_STATE_PAUSED and view.state_reason:
        return view.state_reason if view.state_reason.startswith(words) else f"{words}: {view.state_reason}"
    return words


def _remark(feed: StreamFeed[RunView]) -> str:
    """What must be known before the rest is read; empty where there is nothing."""
    view = feed.view
    if feed.behind:
        return f"Reading the trace: {view.last_sequence:,} of {feed.newest:,} events."
    if view.lost is not None:
        return f"The run {wording.availability(view.lost)}."
    return ""
