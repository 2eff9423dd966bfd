"""The screen. Keys, scrolling, resizing and restoring the terminal are Textual's; what is shown comes from feeds."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import ClassVar

from bilevel.v1 import outer_pb2, trace_pb2
from rich.console import RenderableType
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, Static

from clients import wording
from clients.campaign_history import CampaignHistory
from clients.cli.screen import sections
from clients.cli.screen.plot import MARKS, MOMENTS, plot
from clients.dashboard.feeds import Status, StreamFeed
from clients.dashboard.projection.controls import refusals
from clients.dashboard.projection.run import RunView
from clients.history import TERMINAL
from clients.inner import InnerClient
from clients.outer import OuterClient
from service_kit.errors import RemoteError, ServiceError

_REFRESH = 0.25
"""Seconds between two looks at the feeds."""
_SEARCH = 3.0
"""Seconds between two questions for the run's campaign."""
_TALL = 32
"""Rows from which on there is room for a larger curve and more acts."""
_TRIALS = 200
"""Newest decided trials that can be scrolled to."""
_ACTS = (3, 8)
"""Newest acts of the outer loop, in little room and in much."""


@dataclass
class CampaignLog(CampaignHistory):
    """A campaign with its newest events."""

    recent: deque[outer_pb2.CampaignEvent] = field(default_factory=lambda: deque(maxlen=4 * _ACTS[1]))

    def apply(self, event: outer_pb2.CampaignEvent) -> None:
        super().apply(event)
        self.recent.append(event)


