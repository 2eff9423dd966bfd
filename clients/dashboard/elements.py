"""The building blocks of all pages. Text is always text: none of them renders HTML or Markdown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from clients.wording import visible
from service_kit.errors import ServiceError

MARKS = {
    "kept": "●",
    "baseline": "■",
    "discarded": "○",
    "failed": "✕",
    "refused": "◇",
    "running": "◐",
    "waiting": "◌",
}
"""A shape for each kind of outcome, so that colour is never all that tells them apart."""


def text(tag: str, content: str, classes: str = "") -> TextElement:
    """An element with text in it, in which characters that would hide or turn round others are spelled out."""
    element = TextElement(tag=tag, text=visible(content))
    if classes:
        element.classes(classes)
    return element


def box(tag: str = "div", classes: str = "") -> Element:
    """An element with children: ``with box("section", "panel"):``."""
    element = ui.element(tag)
    if classes:
        element.classes(classes)
    return element


def link(content: str, href: str, classes: str = "") -> TextElement:
    """A link within the dashboard."""
    element = text("a", content, classes)
    element.props["href"] = href
    return element


def button(content: str, on_click: Callable[[], Any], *, kind: str = "", key: str = "", hint: str = "") -> TextElement:
    """A button.

    Args:
        content: What it says.
        on_click: What it does.
        kind: "" for an ordinary one, "primary" or "danger".
        key: Keyboard shortcut: a single key.
        hint: More words, for a pointer at rest and for screen readers.
    """
    element = text("button", content, f"button {kind}".strip())
    element.props["type"] = "button"
    if key:
        element.props["aria-keyshortcuts"] = key
    if hint:
        element.props["title"] = hint
    element.on("click", on_click)
    return element


def disable(element: Element, reason: str) -> None:
    """Mark a button as disabled and say why, or enable it again where ``reason`` is empty.

    It keeps the focus, so that the reason can be read with a keyboard too; what it does must check for itself.
    """
    if (
        element.props.get("aria-disabled", "") == ("true" if reason else "")
        and element.props.get("title", "") == reason
    ):
        return
    for name, value in (("aria-disabled", "true" if reason else ""), ("title", reason)):
        if value:
            element.props[name] = value
        else:
            element.props.pop(name, None)
    element.update()


def mark(kind: str, words: str = "") -> Element:
    """The shape of an outcome with its words."""
    with box("span", f"mark mark-{kind}") as element:
        text("span", MARKS.get(kind, "·"), "shape").props["aria-hidden"] = "true"
        if words:
            text("span", words)
    return element


def tag(words: str, kind: str = "") -> TextElement:
    """A small label."""
    return text("span", words, f"tag {kind}".strip())


class Facts:
    """Names and values, side by side; :meth:`set` changes one or adds it."""

    def __init__(self, classes: str = "") -> None:
        self._list = box("dl", f"facts {classes}".strip())
        self._values: dict[str, TextElement] = {}

    def set(self, name: str, value: str) -> None:
        """Show ``value`` under ``name``; what has not changed is not sent again."""
        if name in self._values:
            self._values[name].text = value
            return
        with self._list, box("div"):
            text("dt", name)
            self._values[name] = text("dd", value)


def facts(pairs: Iterable[tuple[str, str]], classes: str = "") -> None:
    """Names and values that stay as they are."""
    shown = Facts(classes)
    for name, value in pairs:
        shown.set(name, value)


def notice(title: str, *lines: str, kind: str = "") -> Element:
    """A remark that stands out: ``kind`` is "", "warning" or "error"."""
    with box("div", f"notice {kind}".strip()) as element:
        element.props["role"] = "alert" if kind == "error" else "status"
        text("strong", title)
        for line in lines:
            if line:
                text("p", line)
    return element


def problem(error: ServiceError, title: str = "") -> Element:
    """An error: why, and what to do next."""
    return notice(title or error.message, error.message if title else "", error.hint, kind="error")


def empty(title: str, *lines: str, command: str = "") -> Element:
    """What stands where there is nothing yet, with what to do next."""
    with box("div", "empty") as element:
        text("h2", title)
        for line in lines:
            text("p", line)
        if command:
            text("code", command, "command")
    return element


def column(name: str, label: str, *, field: str = "", right: bool = False, sortable: bool = False) -> dict[str, Any]:
    """A column of a table of rows; ``field`` is the row's, where it is not called as the column is."""
    return {
        "name": name,
        "label": label,
        "field": field or name,
        "align": "right" if right else "left",
        "sortable": sortable,
        "classes": f"cell-{name}",
    }


def age(moment: float) -> str:
    """How long ago a Unix time was, in a word or two."""
    seconds = max(0.0, time.time() - moment)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"


def words_filter(what: str, among: str, *, debounce: int = 0) -> ui.input:
    """A field that filters ``what`` by words ``among`` it; the key / leads to it. ``debounce`` in milliseconds."""
    wait = f" debounce={debounce}" if debounce else ""
    return ui.input(placeholder=f"Filter by {among}").props(
        f'dense outlined clearable type=search{wait} aria-label="Filter {what}" aria-keyshortcuts=/'
    )


def by_trial(run_id: str, columns: Sequence[str], rows: Iterable[tuple[int, Sequence[str]]]) -> None:
    """A table of what differed from trial to trial; its first column leads to each trial's page."""
    with box("div", "scroll"), box("table", "plain-table left"):
        with box("thead"), box("tr"):
            for name in ("trial", *columns):
                text("th", name).props["scope"] = "col"
        with box("tbody"):
            for trial, cells in rows:
                with box("tr"):
                    with box("td"):
                        link(str(trial), f"/runs/{run_id}/trials/{trial}")
                    for cell in cells:
                        text("td", cell)
