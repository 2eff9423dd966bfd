"""Where text comes from. A corpus yields documents of three splits that share no file: train, search, held-out.

Importing this needs no torch.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpt_trainer.presets import CLIMBMIX, STANDARD_LIBRARY
from gpt_trainer.text_files import TextFiles, find_text_files
from service_kit.errors import ServiceError


class CorpusMissing(ServiceError):
    """The text of a corpus is not on this machine; the message says where it should be, the hint how to get it."""


class Corpus(Protocol):
    """A source of documents."""

    @property
    def name(self) -> str: ...

    def identity(self) -> str:
        """A hash of the text and its split: two corpora with one identity give the same tokens."""

    def documents(self, split: str) -> Iterator[str]:
        """The documents of a split, in an order that never changes."""


@dataclass(frozen=True)
class StandardLibrary:
    """The Python files of the running interpreter's standard library, wherever that is: about 11 MB of text.

    Tests are left out, because they repeat themselves. One file in ten goes to validation, by a hash of its path, half
    of them to each validation split.
    """

    root: Path = Path(sysconfig.get_path("stdlib"))
    name: str = STANDARD_LIBRARY

    SKIPPED = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})

    def files(self) -> list[Path]:
        """Every file of the corpus, sorted by its path below the root."""
        found: list[Path] = []
        for folder, below, names in os.walk(self.root):
            below[:] = [name for name in below if name not in self.SKIPPED]  # site-packages may be huge
            found += (Path(folder, name).relative_to(self.root) for name in names if name.endswith(".py"))
        return sorted(found, key=lambda p: p.as_posix())

    def identity(self) -> str:
        digest = hashlib.sha256()
        for path in self.files():
            digest.update(path.as_posix().encode() + b"\0")
            digest.update(hashlib.sha256((self.root / path).read_bytes()).digest())
        return f"{self.name}-python{platform.python_version()}-{digest.hexdigest()[:16]}"

    def documents(self, split: str) -> Iterator[str]:
        for path in self.files():
            if _split_of(path.as_posix()) == split:
                yield (self.root / path).read_text(encoding="utf-8", errors="replace")


def find_corpus(name: str, cache: Path) -> Corpus:
    """The corpus called ``name``: one of the presets' names, or files of one's own by path, folder or glob.

    Raises :class:`CorpusMissing` when its text is not on this machine, InvalidArgument when a path leads nowhere.
    """
    if name == STANDARD_LIBRARY:
        return StandardLibrary()
    if name != CLIMBMIX:
        return find_text_files(name)
    folder = cache / CLIMBMIX
    shards = sorted(folder.glob("*.parquet"))
    if len(shards) < 2:
        raise CorpusMissing(
            f"{CLIMBMIX} needs at least two parquet shards in {folder} (the last validates); found {len(shards)}",
            hint="Download some: python -m gpt_trainer prepare --preset karpathy --shards 10\n"
            "Or use --preset laptop, which needs no download.",
        )
    return TextFiles(tuple(shards), CLIMBMIX, pinned=True)


def _split_of(place: str, share: float = 0.1) -> str:
    """The split of a document, from a hash of its place alone, so that adding documents moves none."""
    fraction = int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") / 2**64
    if fraction >= share:
        return "train"
    return "search" if fraction < share / 2 else "held_out"
