"""Sections that open and close, with content that is sent only when somebody opens them."""

from __future__ import annotations

from collections.abc import Callable

from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from clients.dashboard.elements import box, text


def fold(title: str, build: Callable[[], object], *, note: str = "", classes: str = "fold") -> Element:
    """A closed section; ``build`` makes its content once, inside it, when it is first opened."""
    with box("details", classes) as element:
        heading(title, note)
        content = box("div", "folded")
    built = False

    def opened() -> None:
        nonlocal built
        if not built:
            built = True
            with content:
                build()

    element.on("toggle", opened)
    return element


def heading(title: str, note: str = "") -> TextElement:
    """The line of a section that is always seen; inside a ``details`` element. Returns the note."""
    with box("summary"):
        text("span", title, "fold-title")
        return text("span", note, "fold-note")