class Help(ModalScreen[None]):
    """Keys, and what the marks mean."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark", "dismiss", "close")]

    def compose(self) -> ComposeResult:
        marks = "  ".join(f"{glyph} {name}" for name, (glyph, _) in MARKS.items())
        acts = "  ".join(f"{glyph} {name}" for name, (glyph, _) in MOMENTS.items())
        yield Static(
            "q       leave; the run goes on\n"
            "p       pause the run after its current trials, or go on\n"
            "↑ ↓ j k scroll; PgUp PgDn Home End too\n"
            "?       this help; Esc closes it\n\n"
            f"trials: {marks}\n"
            f"what changed the search: {acts}",
            id="help",
            markup=False,
        )


class WatchApp(App[ServiceError | None]):
    """One run until somebody leaves; returns why the service refused to show it, or None."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    #head { height: 4; padding: 0 1; }
    #head Static { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    #body { padding: 0 1; scrollbar-size-vertical: 1; }
    #body Static { width: 100%; height: auto; }
    .title { text-style: bold; }
    .-tall .title { margin-top: 1; }
    Help { align: center middle; }
    #help { width: auto; max-width: 100%; height: auto; padding: 1 2; border: round $accent; }
    """
    VERTICAL_BREAKPOINTS = [(0, "-short"), (_TALL, "-tall")]  # noqa: RUF012 (so Textual declares it)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", "quit"),
        Binding("p", "pause", "pause/resume"),
        Binding("j,down", "scroll(1)", "down", key_display="↓ j"),
        Binding("k,up", "scroll(-1)", "up", key_display="↑ k"),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("home,g", "edge(-1)", show=False),
        Binding("end,G", "edge(1)", show=False),
        Binding("ctrl+c,ctrl+q", "interrupt", show=False, priority=True),
    ]

    def __init__(self, run: str, inner: InnerClient, outer: OuterClient) -> None:
        super().__init__(ansi_color=True)
        self.interrupted = False
        """Whether it was left with Ctrl-C."""
        self._run_name, self._inner, self._outer = run, inner, outer

        def watch(after: int) -> AsyncIterator[trace_pb2.TraceEvent]:
            return inner.watch_trace(run, after, patience=0)

        self.feed: StreamFeed[RunView] = StreamFeed(RunView(), lambda: inner.get_run(run), watch)
        self.above: StreamFeed[CampaignLog] | None = None
        self._asked = False
        """Whether the outer service has said if there is a campaign."""
        self._absent: ServiceError | None = None
        self._lost_since: float | None = None
        self._drawn: tuple[object, ...] = ()
        """What the screen showed when it was drawn last."""

    def compose(self) -> ComposeResult:
        with Vertical(id="head"):
            yield Static(id="headline")
            yield Static(id="numbers")
            yield Static(id="budgets")
            yield Static(id="connection")
        with VerticalScroll(id="body", can_focus=False):
            yield Static(id="plot")
            for name, title in (
                ("current", "current trials"),
                ("mechanisms", "mechanisms"),
                ("outer", "outer loop"),
                ("trials", "trials, newest first"),
            ):
                yield Static(title, classes="title", id=f"{name}-title")
                yield Static(id=name)
        yield Footer()

    async def on_mount(self) -> None:
        self.feed.begin()
        self.run_worker(self._find_campaign(), exit_on_error=True)
        self.set_interval(_REFRESH, self._redraw)
        self._redraw()

    async def on_unmount(self) -> None:
        await self.feed.stop()
        if self.above is not None:
            await self.above.stop()

    def on_resize(self) -> None:
        self._redraw()

    async def _find_campaign(self) -> None:
        """Look for the campaign above the run until there is one: it may begin later, and its service may be away."""
        while self.above is None:
            try:
                found = await self._outer.campaign_of(self._run_name)
                self._asked, self._absent = True, None
            except RemoteError as error:
                found, self._absent = None, error
            if found is not None:
                self.above = self._campaign(found.name)
                self.above.begin()
            elif self.feed.view.state in TERMINAL:
                return
            else:
                await asyncio.sleep(_SEARCH)

    def _campaign(self, name: str) -> StreamFeed[CampaignLog]:
        outer = self._outer

        def watch(after: int) -> AsyncIterator[outer_pb2.CampaignEvent]:
            return outer.watch_campaign(name, after, patience=0)

        return StreamFeed(CampaignLog(), lambda: outer.get_campaign(name), watch)

    @property
    def _main(self) -> Screen[None]:
        """The screen below a help that may lie on it."""
        return self.screen_stack[0]

    @property
    def _body(self) -> VerticalScroll:
        return self._main.query_one("#body", VerticalScroll)

    # What is shown

    def _redraw(self) -> None:
        if self.feed.status is Status.REFUSED:
            self.exit(self.feed.problem)
            return
        view, elapsed = self.feed.view, self._elapsed()
        above = self.above.version if self.above is not None else -1
        drawn = (self.feed.version, above, self.size, int(elapsed), self._connection())
        if drawn == self._drawn:
            return
        self._drawn = drawn
        campaign = self.above.view if self.above is not None else None
        body = self._body
        tall = self.size.height >= _TALL
        width, height = body.size.width - 3, 12 if tall else 7
        self._show("headline", sections.headline(view, elapsed))
        self._show("numbers", sections.numbers(view))
        self._show("budgets", sections.budgets(view, campaign, elapsed))
        self._show("connection", sections.answered(view, campaign, self._connection()))
        if width > 20:
            self._show("plot", plot(view.points, view.moments, view.baseline_metric, maximize=view.maximize,
                                    width=width, height=height))  # fmt: skip
        self._show("current", sections.current(view))
        self._show("mechanisms", sections.mechanisms(view))
        self._show("trials", sections.trials(view, _TRIALS))
        self._show("outer", self._outer_loop(_ACTS[tall]))

    def _show(self, id_: str, content: RenderableType) -> None:
        self._main.query_one(f"#{id_}", Static).update(content)

    def _outer_loop(self, acts: int) -> RenderableType:
        if self.above is not None:
            return sections.outer_loop(self.above.view, list(self.above.view.recent), acts)
        if self._absent is not None:
            return self._absent.message
        return "none supervises this run" if self._asked else "looking for a campaign"

    def _elapsed(self) -> float:
        """Seconds since the run was created: to its end, or to now."""
        view = self.feed.view
        if not view.created:
            return 0.0
        return view.clock if view.state in TERMINAL else max(view.clock, time.time() - view.created)

    def _connection(self) -> str:
        now = time.monotonic()
        away = [name for name, feed in (("inner service", self.feed), ("outer service", self.above))
                if feed is not None and feed.status is Status.LOST]  # fmt: skip
        if away:
            self._lost_since = self._lost_since or now
            since = wording.duration(now - self._lost_since)
            return f"reconnecting to the {' and the '.join(away)} for {since}; what is shown is older"
        self._lost_since = None
        if self.above is not None and self.above.status is Status.REFUSED:
            return f"the outer service refuses: {getattr(self.above.problem, 'message', '')}"
        words = {Status.CONNECTING: "connecting", Status.LIVE: "connected", Status.ENDED: "the run is over; q leaves"}
        return words[self.feed.status]

    # Keys

    def action_leave(self) -> None:
        self.exit(None)

    def action_interrupt(self) -> None:
        self.interrupted = True
        self.exit(None)

    async def action_help(self) -> None:
        await self.push_screen(Help())

    def action_scroll(self, lines: int) -> None:
        self._body.scroll_relative(y=lines, animate=False, immediate=True)

    def action_page(self, pages: int) -> None:
        self._body.scroll_relative(y=pages * max(1, self._body.size.height - 1), animate=False, immediate=True)

    def action_edge(self, side: int) -> None:
        if side < 0:
            self._body.scroll_home(animate=False, immediate=True)
        else:
            self._body.scroll_end(animate=False, immediate=True)

    async def action_pause(self) -> None:
        """Pause a running run, go on with a paused one; say why where neither is possible."""
        view = self.feed.view
        paused = view.state == trace_pb2.RUN_STATE_PAUSED and not view.at_checkpoint
        action = "resume" if paused else "pause"
        if reason := refusals(view)[action]:
            self.notify(reason, markup=False)
            return
        try:
            if action == "pause":
                run = await self._inner.pause_run(self._run_name, "paused in bilevel watch")
                stays = run.state == trace_pb2.RUN_STATE_PAUSED
                self.notify("it stays at its checkpoint" if stays else "it pauses once its current trials are decided")
            else:
                await self._inner.resume_run(self._run_name)
                self.notify("it goes on")
        except ServiceError as error:
            self.notify(str(error), severity="error", markup=False)
