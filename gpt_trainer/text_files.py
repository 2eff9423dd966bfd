"""A corpus from files of one's own: text, Markdown, JSONL or parquet. Importing this needs no torch."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service_kit.errors import InvalidArgument, ServiceError

SPLITS = ("train", "search", "held_out")
"""What trains, what a search measures on, and what only a confirmation measures on."""

PLAIN_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})
TABLE_SUFFIXES = frozenset({".jsonl", ".ndjson", ".parquet"})
"""Files that hold a document a row."""

TEXT_FIELDS = ("text", "content")
"""Field of a row that is read: the first of these that there is."""

PASSAGE = 8_192
"""Characters after which a plain file is cut at the next line: a long file counts as several documents."""

BLOCK = 20
"""Of so many consecutive documents one goes to each validation split."""


class UnreadableText(ServiceError):
    """A file of the corpus is not what its name says or has no text; the message names file and place."""


@dataclass(frozen=True)
class TextFiles:
    """Documents from ``paths``, in their order.

    In every block of twenty documents a hash of the block's number picks one for each validation split. With ``pinned``
    the last file alone is validation, its rows alternating between both splits.
    """

    paths: Sequence[Path]
    name: str
    pinned: bool = False

    def identity(self) -> str:
        digest = hashlib.sha256(b"pinned" if self.pinned else b"")
        for path in self.paths:
            digest.update(path.suffix.lower().encode() + b"\0" + file_digest(path))
        return f"{self.name}-{digest.hexdigest()[:16]}"

    def documents(self, split: str) -> Iterator[str]:
        if self.pinned:
            yield from self._pinned(split)
            return
        for number, text in enumerate(text for path in self.paths for text in read_documents(path)):
            if split_of(number) == split:
                yield text

    def _pinned(self, split: str) -> Iterator[str]:
        if split == SPLITS[0]:
            for path in self.paths[:-1]:
                yield from read_documents(path)
            return
        for row, text in enumerate(read_documents(self.paths[-1])):
            if SPLITS[1 + row % 2] == split:
                yield text


def split_of(number: int) -> str:
    """The split of a corpus's document ``number``."""
    block, place = divmod(number, BLOCK)
    digest = int.from_bytes(hashlib.sha256(str(block).encode()).digest()[:8], "big")
    search = digest % BLOCK
    held_out = (search + 1 + digest // BLOCK % (BLOCK - 1)) % BLOCK
    return {search: SPLITS[1], held_out: SPLITS[2]}.get(place, SPLITS[0])


def find_text_files(pattern: str) -> TextFiles:
    """The files that ``pattern`` means: a folder (all below it that can be read), a glob with ``**``, or one file.

    Sorted by path, so that the order is the same everywhere. Raises InvalidArgument when there are none.
    """
    expanded = Path(pattern).expanduser()
    if expanded.is_dir():
        paths = [p for p in expanded.rglob("*") if _visible(p.relative_to(expanded)) and p.is_file()]
        chosen = [p for p in paths if p.suffix.lower() in PLAIN_SUFFIXES | TABLE_SUFFIXES]
        if not chosen:
            raise InvalidArgument.of("--data", f"the folder {pattern} {_what_it_holds(paths)}", hint=_READABLE)
    else:
        chosen = [p for p in map(Path, glob.glob(str(expanded), recursive=True)) if p.is_file()]  # noqa: PTH207
        if not chosen:
            raise InvalidArgument.of(
                "data", f"must be a file, a folder or a glob that matches files; nothing is at {pattern!r}"
            )
    return TextFiles(tuple(sorted(chosen, key=lambda p: p.as_posix())), _name(expanded))


_READABLE = f"Read are {', '.join(sorted(PLAIN_SUFFIXES | TABLE_SUFFIXES))}; a glob such as 'src/**/*.py' reads others."


def _visible(path: Path) -> bool:
    return not any(part.startswith(".") for part in path.parts)


def _what_it_holds(paths: Sequence[Path]) -> str:
    if not paths:
        return "holds no files"
    counts = Counter(path.suffix or "no suffix" for path in paths).most_common(4)
    return f"holds no text files, only {', '.join(f'{suffix} ({count})' for suffix, count in counts)}"


def _name(path: Path) -> str:
    """A name fit for a folder of the cache, from the part of the pattern that says most."""
    told = [part for part in path.absolute().parts[1:] if not glob.has_magic(part)]
    slug = re.sub(r"[^a-z0-9]+", "-", (Path(told[-1]).stem if told else "").lower()).strip("-")
    return slug[:40] or "text"


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_documents(path: Path) -> Iterator[str]:
    """Every document of a file. Raises :class:`UnreadableText`."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(path)
    if suffix in TABLE_SUFFIXES:
        return _json_lines(path)
    return _passages(path)


def _passages(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        while lines := file.readlines(PASSAGE):
            text = "".join(lines)
            if "\0" in text:
                raise UnreadableText(f"{path} is not text", hint="Leave it out of --data, or convert it to UTF-8.")
            yield text


def _json_lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UnreadableText(f"{path}, line {number}: not JSON ({error.msg})") from error
            yield from _text_of(row, f"{path}, line {number}")


def _text_of(row: Any, place: str) -> Iterator[str]:
    fields = list(row) if isinstance(row, dict) else []
    text = row[_text_field(fields, place)]
    if text is not None and not isinstance(text, str):
        raise UnreadableText(f"{place}: the text must be a string; got {type(text).__name__}")
    if text:
        yield text


def _text_field(fields: Sequence[str], place: str) -> str:
    for name in TEXT_FIELDS:
        if name in fields:
            return name
    there = f"the columns are {', '.join(fields)}" if fields else "there are no columns"
    raise UnreadableText(f"{place}: no text column; {there}", hint=f"Name the column {' or '.join(TEXT_FIELDS)}.")


def _parquet_rows(path: Path) -> Iterator[str]:
    try:
        import pyarrow  # type: ignore[import-untyped]  # only corpora of parquet files need it
        from pyarrow import parquet
    except ImportError as error:
        raise UnreadableText(f"reading {path} needs pyarrow", hint="Install it: pip install pyarrow") from error

    try:
        with parquet.ParquetFile(path) as file:
            column = _text_field(file.schema_arrow.names, str(path))
            kind = file.schema_arrow.field(column).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise UnreadableText(f"{path}: the column {column} must hold strings; it holds {kind}")
            for batch in file.iter_batches(columns=[column]):
                yield from (text for text in batch.column(column).to_pylist() if text)
    except pyarrow.ArrowInvalid as error:
        raise UnreadableText(f"{path} is not a parquet file or is damaged: {error}") from error
