"""The rows that repeat what a trace says: a run's head, its trials and its mechanisms.

They are written in the transaction of the events that they follow from, so that together they always are a snapshot of
the whole state: a run is opened by reading them, however long its trace is. A fingerprint says which code wrote them;
rows of other code are never read, only written anew from the log. Ownership and concurrency are the store's.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, Table, delete, insert, select, update

from inner_service import amendments, fold
from inner_service.mechanism import Mechanism
from inner_service.run import Run, Search, Trial
from inner_service.tables import mechanisms, runs, trials
from service_kit.damage import in_one_line

_NEVER_CHANGES = {"spec", "task", "owner"}
_REPEATED = {"state", "owner", "decision", "position"}
"""Columns that hold, beside a document, what follows from the trace."""
_RUN = TypeAdapter(Run)
_TRIAL = TypeAdapter(Trial)
_MECHANISM = TypeAdapter(Mechanism)

# What is not among these would be lost when a run is opened.
assert {field.name for field in fields(Search)} == {"run", "trials", "mechanisms", "decisions", "open"}


@cache
def fingerprint() -> str:
    """Of the code that writes the rows: the shape of the state and how it follows from the events."""
    shape = json.dumps(TypeAdapter(Search).json_schema(), sort_keys=True)
    follows = inspect.getsource(fold) + inspect.getsource(amendments)
    return hashlib.sha256(f"{shape}\n{follows}".encode()).hexdigest()[:16]


def create(connection: Connection, search: Search, request_id: str) -> None:
    """The rows of a new run."""
    created = _RUN.dump_python(search.run, mode="json", include=_NEVER_CHANGES)
    connection.execute(insert(runs), {**_run_row(search.run), "request_id": request_id or None, "created": created})


def write(connection: Connection, before: Search, after: Search) -> None:
    """What changed from ``before`` to ``after``."""
    connection.execute(update(runs).where(runs.c.id == after.run.id).values(**_run_row(after.run)))
    if after.trials is not before.trials:
        new, changed = _news(before.trials, after.trials)
        for row in _trial_rows(after, changed):
            connection.execute(update(trials).where(_is_trial(row)).values(**row))
        if new:
            connection.execute(insert(trials), _trial_rows(after, new))
    if after.mechanisms is not before.mechanisms:
        new, changed = _news(before.mechanisms, after.mechanisms)
        for row in _mechanism_rows(after, changed):
            is_it = (mechanisms.c.run == row["run"]) & (mechanisms.c.name == row["name"])
            connection.execute(update(mechanisms).where(is_it).values(**row))
        if new:
            connection.execute(insert(mechanisms), _mechanism_rows(after, new))


def rewrite(connection: Connection, search: Search) -> None:
    """All rows of a run, whatever there was."""
    run = search.run
    for table in (trials, mechanisms):
        connection.execute(delete(table).where(table.c.run == run.id))
    created = _RUN.dump_python(run, mode="json", include=_NEVER_CHANGES)
    row = {**_run_row(run), "created": created}
    there = connection.execute(update(runs).where(runs.c.id == run.id).values(**row).returning(runs.c.id))
    if there.first() is None:
        connection.execute(insert(runs), row)
    for table, rows in (
        (trials, _trial_rows(search, range(len(search.trials)))),
        (mechanisms, _mechanism_rows(search, range(len(search.mechanisms)))),
    ):
        if rows:
            connection.execute(insert(table), rows)


def load(connection: Connection, run_id: str) -> Search | None:
    """The state of a run as its rows say; None where there are none, or other code wrote them."""
    query = select(runs.c.created, runs.c.head).where(runs.c.id == run_id, runs.c.fingerprint == fingerprint())
    row = connection.execute(query).first()
    return None if row is None else _search(connection, run_id, run_of(row.created, row.head))


def differences(connection: Connection, folded: Search) -> list[str]:
    """Where the rows say something else than the trace, in sentences."""
    run_id = folded.run.id
    row = connection.execute(select(runs).where(runs.c.id == run_id)).first()
    if row is None:
        return ["the row of the run is missing"]
    found = [f"run: {text}" for text in _unlike_row(row, _run_row(folded.run), _stored_run, folded.run)]
    written = _trial_rows(folded, range(len(folded.trials)))
    said: dict[object, Any] = {row["number"]: (row, it) for row, it in zip(written, folded.trials, strict=True)}
    found += _row_differences(connection, run_id, trials, "number", said, lambda row: trial_of(row.document))
    written = _mechanism_rows(folded, range(len(folded.mechanisms)))
    said = {row["name"]: (row, it) for row, it in zip(written, folded.mechanisms, strict=True)}
    found += _row_differences(connection, run_id, mechanisms, "name", said, _stored_mechanism)
    return sorted(found)


def _row_differences(
    connection: Connection, run_id: str, table: Table, key: str, said: dict[object, Any], read: Callable[..., Any]
) -> list[str]:
    """Where a run's rows of ``table`` differ from ``said``: by ``key`` the row to expect and what it stands for."""
    rows = {getattr(row, key): row for row in connection.execute(select(table).where(table.c.run == run_id))}
    kind = table.name.removesuffix("s")
    found = [f"{kind} {name}: the row is missing" for name in said.keys() - rows.keys()]
    found += [f"{kind} {name}: the trace knows nothing of it" for name in rows.keys() - said.keys()]
    for name in said.keys() & rows.keys():
        found += [f"{kind} {name}: {text}" for text in _unlike_row(rows[name], said[name][0], read, said[name][1])]
    return found


