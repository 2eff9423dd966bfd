"""Python source with colours: the one place where text becomes HTML. Pygments escapes it, DOMPurify looks again."""

from __future__ import annotations

from collections.abc import Collection

from nicegui import ui
from nicegui.element import Element
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from clients.dashboard.elements import box, text
from clients.wording import visible

MOST_CHARACTERS = 200_000
"""Longer texts are shown without colours."""


def markup(source: str, marked: Collection[int] = ()) -> str:
    """``source`` as escaped HTML, a span for each line; the lines of the numbers ``marked``, from 1, stand out."""
    lines = highlight(
        visible(source), PythonLexer(stripnl=False), HtmlFormatter(nowrap=True, classprefix="py-")
    ).splitlines()
    return "\n".join(
        f'<span class="line{" marked" if number in marked else ""}">{line}</span>'
        for number, line in enumerate(lines, start=1)
    )


def code(source: str, marked: Collection[int] = (), label: str = "Source") -> Element:
    """A block of Python with numbered lines that scrolls by itself and can be reached by keyboard."""
    if len(source) > MOST_CHARACTERS:
        return plain(source, label)
    with _scrolling("div", label, "code") as element:
        ui.html(markup(source, marked), sanitize=True, tag="pre")
    return element


def plain(content: str, label: str = "Text") -> Element:
    """Text as it is, line for line."""
    with _scrolling("div", label, "code") as element:
        text("pre", content, "plain")
    return element


def _scrolling(tag: str, label: str, classes: str) -> Element:
    element = box(tag, classes)
    element.props.update({"tabindex": "0", "role": "region", "aria-label": label})
    return element
