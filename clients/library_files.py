"""Library entries as files and as text: what ``bilevel library`` writes, reads and shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bilevel.v1 import outer_pb2
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from clients import wording
from service_kit.errors import InvalidArgument
from service_kit.given_files import read_given_text, unwritable

FORMAT = "bilevel-library/1"
MAX_BYTES = 64 * 1024 * 1024
_FILE = "FILE"


def write(file: Path, entries: Sequence[outer_pb2.LibraryEntry]) -> None:
    """All of ``entries`` in one JSON file. Raises :class:`InvalidArgument` where it cannot be written."""
    document = {"format": FORMAT, "entries": [MessageToDict(entry) for entry in entries]}
    try:
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable(file, "--out", error, hint="Name another file with --out.") from None


def read(file: Path) -> list[outer_pb2.LibraryEntry]:
    """The entries of a file that :func:`write` wrote, or the one that a Python source makes.

    The file may come from anywhere: it is read up to a size, and no source is parsed here. Raises
    :class:`InvalidArgument` that says what is wrong with it.
    """
    text = read_given_text(file, _FILE, MAX_BYTES, hint="`bilevel library export --out FILE` writes such a file.")
    if file.suffix == ".py":
        title = file.stem.lower().replace("_", "-")
        return [outer_pb2.LibraryEntry(source=text, title=title, author="a person")]
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"must be a .py source or an exported library; {file} is not JSON: {str(error)[:200]}") from None
    found = document.get("format") if type(document) is dict else None
    if found != FORMAT:
        raise _wrong(f"must be a library in the format {FORMAT}; the format of {file} is {str(found)[:80]!r}")
    entries = document.get("entries")
    if type(entries) is not list or not entries:
        raise _wrong(f"must hold at least one entry; {file} has none")
    return [_entry(data, place) for place, data in enumerate(entries)]


def measured(entry: outer_pb2.LibraryEntry) -> list[outer_pb2.LibraryTrial]:
    """The trials that this library measured and judged itself."""
    return [trial for trial in entry.trials if trial.verdicts and not trial.imported]


def stayed(entry: outer_pb2.LibraryEntry) -> int:
    """Measured trials after which it stayed."""
    return sum(trial.verdicts[-1].verdict == outer_pb2.VERDICT_KEEP for trial in measured(entry))


def origin(entry: outer_pb2.LibraryEntry) -> str:
    """Where it comes from, in a word."""
    return wording.member(outer_pb2.LibraryOrigin.Name(entry.origin), "LIBRARY_ORIGIN_")


def story(entry: outer_pb2.LibraryEntry) -> str:
    """Lineage and everything that was measured, as text."""
    lines = [f"{entry.title}: {entry.summary}", f"id {entry.name.removeprefix('libraryEntries/')}"]
    scripted = " (scripted, no evidence for the method)" if entry.scripted else ""
    lines.append(f"{origin(entry)}, by {entry.author}{scripted}, {wording.moment(entry.create_time)}")
    lineage = {"derived from": entry.derived_from, "session": entry.session, "run": entry.run, "task": entry.task}
    lines += [f"{label} {value}" for label, value in lineage.items() if value]
    for trial in entry.trials:
        told = " (as the imported file says; not measured here)" if trial.imported else ""
        lines.append(f"\n{trial.mechanism} in {trial.run} on {trial.task}, {wording.moment(trial.time)}{told}")
        for verdict in trial.verdicts:
            word = wording.member(outer_pb2.Verdict.Name(verdict.verdict), "VERDICT_")
            lines.append(f"  {word} after {verdict.trials} trials: {verdict.reason}")
        if not trial.verdicts:
            lines.append("  no verdict")
    return "\n".join(lines)


def _entry(data: Any, place: int) -> outer_pb2.LibraryEntry:
    try:
        # A newer version may have written fields that this one does not know.
        return ParseDict(data, outer_pb2.LibraryEntry(), ignore_unknown_fields=True)
    except (ParseError, AttributeError, TypeError, ValueError) as error:
        raise _wrong(f"holds entries[{place}], which is no library entry: {str(error)[:300]}") from None


def _wrong(description: str) -> InvalidArgument:
    return InvalidArgument.of(_FILE, description)
