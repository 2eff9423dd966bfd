"""An append-only, numbered event log on SQL: the trace of a run, the history of a campaign.

Events of one *stream* are numbered 1, 2, 3 … without gaps, in the order in which their transactions commit. A number is
assigned in the caller's transaction, beside the state that the event describes: both are stored or neither is.

Ownership: the log borrows its :class:`~service_kit.database.Database`; closing that ends the log. Concurrency: any
number of tasks and processes may append and watch. A watcher reads from the database at its own pace and holds nothing
while its consumer is busy, so that a slow one delays nobody and a lost one can go on from any number.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, MetaData, String, Table, bindparam, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from service_kit.database import Database, Moment

metadata = MetaData()
"""The tables of the log; give it to :meth:`Database.open` or to a migration."""

_streams = Table(
    "event_streams",
    metadata,
    Column("stream", String(255), primary_key=True),
    Column("last_sequence", BigInteger, nullable=False),
)
_events = Table(
    "events",
    metadata,
    Column("stream", String(255), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("time", Moment, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("payload", JSON, nullable=False),
)
# The row of the stream stays locked until the transaction ends, and an undone transaction takes its numbers back.
_RESERVE = text(
    "INSERT INTO event_streams (stream, last_sequence) VALUES (:stream, :count) ON CONFLICT (stream) DO UPDATE "
    "SET last_sequence = event_streams.last_sequence + excluded.last_sequence RETURNING last_sequence"
)
_READ = (
    select(_events)
    .where(_events.c.stream == bindparam("stream"), _events.c.sequence > bindparam("after"))
    .order_by(_events.c.sequence)
    .limit(bindparam("limit"))
)


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Something that happened. ``payload`` is JSON-ready."""

    kind: str
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with its place in its stream and the time (UTC) at which it was appended."""

    stream: str
    sequence: int
    time: datetime
    kind: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Idle:
    """A sign of life from a watch: nothing after ``sequence`` has been appended."""

    sequence: int


class EventLog:
    """The event log of one service."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    async def append(
        self, transaction: AsyncConnection | AsyncSession, stream: str, events: Sequence[NewEvent]
    ) -> list[StoredEvent]:
        """Append ``events`` in the caller's transaction; watchers hear of them when it commits.

        Raises RuntimeError when ``transaction`` does not come from :meth:`Database.transaction`. A transaction that
        appends to several streams must do so in the order of their names, or PostgreSQL may find a deadlock.
        """
        if not events:
            return []
        connection = await self._database.on_commit(transaction, lambda: self._wake(stream))
        last = (await connection.execute(_RESERVE, {"stream": stream, "count": len(events)})).scalar_one()
        now, first = datetime.now(UTC), last - len(events) + 1
        stored = [StoredEvent(stream, first + i, now, e.kind, dict(e.payload)) for i, e in enumerate(events)]
        await connection.execute(insert(_events), [asdict(event) for event in stored])
        return stored

    async def read(
        self, stream: str, after: int = 0, limit: int = 1000, *, connection: AsyncConnection | None = None
    ) -> list[StoredEvent]:
        """Up to ``limit`` events with numbers greater than ``after``, oldest first.

        With ``connection`` inside that transaction, which sees its own appends.
        """
        if connection is None:
            return await self._database.uninterrupted(self._read(stream, after, limit))
        rows = await connection.execute(_READ, {"stream": stream, "after": after, "limit": limit})
        return [StoredEvent(*row) for row in rows]

    async def _read(self, stream: str, after: int, limit: int) -> list[StoredEvent]:
        async with self._database.reading() as connection:
            return await self.read(stream, after, limit, connection=connection)

    async def last_sequence(self, stream: str) -> int:
        """The number of the newest event; 0 for a stream without events."""
        rows = await self._database.fetch(select(_streams.c.last_sequence).where(_streams.c.stream == stream))
        return rows[0].last_sequence if rows else 0

    async def watch(
        self,
        stream: str,
        after: int = 0,
        *,
        heartbeat: float = 15.0,
        poll: float = 1.0,
        batch: int = 256,
        draining: asyncio.Event | None = None,
    ) -> AsyncIterator[StoredEvent | Idle]:
        """Every event after number ``after``, each exactly once and in order, then the new ones as they are committed.

        Yields :class:`Idle` after each ``heartbeat`` seconds without an event. Appends of other processes are seen
        within ``poll`` seconds. Ends after the stored events when ``draining`` is set, else never. ``batch`` is the
        largest number of events in memory.
        """
        draining = draining or asyncio.Event()
        appended = asyncio.Event()
        self._watchers[stream].add(appended)
        loop = asyncio.get_running_loop()
        idle_at = loop.time() + heartbeat
        try:
            while True:
                appended.clear()  # before reading, so that an append in between is not missed
                ending = draining.is_set()
                events = await self.read(stream, after, batch)
                for event in events:
                    yield event
                    after, idle_at = event.sequence, loop.time() + heartbeat
                if events:
                    continue
                if ending:
                    return
                await _first_of(appended, draining, timeout=max(0.0, min(poll, idle_at - loop.time())))
                if loop.time() >= idle_at and not appended.is_set():
                    yield Idle(after)
                    idle_at = loop.time() + heartbeat
        finally:
            self._watchers[stream].discard(appended)
            if not self._watchers[stream]:
                del self._watchers[stream]

    def _wake(self, stream: str) -> None:
        for appended in self._watchers.get(stream, ()):
            appended.set()


async def _first_of(*events: asyncio.Event, timeout: float) -> None:
    """Return when one of the events is set or ``timeout`` seconds have passed."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
