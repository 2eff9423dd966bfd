"""Where runs are kept: the trace, and beside it the rows that repeat what it says.

Ownership: the store owns its database. One process drives the runs of one database. Concurrency: commits of one run
happen one after the other; a commit sees the state that all earlier ones left. Readers and watchers delay nobody.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pydantic import TypeAdapter
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inner_service import trace
from inner_service.fold import apply
from inner_service.lessons.store import LessonStore
from inner_service.mechanism import Mechanism
from inner_service.run import Run, RunState, Search, Trial
from inner_service.tables import SCHEMA, mechanisms, runs, trials
from service_kit.database import Database
from service_kit.errors import NotFound
from service_kit.eventlog import EventLog, Idle, StoredEvent

_ENDED_IN_MEMORY = 32
"""Ended runs whose state stays in memory; the others are folded again when someone asks."""
_NEVER_CHANGES = {"spec", "task"}
_RUN = TypeAdapter(Run)
_TRIAL = TypeAdapter(Trial)
_MECHANISM = TypeAdapter(Mechanism)

Decide = Callable[[Search], Sequence[trace.Event]]
"""What is to happen, as a function of the state in which it happens. May raise to let nothing happen."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a trace."""

    run: str
    sequence: int
    time: datetime
    event: trace.Event


@dataclass(frozen=True, slots=True)
class Commit:
    """What one transaction did."""

    search: Search
    """The state after it."""
    entries: tuple[Entry, ...]


