"""A piece of a page that is drawn anew only when what it shows has changed: what is open in it stays open till then."""

from __future__ import annotations

from collections.abc import Callable

from clients.dashboard.elements import box


class Part:
    """Made where it stands on the page."""

    def __init__(self, classes: str = "") -> None:
        self._box = box("div", classes)
        self._shown: object = self

    def draw(self, shown: object, build: Callable[[], None]) -> None:
        """Let ``build`` draw it, unless ``shown`` (everything that the drawing depends on) is what it was."""
        if shown != self._shown:
            self._shown = shown
            self._box.clear()
            with self._box:
                build()
