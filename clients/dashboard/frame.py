"""What every page has: header, navigation, theme, shortcuts, and the redrawing of what follows a feed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from nicegui import app, ui

from clients.dashboard.elements import box, link, notice, problem, text
from clients.dashboard.feeds import Feed, Status
from clients.dashboard.permission import visitor
from service_kit.errors import RemoteError

STATIC = Path(__file__).parent / "static"
REDRAW = 0.5
"""Seconds between two looks at a feed: a page changes at most so often."""

NAVIGATION = (
    ("Runs", "/", "r"),
    ("Compare", "/compare", "c"),
    ("Lessons", "/lessons", "l"),
    ("Library", "/library", "b"),
)
"""Label, address and key of each page in the header."""

RUN_TABS = (
    ("Search", "", "1"),
    ("Trials", "/trials", "2"),
    ("Mechanisms", "/mechanisms", "3"),
    ("Research", "/research", "4"),
    ("Lessons", "/lessons", "5"),
    ("Cost", "/cost", "6"),
)
"""Label, address below the run's, and key of each page about one run."""

SHORTCUTS = (
    *((key, label) for label, _, key in NAVIGATION),
    *((key, f"{label}, on the pages of a run") for label, _, key in RUN_TABS),
    ("/", "search in the list"),
    ("p", "pause or resume the run"),
    ("g", "give guidance to the run"),
    ("t", "theme: as the system, light, dark"),
    ("?", "these shortcuts"),
)
"""Key and meaning; what a key does is what the element with that ``aria-keyshortcuts`` does."""

STATUS_WORDS = {
    Status.CONNECTING: "connecting",
    Status.LIVE: "live",
    Status.LOST: "connection lost, trying again",
    Status.ENDED: "ended",
    Status.REFUSED: "refused",
}


def serve_static() -> None:
    """Serve the style sheet and the script, and name them in every page's head. Once an application."""
    app.add_static_files("/dashboard-static", STATIC)
    stamp = max(int(file.stat().st_mtime) for file in STATIC.iterdir())
    names = sorted(sheet.name for sheet in STATIC.glob("*.css"))
    sheets = "".join(f'<link rel="stylesheet" href="/dashboard-static/{name}?{stamp}">' for name in names)
    ui.add_head_html(f'{sheets}<script src="/dashboard-static/dashboard.js?{stamp}"></script>', shared=True)


@contextlib.contextmanager
def frame(title: str, *, here: str = "") -> Iterator[ui.element]:
    """The page around its content: ``with frame("Runs", here="/"):``.

    Args:
        title: Title of the browser's window.
        here: Address of the header's link that is current.
    """
    ui.page_title(f"{title} · Bilevel")
    with box("header", "top"):
        with link("", "/", "brand") as brand:
            text("span", "◆", "brand-mark").props["aria-hidden"] = "true"
            text("span", "Bilevel")
        brand.props["aria-label"] = "Bilevel: all runs"
        with box("nav", "navigation") as navigation:
            navigation.props["aria-label"] = "Pages"
            for label, address, key in NAVIGATION:
                _tab(label, address, key, current=address == here)
        box("span", "space")
        if (someone := visitor()) is not None and someone.by_login:
            link("Log out", "/logout", "button quiet")
        theme = text("button", "Theme", "button quiet theme")
        theme.props.update({"type": "button", "data-theme-toggle": True, "aria-keyshortcuts": "t"})
        dialog = _shortcuts()
        keys = text("button", "Keys", "button quiet keys").on("click", dialog.open)
        keys.props.update({"type": "button", "aria-keyshortcuts": "?", "title": "keyboard shortcuts"})
    with box("div", "content") as main:  # Quasar has put a <main> around it
        main.props["id"] = "content"
        yield main
    ui.skip_link("Skip to the content", target=main)


def run_tabs(run_id: str, current: str) -> None:
    """The links between the pages of one run; ``current`` is one of RUN_TABS' addresses."""
    with box("nav", "tabs") as tabs:
        tabs.props["aria-label"] = "Pages of this run"
        for label, address, key in RUN_TABS:
            _tab(label, f"/runs/{run_id}{address}", key, current=address == current)


def follow(feed: Feed, draw: Callable[[], None]) -> None:
    """Call ``draw`` now and whenever the feed has changed, at most once in REDRAW seconds, while the page is open."""
    drawn = -1

    def look() -> None:
        nonlocal drawn
        version = feed.look()
        if version != drawn:
            drawn = version
            draw()

    look()
    ui.timer(REDRAW, look)


def connection(feed: Feed) -> None:
    """How the feed stands with its service: a word, and the reason where there is one."""
    line = text("span", "", "connection")
    line.props["role"] = "status"
    reason = box("div", "connection-problem")
    shown = ""

    def draw() -> None:
        nonlocal shown
        line.text = STATUS_WORDS[feed.status]
        line.props["data-status"] = str(feed.status)
        line.update()
        said = str(feed.problem) if feed.problem is not None else ""
        if said != shown:
            shown = said
            reason.clear()
            if feed.problem is not None:
                with reason:
                    if isinstance(feed.problem, RemoteError) and feed.problem.code == "NOT_FOUND":
                        notice(feed.problem.message, "It never was there, or is no longer.", kind="error")
                        link("All runs", "/")
                    else:
                        problem(feed.problem)

    follow(feed, draw)


def _tab(label: str, address: str, key: str, *, current: bool) -> None:
    element = link(label, address)
    element.props["aria-keyshortcuts"] = key
    if current:
        element.props["aria-current"] = "page"


def _shortcuts() -> ui.dialog:
    with ui.dialog() as dialog, box("div", "sheet"):
        text("h2", "Keyboard")
        with box("dl", "keys"):
            for key, meaning in SHORTCUTS:
                with box("div"):
                    with box("dt"):
                        text("kbd", key)
                    text("dd", meaning)
        with box("div", "actions"):
            text("button", "Close", "button").on("click", dialog.close).props["type"] = "button"
    return dialog
