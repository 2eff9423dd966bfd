"""Where runs are kept: the trace, and beside it the rows that repeat what it says.

Ownership: the store owns its database. A SQLite file belongs to one store of one process; any number of stores share a
PostgreSQL database.

Concurrency: a commit happens right after the newest event that its ``decide`` has seen, or not at all: the database
refuses it when another store has appended meanwhile, and ``decide`` is asked again in the new state, so it must be a
pure function. Commits of one run through one store wait for each other. A commit within a lease's guard, which is what
drives a run, also fails in its own transaction once the lease is another's (:mod:`service_kit.leases`). Readers and
watchers delay nobody.

When the database fails, a guarded commit tries again for ``PATIENCE_SECONDS``, and finds out whether it had happened;
then it raises :class:`StorageFailed`, as all others do at once. The state in memory is then read again.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from inner_service import chronicle, projections, trace
from inner_service.amendments import IllegalEvent
from inner_service.fold import apply
from inner_service.lessons.store import LessonStore
from inner_service.run import Run, RunState, Search, Trial
from inner_service.tables import SCHEMA, runs, trials
from inner_service.trace_codec import decode, encode
from service_kit.damage import Unfoldable, in_one_line
from service_kit.database import Database
from service_kit.engines import Transaction
from service_kit.errors import Exhausted, NotFound, StorageFailed
from service_kit.eventlog import EventLog, Idle, NewEvent, OutOfDate, Problem, StoredEvent
from service_kit.leases import LEASE_SECONDS, Leases
from service_kit.security.quota import NO_LIMIT, Quota
from service_kit.waits import Waits

PATIENCE_SECONDS = 5.0
"""How long a run's driver waits for its database before it gives up what it is doing."""
_ENDED_IN_MEMORY = 32
"""Ended runs whose state stays in memory; the others are read again when someone asks."""

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

    def __init__(self, database: Database, lease_seconds: float = LEASE_SECONDS) -> None:
        self.lessons = LessonStore(database)
        self.leases = Leases(database, lease_seconds)
        self.waits = Waits()
        self._database = database
        self._log = EventLog(database)
        self._searches: OrderedDict[str, Search] = OrderedDict()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @classmethod
    async def open(cls, url: str, lease_seconds: float = LEASE_SECONDS) -> Self:
        """Raises :class:`InvalidArgument` for a URL that cannot be used, :class:`ServiceError` when opening fails."""
        store = cls(await Database.open(url, SCHEMA, exclusive=True), lease_seconds)
        if not store.shared:
            try:
                await store.leases.revoke_all()  # whoever held them has ended
            except StorageFailed:
                await store.close()
                raise
        return store

    @classmethod
    async def open_for_audit(cls, url: str) -> Self:
        """Beside the service that owns it, for :meth:`verify` and :meth:`rebuild`; the tables must be the newest."""
        return cls(await Database.open(url, SCHEMA, upgrade=False))

    @property
    def shared(self) -> bool:
        """Whether other services may work on the same runs."""
        return self._database.shared

    async def close(self) -> None:
        await self._database.close()

    async def extent(self) -> dict[str, int]:
        """Every stream of the log with its last number."""
        async with self._database.reading() as connection:
            return await self._log.streams(connection)

    async def create(
        self, run_id: str, event: trace.RunCreated, request_id: str = "", quota: Quota = NO_LIMIT
    ) -> Search:
        """Begin a trace; with a ``request_id`` that was used before, the run that it created then.

        Raises :class:`Exhausted` when the owner has as many runs as ``quota`` lets it have.
        """
        return await self._database.uninterrupted(self._create(run_id, event, request_id, quota))

    async def _create(self, run_id: str, event: trace.RunCreated, request_id: str, quota: Quota) -> Search:
        known = await self._created_by(request_id)
        if known is not None:
            return await self.search(known)
        try:
            search = await self._database.transact(self._begin, run_id, event, request_id, quota)
        except (IntegrityError, Exhausted):
            known = await self._created_by(request_id)  # by the same request, at the same time
            if known is None:
                raise
            return await self.search(known)
        self._remember(search)
        return search

    def _begin(
        self, connection: Connection, run_id: str, event: trace.RunCreated, request_id: str, quota: Quota
    ) -> Search:
        if quota.limited:
            self._within(quota, event.owner, connection)
        [stored] = self._log.put(connection, stream_of(run_id), [encode(event)])
        search = apply(None, event, stored.time, stored.sequence, run_id)
        projections.create(connection, search, request_id)
        return search

    def _within(self, quota: Quota, owner: str, connection: Connection) -> None:
        """Raises :class:`Exhausted`. Whoever else creates a run waits until this transaction has ended."""
        self._database.alone(connection, runs)
        states = connection.execute(select(runs.c.state).where(runs.c.owner == owner)).scalars()
        quota.check("runs", owner, [RunState(state).terminal for state in states])

    async def _created_by(self, request_id: str) -> str | None:
        query = select(runs.c.id).where(runs.c.request_id == request_id)
        rows = await self._database.fetch(query) if request_id else []
        return rows[0].id if rows else None

    async def search(self, run_id: str) -> Search:
        """The run with everything that belongs to it. Raises :class:`NotFound`."""
        known = self._searches.get(run_id)
        if known is not None and not self.shared:
            return known
        return await self._database.uninterrupted(self._search(run_id))

    async def _search(self, run_id: str) -> Search:
        async with self._locks[run_id]:
            return await self._current(run_id)

    async def commit(self, run_id: str, decide: Decide, *, revoke: bool = False) -> Commit:
        """Let ``decide``'s events happen: the log, the rows and the state in memory change together or not at all.

        With ``revoke`` all leases of the run end with it, so that nobody works on it any more. Raises
        :class:`NotFound`, whatever ``decide`` raises, IllegalEvent for what cannot happen, :class:`LeaseLost` and
        :class:`StorageFailed`.
        """
        # A caller that is cancelled must not tear the log and the state in memory apart.
        return await self._database.uninterrupted(self._commit(run_id, decide, revoke))

    async def _commit(self, run_id: str, decide: Decide, revoke: bool) -> Commit:
        give_up_at = time.monotonic() + (PATIENCE_SECONDS if self.leases.guarded else 0.0)
        unsure: list[_Attempt] = []
        async with self._locks[run_id]:
            while True:
                try:
                    before = await self._current(run_id)
                    for earlier in unsure:
                        if await self._happened(earlier):
                            chronicle.tell(before, earlier.events)
                            return earlier.commit(before)
                    attempt = _Attempt(run_id, before, tuple(decide(before)))
                    if not attempt.events:
                        return Commit(before, ())
                    unsure.append(attempt)
                    encoded = [encode(event) for event in attempt.events]
                    await self._database.transact(self._attempt, attempt, encoded, revoke)
                except OutOfDate:
                    unsure.remove(attempt)
                except StorageFailed:
                    self._searches.pop(run_id, None)
                    if time.monotonic() > give_up_at:
                        raise
                    await asyncio.sleep(0.2)
                else:
                    self._remember(attempt.after)
                    if attempt.after.run.decided_trials > before.run.decided_trials:
                        self.waits.got_on(stream_of(run_id))
                    chronicle.tell(attempt.after, attempt.events)
                    return attempt.commit(attempt.after)

    def _attempt(self, connection: Connection, attempt: _Attempt, encoded: Sequence[NewEvent], revoke: bool) -> None:
        """One transaction. Raises :class:`OutOfDate` when the run has gone on since ``attempt.before``."""
        before, run_id = attempt.before, attempt.run_id
        stream, last = stream_of(run_id), before.run.last_sequence
        self.leases.check(connection)
        if revoke:
            self.leases.revoke(connection, stream)
        attempt.stored = self._log.put(connection, stream, encoded, after=last)
        for event, at in zip(attempt.events, attempt.stored, strict=True):
            attempt.after = apply(attempt.after, event, at.time, at.sequence, run_id)
        projections.write(connection, before, attempt.after)
        self.lessons.follow(connection, attempt.after, attempt.events)

    async def _happened(self, attempt: _Attempt) -> bool:
        """Whether an attempt whose end nobody saw was committed."""
        if not attempt.stored:
            return False
        stream, after = stream_of(attempt.run_id), attempt.before.run.last_sequence
        return await self._log.read(stream, after, len(attempt.stored)) == attempt.stored

    async def runs(self, limit: int, before: int | None = None) -> list[tuple[int, Run]]:
        """Heads of up to ``limit`` runs, newest first, with their numbers; ``before`` continues after that number."""
        query = (
            select(runs.c.number, runs.c.id, runs.c.created, runs.c.head).order_by(runs.c.number.desc()).limit(limit)
        )
        if before is not None:
            query = query.where(runs.c.number < before)
        rows = await self._database.fetch(query)
        return [(row.number, projections.run_of(row.created, row.head)) for row in rows]

    async def trials(self, run_id: str, limit: int, after: int = -1) -> list[Trial]:
        """Up to ``limit`` trials with numbers greater than ``after``, by number. Raises :class:`NotFound`."""
        query = select(trials.c.document).where(trials.c.run == run_id, trials.c.number > after)
        rows = await self._database.fetch(query.order_by(trials.c.number).limit(limit))
        if not rows:
            await self.search(run_id)
        return [projections.trial_of(row.document) for row in rows]

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
        ended = run.state.terminal
        async for item in self._log.watch(stream_of(run_id), after, heartbeat=heartbeat, draining=draining):
            if isinstance(item, StoredEvent):
                entry = _entry(run_id, item)
                yield entry
                ended = ended or (isinstance(entry.event, trace.RunStateChanged) and entry.event.to_state.terminal)
            else:
                yield item
            if ended and item.sequence >= (await self.search(run_id)).run.last_sequence:
                return

    async def _current(self, run_id: str) -> Search:
        """The state after the newest event. The caller holds the run's lock."""
        search = self._searches.get(run_id) or await self._load(run_id)
        if self.shared:
            search = await self._caught_up(run_id, search)
        self._remember(search)
        return search

    async def _load(self, run_id: str) -> Search:
        return await self._database.read(projections.load, run_id) or await self.rebuild(run_id)

    async def rebuild(self, run_id: str) -> Search:
        """Write a run's rows anew from its trace. Raises :class:`NotFound`."""
        async with self._database.transaction() as connection:
            await self._log.lock(connection, stream_of(run_id))
            search = await self._caught_up(run_id, None, connection)
            await connection.run_sync(projections.rewrite, search)
        return search

    async def verify(self, run_id: str = "") -> list[Problem]:
        """Everything that rows or numbers say and the trace does not bear out; of all runs without ``run_id``.

        Raises :class:`NotFound` for a run without rows and without a trace.
        """
        async with self._database.reading() as connection:
            streams = await self._log.streams(connection)
            known = {stream_of(row.id) for row in await connection.execute(select(runs.c.id))}
        there = streams.keys() | known
        if run_id and stream_of(run_id) not in there:
            raise _unknown(run_id)
        wanted = {stream_of(run_id)} if run_id else there
        found = []
        for stream in sorted(wanted):
            found += [Problem(stream, text) for text in await self._problems(stream)]
        return found

    async def _problems(self, stream: str) -> list[str]:
        """What is wrong with one run, seen at one moment."""
        run_id = stream.removeprefix("runs/")
        async with self._database.reading() as connection:
            last = (await self._log.streams(connection)).get(stream)
            if last is None:
                return ["there are rows, but no trace"]
            if missing := await self._log.missing(connection, stream, last):
                return missing
            try:
                folded = await self._caught_up(run_id, None, connection)
            except Unfoldable as error:
                return [str(error)]
            return await connection.run_sync(projections.differences, folded)

    async def _caught_up(self, run_id: str, search: Search | None, connection: Transaction | None = None) -> Search:
        """The fold of what was appended after ``search``; of the whole trace after None."""
        after = 0 if search is None else search.run.last_sequence
        while events := await self._log.read(stream_of(run_id), after, 1000, connection=connection):
            for stored in events:
                search = _after(search, stored, run_id)
            after = events[-1].sequence
        if search is None:
            self._locks.pop(run_id, None)
            raise _unknown(run_id)
        return search

    def _remember(self, search: Search) -> None:
        self._searches[search.run.id] = search
        self._searches.move_to_end(search.run.id)
        ended = [run_id for run_id, known in self._searches.items() if known.run.state.terminal]
        for run_id in ended[:-_ENDED_IN_MEMORY]:
            del self._searches[run_id]


