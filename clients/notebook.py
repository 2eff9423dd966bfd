"""A run as a notebook shows it: what it searched, what it found, its trials. Generated text is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from bilevel.v1 import trace_pb2

from clients import wording

if TYPE_CHECKING:
    from clients.report.record import RunRecord

_SHOWN = 20
"""Newest trials in the table."""


def run_html(record: RunRecord) -> str:
    """The HTML of ``record``."""
    history = record.history
    numbers = sorted(history.trials)[-_SHOWN:]
    rows = [_row(record, history.trials[number]) for number in numbers]
    return _template().render(record=record, summary=record.summary(), rows=rows, total=len(history.trials), w=wording)


def _row(record: RunRecord, trial: trace_pb2.Trial) -> dict[str, str | int | bool]:
    base = record.history.trials.get(record.history.bases.get(trial.number, -1))
    return {
        "number": trial.number,
        "status": wording.status(trial),
        "metric": wording.metric(trial.metric if trial.HasField("metric") else None),
        "changes": ", ".join(wording.changes(trial, base)),
        "hypothesis": trial.hypothesis,
        "best": trial.number == record.history.best,
    }


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "report" / "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "notebook.html.j2"
    )
