"""A terminal that a person sits at: the command in a real pseudo-terminal, its screen as a terminal would draw it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pyte

SHOW_CURSOR, LEAVE_ALTERNATE = "\x1b[?25h", "\x1b[?1049l"
_UNKNOWN = re.compile(r"\x1b(\[[<>=][0-9;]*[a-zA-Z]|\[\?[0-9;]*\$p|P[^\x1b]*\x1b\\|\[[0-9;]*\$[a-z])")
"""Sequences of newer terminals that pyte does not take."""


class Terminal:
    """One process at one terminal. ``text`` is what is on the screen, ``raw`` all that was ever written to it."""

    def __init__(
        self, command: Sequence[str], columns: int, rows: int, *, folder: Path, environment: Mapping[str, str]
    ):
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self.screen)
        self.raw = ""
        self.process = pexpect.spawn(
            command[0], list(command[1:]), cwd=str(folder), env=dict(environment), dimensions=(rows, columns),
            encoding="utf-8", codec_errors="replace", timeout=None, preexec_fn=_with_ctrl_c,
        )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, *words: str, seconds: float = 30) -> str:
        """Draw until all the words are on the screen at once; fails with what is there instead."""
        self.until(lambda: all(re.search(word, self.text, re.MULTILINE) for word in words), str(words), seconds)
        return self.text

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """Draw until the condition holds; fails with what is on the screen instead."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what} did not appear within {seconds:g} s:\n{self.text}"
            assert self.draw() or not self.ended, f"the command ended without {what}:\n{self.text}"

    def draw(self, seconds: float = 0.05) -> bool:
        """Take what was written in the meantime; whether there was anything."""
        try:
            written = self.process.read_nonblocking(65536, seconds)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return False
        self.raw += written
        self._stream.feed(_UNKNOWN.sub("", written))
        return True

    @property
    def ended(self) -> bool:
        return not self.process.isalive()

    def press(self, keys: str) -> None:
        self.process.send(keys)

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        self.process.setwinsize(rows, columns)

    def finish(self, seconds: float = 40) -> int:
        """Draw until the command has ended; returns its exit code, or the number of a signal, negative."""
        end = time.monotonic() + seconds
        while self.draw() or not self.ended:
            assert time.monotonic() < end, f"the command did not end within {seconds:g} s:\n{self.text}"
        if self.process.exitstatus is not None:
            return int(self.process.exitstatus)
        return -int(self.process.signalstatus or 0)

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was: no alternate screen, and a cursor."""
        return self.raw.rfind(LEAVE_ALTERNATE) > self.raw.rfind("\x1b[?1049h") and self.raw.rfind(
            SHOW_CURSOR
        ) > self.raw.rfind("\x1b[?25l")


@contextmanager
def at_terminal(
    command: Sequence[str], columns: int, rows: int, *, folder: Path, environment: Mapping[str, str]
) -> Iterator[Terminal]:
    """The command at a terminal of that size, killed at the end of the block where it still runs."""
    inherited = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    chosen = {name: value for name, value in environment.items() if name == "NO_COLOR" and value}
    terminal = Terminal(command, columns, rows, folder=folder,
                        environment={**inherited, **chosen, "TERM": "xterm-256color", "LANG": "C.UTF-8"})  # fmt: skip
    try:
        yield terminal
    finally:
        if terminal.process.isalive():
            os.killpg(os.getpgid(terminal.process.pid), signal.SIGKILL)
        terminal.process.close(force=True)


def _with_ctrl_c() -> None:
    """What a test starts in a background job inherits that Ctrl-C is ignored; what a person starts obeys it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
