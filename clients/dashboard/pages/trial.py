"""One trial of a run, as a page of its own that can be linked to."""

from __future__ import annotations

from nicegui import ui

from clients.dashboard.elements import box, empty, link
from clients.dashboard.feeds import Feeds
from clients.dashboard.frame import follow, frame
from clients.dashboard.panels.trial_detail import trial_detail
from clients.dashboard.run_frame import run_frame
from clients.dashboard.services import Services


def register(services: Services, feeds: Feeds) -> None:
    """Serve the page."""

    @ui.page("/runs/{run_id}/trials/{number}")
    def page(run_id: str, number: str) -> None:
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            with frame("No such trial", here="/"):
                empty(f"No trial {number}", "Trials have numbers, from 0 on.")
                link("All trials of the run", f"/runs/{run_id}/trials")
            return
        show(run_id, int(number))

    def show(run_id: str, number: int) -> None:
        with run_frame(services, feeds, run_id, "/trials") as feed:
            panel = box("div", "panel narrow")
            drawn: object = None

            def draw() -> None:
                nonlocal drawn
                view = feed.view
                trial, training = view.trials.get(number), view.training.get(number)
                now = (
                    trial.SerializeToString(deterministic=True) if trial is not None else None,
                    training.fraction if training is not None else 0.0,
                )
                panel.set_visibility(feed.ready)
                if not feed.ready or now == drawn:
                    return
                drawn = now
                panel.clear()
                with panel:
                    trial_detail(run_id, view, number)

            follow(feed, draw)
