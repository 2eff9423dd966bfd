"""Writes a report into a folder: report.html, best_so_far.png, and results.tsv and run.json for each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.report.export import results_tsv, run_json
from clients.report.page import render_page
from clients.report.picture import write_png
from clients.report.record import RunRecord
from service_kit.given_files import unwritable


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """What was written."""

    html: Path
    png: Path
    tables: tuple[Path, ...]
    """results.tsv of each run."""
    exports: tuple[Path, ...]
    """run.json of each run."""


def write_report(records: Sequence[RunRecord], folder: Path) -> ReportFiles:
    """One report on one or several runs. With several, each run's table and export go into a folder of its own.

    Raises :class:`service_kit.errors.InvalidArgument` when the folder cannot be written.
    """
    homes = [folder if len(records) == 1 else folder / record.name for record in records]
    try:
        for home in (folder, *homes):
            home.mkdir(parents=True, exist_ok=True)
        for record, home in zip(records, homes, strict=True):
            (home / "results.tsv").write_text(results_tsv(record), encoding="utf-8")
            (home / "run.json").write_text(run_json(record), encoding="utf-8")
        (folder / "report.html").write_text(render_page(records), encoding="utf-8")
        write_png(records, folder / "best_so_far.png")
    except OSError as error:
        raise unwritable(folder, "--out", error, hint="Choose another folder with --out.") from error
    return ReportFiles(
        folder / "report.html",
        folder / "best_so_far.png",
        tuple(home / "results.tsv" for home in homes),
        tuple(home / "run.json" for home in homes),
    )