def _unlike_row(row: Row[Any], written: dict[str, Any], read: Callable[[Row[Any]], Any], said: Any) -> Iterator[str]:
    """Where a row differs from the one that would be ``written``, and its document from what the trace ``said``."""
    for column in _REPEATED & written.keys():
        if getattr(row, column) != written[column]:
            yield f"the row's {column} is {_short(getattr(row, column))}, the trace says {written[column]}"
    try:
        stored = read(row)
    except (ValueError, KeyError, TypeError) as error:
        yield f"the row cannot be read: {in_one_line(error)}"
        return
    yield from _unlike(stored, said)


def _stored_run(row: Row[Any]) -> Run:
    return run_of(row.created, row.head)


def _stored_mechanism(row: Row[Any]) -> Mechanism:
    mechanism: Mechanism = _MECHANISM.validate_python(row.document)
    return mechanism


def run_of(created: dict[str, Any], head: dict[str, Any]) -> Run:
    """The head of a run from its row."""
    run: Run = _RUN.validate_python({**created, **head})
    return run


def trial_of(document: dict[str, Any]) -> Trial:
    """A trial from its row."""
    trial: Trial = _TRIAL.validate_python(document)
    return trial


def _search(connection: Connection, run_id: str, run: Run) -> Search:
    of_run = select(trials.c.document, trials.c.decision).where(trials.c.run == run_id).order_by(trials.c.number)
    rows = connection.execute(of_run).all()
    found = tuple(trial_of(row.document) for row in rows)
    order = [(row.decision, trial.number) for row, trial in zip(rows, found, strict=True) if row.decision is not None]
    query = select(mechanisms.c.document).where(mechanisms.c.run == run_id).order_by(mechanisms.c.position)
    return Search(
        run,
        found,
        tuple(_MECHANISM.validate_python(document) for document in connection.execute(query).scalars()),
        tuple(number for _, number in sorted(order)),
        tuple(trial.number for trial in found if trial.state.open),
    )


def _run_row(run: Run) -> dict[str, Any]:
    head = _RUN.dump_python(run, mode="json", exclude=_NEVER_CHANGES)
    return {"id": run.id, "state": run.state.value, "owner": run.owner, "head": head, "fingerprint": fingerprint()}


def _trial_rows(search: Search, positions: Sequence[int]) -> list[dict[str, Any]]:
    decided = [search.trials[position].decide_time is not None for position in positions]
    places = {number: place for place, number in enumerate(search.decisions)} if any(decided) else {}
    return [
        {
            "run": search.run.id,
            "number": trial.number,
            "state": trial.state.value,
            "decision": places.get(trial.number),
            "document": _TRIAL.dump_python(trial, mode="json"),
        }
        for trial in (search.trials[position] for position in positions)
    ]


def _mechanism_rows(search: Search, positions: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "run": search.run.id,
            "name": mechanism.name,
            "position": position,
            "state": mechanism.state.value,
            "document": _MECHANISM.dump_python(mechanism, mode="json"),
        }
        for position, mechanism in ((position, search.mechanisms[position]) for position in positions)
    ]


def _is_trial(row: dict[str, Any]) -> Any:
    return (trials.c.run == row["run"]) & (trials.c.number == row["number"])


def _news(before: Sequence[Any], after: Sequence[Any]) -> tuple[Sequence[int], list[int]]:
    """Positions in ``after`` that are new, and those whose element has been replaced."""
    return range(len(before), len(after)), [i for i, old in enumerate(before) if after[i] is not old]


def _unlike(stored: Any, said: Any) -> Iterator[str]:
    for field in fields(said):
        row, trace = getattr(stored, field.name), getattr(said, field.name)
        if row != trace:
            yield f"{field.name} is {_short(row)}, the trace says {_short(trace)}"


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else f"{text[:117]}…"