class _Attempt:
    """A commit in the making."""

    def __init__(self, run_id: str, before: Search, events: Sequence[trace.Event]) -> None:
        self.run_id = run_id
        self.before = self.after = before
        self.events = events
        self.stored: list[StoredEvent] = []

    def commit(self, search: Search) -> Commit:
        """What it did, once it is done."""
        pairs = zip(self.stored, self.events, strict=True)
        return Commit(search, tuple(Entry(self.run_id, s.sequence, s.time, event) for s, event in pairs))


def _after(search: Search | None, stored: StoredEvent, run_id: str) -> Search:
    try:
        event = decode(stored.kind, stored.payload)
    except ValueError as error:
        raise Unfoldable(f"event {stored.sequence} cannot be read: {in_one_line(error)}") from error
    try:
        return apply(search, event, stored.time, stored.sequence, run_id)
    except IllegalEvent as error:
        raise Unfoldable(f"event {stored.sequence} cannot follow those before it: {error}") from error


def _unknown(run_id: str) -> NotFound:
    return NotFound("run", f"runs/{run_id}", "ListRuns gives the runs that exist")


def stream_of(run_id: str) -> str:
    """The name of the run's stream in the log."""
    return f"runs/{run_id}"


def _entry(run_id: str, stored: StoredEvent) -> Entry:
    return Entry(run_id, stored.sequence, stored.time, decode(stored.kind, stored.payload))