class Store:
    """The runs of one inner service. Create it with :meth:`open`."""

    def __init__(self, database: Database) -> None:
        self.lessons = LessonStore(database)
        self._database = database
        self._log = EventLog(database)
        self._searches: OrderedDict[str, Search] = OrderedDict()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @classmethod
    async def open(cls, url: str) -> Self:
        """Raises :class:`InvalidArgument` for a URL that cannot be used, :class:`ServiceError` when opening fails."""
        return cls(await Database.open(url, SCHEMA, exclusive=True))

    async def close(self) -> None:
        await self._database.close()

    async def create(self, run_id: str, event: trace.RunCreated, request_id: str = "") -> Search:
        """Begin a trace; with a ``request_id`` that was used before, the run that it created then."""
        return await self._database.uninterrupted(self._create(run_id, event, request_id))

    async def _create(self, run_id: str, event: trace.RunCreated, request_id: str) -> Search:
        async with self._database.transaction() as connection:
            if request_id:
                query = select(runs.c.id).where(runs.c.request_id == request_id)
                existing = (await connection.execute(query)).scalar_one_or_none()
            if not request_id or existing is None:
                [stored] = await self._log.append(connection, stream_of(run_id), [trace.encode(event)])
                search = apply(None, event, stored.time, stored.sequence, run_id)
                row = _run_row(search.run)
                created = _RUN.dump_python(search.run, mode="json", include=_NEVER_CHANGES)
                await connection.execute(insert(runs), {**row, "request_id": request_id or None, "created": created})
        if request_id and existing is not None:
            return await self.search(existing)
        self._remember(search)
        return search

    async def search(self, run_id: str) -> Search:
        """The run with everything that belongs to it. Raises :class:`NotFound`."""
        known = self._searches.get(run_id)
        if known is not None:
            return known
        async with self._locks[run_id]:
            return self._searches.get(run_id) or await self._fold(run_id)

    async def commit(self, run_id: str, decide: Decide) -> Commit:
        """Let ``decide``'s events happen: the log, the rows and the state in memory change together or not at all.

        Raises :class:`NotFound`, whatever ``decide`` raises, and IllegalEvent for what cannot happen.
        """
        # A caller that is cancelled must not tear the log and the state in memory apart.
        return await self._database.uninterrupted(self._commit(run_id, decide))

    async def _commit(self, run_id: str, decide: Decide) -> Commit:
        async with self._locks[run_id]:
            before = self._searches.get(run_id) or await self._fold(run_id)
            events = decide(before)
            if not events:
                return Commit(before, ())
            async with self._database.transaction() as connection:
                stored = await self._log.append(connection, stream_of(run_id), [trace.encode(e) for e in events])
                after = before
                for event, at in zip(events, stored, strict=True):
                    after = apply(after, event, at.time, at.sequence, run_id)
                await self._project(connection, before, after, events)
            self._remember(after)
        entries = (Entry(run_id, s.sequence, s.time, event) for s, event in zip(stored, events, strict=True))
        return Commit(after, tuple(entries))

    async def runs(self, limit: int, before: int | None = None) -> list[tuple[int, Run]]:
        """Heads of up to ``limit`` runs, newest first, with their numbers; ``before`` continues after that number."""
        query = (
            select(runs.c.number, runs.c.id, runs.c.created, runs.c.head).order_by(runs.c.number.desc()).limit(limit)
        )
        if before is not None:
            query = query.where(runs.c.number < before)
        rows = await self._database.fetch(query)
        return [(row.number, _RUN.validate_python({**row.created, **row.head})) for row in rows]

    async def trials(self, run_id: str, limit: int, after: int = -1) -> list[Trial]:
        """Up to ``limit`` trials with numbers greater than ``after``, by number. Raises :class:`NotFound`."""
        query = select(trials.c.document).where(trials.c.run == run_id, trials.c.number > after)
        rows = await self._database.fetch(query.order_by(trials.c.number).limit(limit))
        if not rows:
            await self.search(run_id)
        return [_TRIAL.validate_python(row.document) for row in rows]

    async def has_trial(self, run_id: str, number: int) -> bool:
        """Whether there is such a trial."""
        query = select(trials.c.number).where(trials.c.run == run_id, trials.c.number == number)
        return bool(await self._database.fetch(query))

    async def runs_in(self, *states: RunState) -> list[str]:
        """Ids of the runs in one of ``states``, oldest first."""
        query = select(runs.c.id).where(runs.c.state.in_([state.value for state in states])).order_by(runs.c.number)
        return [row.id for row in await self._database.fetch(query)]

    async def entries(self, run_id: str, after: int = 0) -> AsyncIterator[Entry]:
        """The entries after number ``after`` that are committed by now."""
        last = (await self.search(run_id)).run.last_sequence
        while after < last:
            for stored in await self._log.read(stream_of(run_id), after, 256):
                if stored.sequence > last:
                    return
                yield _entry(run_id, stored)
                after = stored.sequence

    async def watch(
        self, run_id: str, after: int, *, heartbeat: float, draining: asyncio.Event
    ) -> AsyncIterator[Entry | Idle]:
        """Every entry after number ``after``, each once and in order, then the new ones; ends with the run."""
        run = (await self.search(run_id)).run
        if run.state.terminal and after >= run.last_sequence:
            return
        stream = stream_of(run_id)
        async for item in self._log.watch(stream, after, heartbeat=heartbeat, draining=draining):
            yield item if isinstance(item, Idle) else _entry(run_id, item)
            run = (await self.search(run_id)).run
            if run.state.terminal and item.sequence >= run.last_sequence:
                return

    async def _fold(self, run_id: str) -> Search:
        search, after = None, 0
        while events := await self._log.read(stream_of(run_id), after, 1000):
            for stored in events:
                event = trace.decode(stored.kind, stored.payload)
                search = apply(search, event, stored.time, stored.sequence, run_id)
            after = events[-1].sequence
        if search is None:
            self._locks.pop(run_id, None)
            raise NotFound("run", f"runs/{run_id}", "ListRuns gives the runs that exist")
        self._remember(search)
        return search

    def _remember(self, search: Search) -> None:
        self._searches[search.run.id] = search
        self._searches.move_to_end(search.run.id)
        ended = [run_id for run_id, known in self._searches.items() if known.run.state.terminal]
        for run_id in ended[:-_ENDED_IN_MEMORY]:
            del self._searches[run_id]

    async def _project(
        self, connection: AsyncConnection, before: Search, after: Search, events: Sequence[trace.Event]
    ) -> None:
        run_id = after.run.id
        await connection.execute(update(runs).where(runs.c.id == run_id).values(**_run_row(after.run)))
        if after.trials is not before.trials:
            for trial in _changed(before.trials, after.trials):
                key = (trials.c.run == run_id) & (trials.c.number == trial.number)
                await connection.execute(delete(trials).where(key))
                document = _TRIAL.dump_python(trial, mode="json")
                row = {"run": run_id, "number": trial.number, "state": trial.state.value, "document": document}
                await connection.execute(insert(trials), row)
        for mechanism in _changed(before.mechanisms, after.mechanisms):
            key = (mechanisms.c.run == run_id) & (mechanisms.c.name == mechanism.name)
            await connection.execute(delete(mechanisms).where(key))
            row = {
                "run": run_id,
                "name": mechanism.name,
                "position": after.mechanisms.index(mechanism),
                "state": mechanism.state.value,
                "document": _MECHANISM.dump_python(mechanism, mode="json"),
            }
            await connection.execute(insert(mechanisms), row)
        for event in events:
            match event:
                case trace.LessonsShown():
                    await self.lessons.count(connection, event.lessons, "times_shown")
                case trace.LessonsCited():
                    await self.lessons.count(connection, event.lessons, "times_cited")
                case trace.TrialDecided(kept=True):
                    await self.lessons.count(connection, after.trials[event.number].lessons, "times_helped")
                    await self.lessons.count(connection, after.trials[event.number].cited_lessons, "times_cited_kept")
                case trace.LessonsWritten():
                    await self.lessons.write(connection, event.written)
                    for merged in event.merged:
                        await self.lessons.support(connection, merged.lesson, merged.evidence, after.run.update_time)
                    await self.lessons.forget(connection, event.pruned)


def stream_of(run_id: str) -> str:
    """The name of the run's stream in the log."""
    return f"runs/{run_id}"


def _entry(run_id: str, stored: StoredEvent) -> Entry:
    return Entry(run_id, stored.sequence, stored.time, trace.decode(stored.kind, stored.payload))


def _run_row(run: Run) -> dict[str, Any]:
    head = _RUN.dump_python(run, mode="json", exclude=_NEVER_CHANGES)
    return {"id": run.id, "state": run.state.value, "head": head}


def _changed(before: Sequence[Any], after: Sequence[Any]) -> list[Any]:
    """The elements of ``after`` that are new or have been replaced."""
    return [new for i, new in enumerate(after) if i >= len(before) or before[i] is not new]
