"""An append-only, numbered event log on SQL: the trace of a run, the history of a campaign.

Events of one *stream* are numbered 1, 2, 3 … without gaps, in the order in which their transactions commit. A number is
assigned in the caller's transaction, beside the state that the event describes: both are stored or neither is.

Ownership: the log borrows its :class:`~service_kit.database.Database`; closing that ends the log. Concurrency: any
number of tasks and processes may append and watch. A watcher goes at its own pace: while it keeps up it is given what
this process appended, and when it falls behind it reads from the database, a batch at a time. So a slow one delays
nobody and costs one batch, a hundred that keep up cost no reads, and a lost one can go on from any number.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Connection, MetaData, String, Table, bindparam, insert, select, text

from service_kit.damage import Unfoldable, in_one_line
from service_kit.database import Database, Moment
from service_kit.engines import Transaction
from service_kit.telemetry import metrics

WATCHED_AT_ONCE = 32
"""Events that a watch holds in memory: a trace's events carry whole prompts, and a hundred watchers may stand still."""

SHARED = 512
"""Newest events of a watched stream that its watchers share."""

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
_RESERVE_AFTER = text(
    "UPDATE event_streams SET last_sequence = last_sequence + :count WHERE stream = :stream AND last_sequence = :after "
    "RETURNING last_sequence"
)
_READ = (
    select(_events)
    .where(_events.c.stream == bindparam("stream"), _events.c.sequence > bindparam("after"))
    .order_by(_events.c.sequence)
    .limit(bindparam("limit"))
)

