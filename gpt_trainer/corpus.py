"""Where text comes from. A corpus yields documents of three splits that share no file: train, search, held-out.

Importing this needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpt_trainer.presets import CLIMBMIX, STANDARD_LIBRARY
from service_kit.errors import ServiceError

SPLITS = ("train", "search", "held_out")
"""What trains, what a search measures on, and what only a confirmation measures on."""


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

    Left out are tests, which repeat themselves, and the ``encodings`` package, which is tables. One file in ten goes
    to validation, by a hash of its path, half of them to each validation split.
    """

    root: Path = Path(sysconfig.get_path("stdlib"))
    name: str = STANDARD_LIBRARY

    SKIPPED = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "__pycache__"})

    def files(self) -> list[Path]:
        """Every file of the corpus, sorted by its path below the root."""
        paths = (path.relative_to(self.root) for path in self.root.rglob("*.py"))
        return sorted((p for p in paths if not self.SKIPPED.intersection(p.parts)), key=lambda p: p.as_posix())

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


@dataclass(frozen=True)
class TextFiles:
    """Documents from files: ``.jsonl`` and ``.parquet`` hold one a row, under ``text``; any other file is one itself.

    One document in fifty goes to validation by a hash of its place, half of them to each validation split; with
    ``pinned`` the last file alone is validation, its rows alternating between both splits.
    """

    paths: Sequence[Path]
    name: str
    pinned: bool = False

    def identity(self) -> str:
        digest = hashlib.sha256()
        for path in self.paths:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return f"{self.name}-{digest.hexdigest()[:16]}"

    def documents(self, split: str) -> Iterator[str]:
        for path in self.paths:
            for row, text in enumerate(_read(path)):
                if self.pinned:
                    place = SPLITS[1 + row % 2] if path == self.paths[-1] else "train"
                else:
                    place = _split_of(f"{path.name}:{row}", share=0.02)
                if place == split:
                    yield text


def find_corpus(name: str, cache: Path) -> Corpus:
    """The corpus of a preset. Raises :class:`CorpusMissing` when its text is not on this machine."""
    if name == STANDARD_LIBRARY:
        return StandardLibrary()
    if name != CLIMBMIX:
        raise CorpusMissing(f"corpus: must be {STANDARD_LIBRARY} or {CLIMBMIX}; got {name!r}")
    folder = cache / CLIMBMIX
    shards = sorted(folder.glob("*.parquet"))
    if len(shards) < 2:
        raise CorpusMissing(
            f"{CLIMBMIX} needs at least two parquet shards in {folder} (the last validates); found {len(shards)}",
            hint="Download some: hf download karpathy/climbmix-400b-shuffle --repo-type dataset "
            f"--include 'shard_0000*' --local-dir {folder}\nOr use --preset laptop, which needs no download.",
        )
    return TextFiles(tuple(shards), CLIMBMIX, pinned=True)


def _split_of(place: str, share: float = 0.1) -> str:
    """The split of a document, from a hash of its place alone, so that adding documents moves none."""
    fraction = int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") / 2**64
    if fraction >= share:
        return "train"
    return "search" if fraction < share / 2 else "held_out"


def _read(path: Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        try:
            from pyarrow import parquet  # type: ignore[import-untyped]  # only corpora of parquet files need it
        except ImportError as error:
            raise CorpusMissing(f"reading {path} needs pyarrow", hint="Install it: pip install pyarrow") from error

        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["text"]):
                yield from batch.column("text").to_pylist()
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["text"]
    else:
        yield path.read_text(encoding="utf-8", errors="replace")
