"""A page of docs/ as a reader uses it: files to save, lines to type."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SAVE = re.compile(r"[Ss]ave this as `([\w.-]+)`[^`]*\Z", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the file that it is to be saved as, if any."""

    language: str
    text: str
    file: str

    @property
    def commands(self) -> list[list[str]]:
        """What a reader types, one command a line, comments left out."""
        return [words for line in self.text.splitlines() if (words := shlex.split(line, comments=True))]


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of ``docs/PAGE`` in their order."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    for found in _BLOCK.finditer(text):
        before = text[: found.start()].rpartition("```\n")[2]
        saved = _SAVE.search(before)
        yield Block(found[1], found[2], saved[1] if saved else "")


def following(page: str, file: str) -> Block:
    """The first block of commands after the one that is saved as ``file``."""
    rest = iter(blocks(page))
    for block in rest:
        if block.file == file:
            return next(block for block in rest if not block.language)
    raise AssertionError(f"{page} saves no {file}")


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def with_ports(words: Sequence[str], ports: dict[str, int]) -> list[str]:
    """``words`` with each of the page's ports replaced by a free one."""
    changed = list(words)
    for documented, port in ports.items():
        changed = [word.replace(f":{documented}", f":{port}") for word in changed]
    return changed