_SEQUENCES = (
    select(_events.c.sequence)
    .where(_events.c.stream == bindparam("stream"), _events.c.sequence > bindparam("after"))
    .order_by(_events.c.sequence)
    .limit(10_000)
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


_COLUMNS = tuple(field.name for field in fields(StoredEvent))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a database that its log does not bear out."""

    stream: str
    text: str


class OutOfDate(Exception):
    """The stream has gone on: it holds events that the caller has not seen."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A sign of life from a watch: nothing after ``sequence`` has been appended."""

    sequence: int


class _Watched:
    """What the watchers of one stream share."""

    def __init__(self) -> None:
        self.watchers: set[asyncio.Event] = set()
        self.read_at = float("-inf")
        """When someone last asked the database for news, in the event loop's time."""
        self._newest: deque[StoredEvent] = deque(maxlen=SHARED)
        """Committed events without a gap, the newest last."""

    @property
    def newest(self) -> int:
        """Number of the newest event that is known here; 0 for none."""
        return self._newest[-1].sequence if self._newest else 0

    def tell(self, events: Sequence[StoredEvent]) -> None:
        """Committed events, in order and without a gap. They replace what is known where they do not follow it."""
        if events[-1].sequence <= self.newest:
            return
        if events[0].sequence != self.newest + 1:
            self._newest.clear()
        self._newest.extend(events)
        for appended in self.watchers:
            appended.set()

    def after(self, sequence: int) -> list[StoredEvent]:
        """The known events after ``sequence``; none when the one right after it is not known."""
        if not self._newest or not self._newest[0].sequence <= sequence + 1 <= self.newest:
            return []
        return list(self._newest)[sequence + 1 - self._newest[0].sequence :]


class EventLog:
    """The event log of one service."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watched: dict[str, _Watched] = {}

    async def append(
        self,
        transaction: Transaction,
        stream: str,
        events: Sequence[NewEvent],
        *,
        after: int | None = None,
    ) -> list[StoredEvent]:
        """:meth:`put` in the caller's transaction."""
        return await transaction.run_sync(self.put, stream, events, after=after)

    def put(
        self, connection: Connection, stream: str, events: Sequence[NewEvent], *, after: int | None = None
    ) -> list[StoredEvent]:
        """Append ``events`` in the connection's transaction; watchers hear of them when it commits.

        With ``after`` only right behind the event of that number: raises :class:`OutOfDate` when there are newer ones,
        so that what was decided in one state does not happen in another. Raises RuntimeError when ``connection`` is in
        no transaction that writes. A transaction that appends to several streams must do so in the order of their
        names, or PostgreSQL may find a deadlock.
        """
        if not events:
            return []
        stored: list[StoredEvent] = []
        self._database.on_commit(connection, lambda: self._tell(stream, stored))
        values: dict[str, Any] = {"stream": stream, "count": len(events)}
        statement = _RESERVE
        if after is not None:
            statement, values = _RESERVE_AFTER, {**values, "after": after}
        last = connection.execute(statement, values).scalar_one_or_none()
        if last is None:
            raise OutOfDate(stream)
        now, first = datetime.now(UTC), last - len(events) + 1
        stored += [StoredEvent(stream, first + i, now, e.kind, dict(e.payload)) for i, e in enumerate(events)]
        rows = [{column: getattr(event, column) for column in _COLUMNS} for event in stored]
        connection.execute(insert(_events), rows)
        return stored

    async def read(
        self, stream: str, after: int = 0, limit: int = 1000, *, connection: Transaction | None = None
    ) -> list[StoredEvent]:
        """Up to ``limit`` events with numbers greater than ``after``, oldest first.

        With ``connection`` inside that transaction, which sees its own appends. Raises :class:`Unfoldable` for a row
        that is no event; a payload that is no JSON stays ``Damaged``.
        """
        if connection is None:
            return await self._database.uninterrupted(self._read(stream, after, limit))
        try:
            rows = await connection.execute(_READ, {"stream": stream, "after": after, "limit": limit})
            return [StoredEvent(*row) for row in rows]
        except ValueError as error:
            raise Unfoldable(f"an event after {after} cannot be read: {in_one_line(error)}") from error

    async def _read(self, stream: str, after: int, limit: int) -> list[StoredEvent]:
        async with self._database.reading() as connection:
            return await self.read(stream, after, limit, connection=connection)

    async def last_sequence(self, stream: str) -> int:
        """The number of the newest event; 0 for a stream without events."""
        rows = await self._database.fetch(select(_streams.c.last_sequence).where(_streams.c.stream == stream))
        return rows[0].last_sequence if rows else 0

    async def missing(self, connection: Transaction, stream: str, last: int) -> list[str]:
        """Which numbers from 1 to ``last`` the stream lacks, and whether it has others, in sentences."""
        found, seen = list[str](), 0
        while sequences := (await connection.execute(_SEQUENCES, {"stream": stream, "after": seen})).scalars().all():
            for sequence in sequences:
                if sequence != seen + 1:
                    found.append(_gap(seen + 1, sequence - 1))
                if sequence > last:
                    found.append(f"event {sequence} is there, but {last} is the last number given out")
                seen = sequence
        return found if seen >= last else [*found, _gap(seen + 1, last)]

    async def lock(self, transaction: Transaction, stream: str) -> None:
        """Let nobody append to ``stream`` before the caller's transaction ends."""
        await transaction.execute(select(_streams).where(_streams.c.stream == stream).with_for_update())

    async def streams(self, connection: Transaction) -> dict[str, int]:
        """Every stream that has a number or an event, with the number that was last given out; 0 where none was."""
        found = {stream: 0 for (stream,) in await connection.execute(select(_events.c.stream).distinct())}
        return found | {row.stream: row.last_sequence for row in await connection.execute(select(_streams))}

    async def watch(
        self,
        stream: str,
        after: int = 0,
        *,
        heartbeat: float = 15.0,
        poll: float = 1.0,
        batch: int = WATCHED_AT_ONCE,
        draining: asyncio.Event | None = None,
    ) -> AsyncIterator[StoredEvent | Idle]:
        """Every event after number ``after``, each exactly once and in order, then the new ones as they are committed.

        Yields :class:`Idle` after each ``heartbeat`` seconds without an event. Appends of other processes are seen
        within ``poll`` seconds. Ends after the stored events when ``draining`` is set, else never. ``batch`` is the
        largest number of events in memory.
        """
        draining = draining or asyncio.Event()
        appended = asyncio.Event()
        watched = self._watched.setdefault(stream, _Watched())
        watched.watchers.add(appended)
        loop = asyncio.get_running_loop()
        idle_at, behind = loop.time() + heartbeat, True
        metrics.WATCHERS.add(1)
        try:
            while True:
                appended.clear()  # before looking, so that an append in between is not missed
                ending = draining.is_set()
                events = watched.after(after)[:batch]
                behind = behind or (not events and watched.newest > after)
                if not events and (behind or ending or loop.time() - watched.read_at >= poll):
                    watched.read_at = loop.time()
                    events = await self.read(stream, after, batch)
                    behind = len(events) == batch
                    if events:
                        watched.tell(events)  # what another process appended: one watcher reads it for all
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
            metrics.WATCHERS.add(-1)
            watched.watchers.discard(appended)
            if not watched.watchers and self._watched.get(stream) is watched:
                del self._watched[stream]

    def _tell(self, stream: str, stored: Sequence[StoredEvent]) -> None:
        if (watched := self._watched.get(stream)) is not None:
            watched.tell(stored)


def _gap(first: int, last: int) -> str:
    return f"event {first} is missing" if first == last else f"events {first} to {last} are missing"


async def _first_of(*events: asyncio.Event, timeout: float) -> None:
    """Return when one of the events is set or ``timeout`` seconds have passed."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
