"""Leases: which process works on something that several could work on, such as the driver of a run.

A lease has a name, an owner and a time until which it holds, by the database's own clock; its owner renews it each
second. Whoever finds one that has run out may take it over, and one that nobody has renewed for as long as a lease
lasts, whatever the database's clock says: it may have been set back. Names form a tree: ``runs/a/trials/1`` is below
``runs/a``.

Ownership: one :class:`Leases` a process; it borrows the :class:`~service_kit.database.Database`. Concurrency: taking a
lease is one statement, so that it has one owner at most. A lease alone cannot stop a process that was asleep while its
lease ran out; :meth:`Leases.check` can. Called in a transaction that writes, it fails unless the lease of the current
:meth:`Leases.guard` still is this process's, and keeps it so until the transaction has ended.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Double, MetaData, String, Table, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from service_kit.database import Database
from service_kit.errors import ServiceError, StorageFailed
from service_kit.telemetry import metrics

LEASE_SECONDS = 10.0
"""How long work rests when its owner has died, unless BILEVEL_LEASE_SECONDS says otherwise."""

metadata = MetaData()
_leases = Table(
    "leases",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("owner", String(32), nullable=False),
    Column("until", Double, nullable=False),  # seconds since 1970 by the database's clock
)
_guarded: ContextVar[str] = ContextVar("guarded", default="")


class LeaseLost(ServiceError):
    """Another process has taken over what this one worked on, or was asked to end it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is no longer worked on by this process")


@dataclass(frozen=True, slots=True)
class _Sighting:
    """A lease of another process, as it was found."""

    owner: str
    until: float
    first: float
    """When it was first found like this, in this process's monotonic seconds."""


class _Now(FunctionElement[float]):
    """The database's clock, in seconds since 1970; it goes on within a transaction."""

    type = Double()
    inherit_cache = True


@compiles(_Now, "sqlite")
def _sqlite_now(_element: Any, _compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(_Now, "postgresql")
def _postgresql_now(_element: Any, _compiler: Any, **_: Any) -> str:
    return "extract(epoch FROM clock_timestamp())::float8"


class Leases:
    """The leases of one process."""

    def __init__(
        self, database: Database, seconds: float = LEASE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``seconds`` is how long a lease lasts, the same in all processes of a database."""
        self.owner = secrets.token_hex(8)
        self.seconds = seconds
        self._database = database
        self._held: dict[str, object] = {}
        """Names, each with a token of its last taking."""
        self._taking: set[str] = set()
        self._clock = clock
        self._sightings: dict[str, _Sighting] = {}

    async def acquire(self, name: str) -> bool:
        """Take a lease. False while it is another's, or is held by another part of this process."""
        if name in self._held or name in self._taking:
            return False
        self._taking.add(name)
        try:
            return await self.keep(name)
        finally:
            self._taking.discard(name)

    async def keep(self, name: str) -> bool:
        """Take a lease, or hold one longer that this process has. False while it is another's."""
        dialect = sqlite if self._database.is_sqlite else postgresql
        wanted = dialect.insert(_leases).values(name=name, owner=self.owner, until=_Now() + self.seconds)
        free = or_(_leases.c.owner == self.owner, _leases.c.until < _Now())
        if (seen := self._sightings.get(name)) is not None and self._abandoned(seen):
            free = or_(free, (_leases.c.owner == seen.owner) & (_leases.c.until == seen.until))
        statement = wanted.on_conflict_do_update(
            index_elements=[_leases.c.name],
            set_={"owner": wanted.excluded.owner, "until": wanted.excluded.until},
            where=free,
        ).returning(_leases.c.owner)
        taken = bool(await self._database.write(statement))
        if taken:
            self._held[name] = object()
            metrics.LEASES.set(len(self._held))
        return taken

    async def release(self, name: str) -> None:
        """Give a lease back; one that is another's stays."""
        self._held.pop(name, None)
        metrics.LEASES.set(len(self._held))
        mine = (_leases.c.name == name) & (_leases.c.owner == self.owner)
        await self._database.write(delete(_leases).where(mine).returning(_leases.c.name))

    async def renew(self) -> frozenset[str]:
        """Keep everything that this process holds; returns the names of what it has lost."""
        expected = dict(self._held)
        if not expected:
            return frozenset()
        renewed = update(_leases).where(_leases.c.owner == self.owner).values(until=_Now() + self.seconds)
        kept = {row.name for row in await self._database.write(renewed.returning(_leases.c.name))}
        # What was given back meanwhile is not lost, nor is what was taken again since.
        lost = {name for name in expected.keys() - kept if self._held.get(name) is expected[name]}
        for name in lost:
            del self._held[name]
        metrics.LEASES.set(len(self._held))
        return frozenset(lost)

    async def of_others(self, name: str = "") -> frozenset[str]:
        """Names at and below ``name`` that other living processes hold; all without a name."""
        query = select(_leases).where(_leases.c.owner != self.owner, _leases.c.until >= _Now())
        query = query.where(_within(name)) if name else query
        found = {row.name: self._sighting(row.name, row.owner, row.until) for row in await self._database.fetch(query)}
        self._sightings = {**self._sightings, **found} if name else found
        return frozenset(name for name, seen in found.items() if not self._abandoned(seen))

    def _sighting(self, name: str, owner: str, until: float) -> _Sighting:
        seen = self._sightings.get(name)
        if seen is not None and (seen.owner, seen.until) == (owner, until):
            return seen
        return _Sighting(owner, until, self._clock())

    def _abandoned(self, seen: _Sighting) -> bool:
        """Whether its owner has not renewed it for as long as it lasts."""
        return self._clock() - seen.first > self.seconds

    def revoke(self, connection: Connection, name: str) -> None:
        """End all leases at and below ``name`` in the connection's transaction, whoever owns them."""
        connection.execute(delete(_leases).where(_within(name)))

    async def revoke_all(self) -> None:
        """End every lease: for a process which knows that it is the only one."""
        await self._database.write(delete(_leases).returning(_leases.c.name))

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Within the block, and in all tasks that it starts, :meth:`check` asks for the lease ``name``."""
        token = _guarded.set(name)
        try:
            yield
        finally:
            _guarded.reset(token)

    @asynccontextmanager
    async def working(self, name: str) -> AsyncIterator[bool]:
        """Hold the lease ``name`` for the block, and guard with it; False where it is another's."""
        if not await self.acquire(name):
            yield False
            return
        try:
            with self.guard(name):
                yield True
        finally:
            with suppress(StorageFailed):  # it runs out by itself
                await self.release(name)

    @property
    def guarded(self) -> bool:
        """Whether the caller is within a :meth:`guard`."""
        return bool(_guarded.get())

    def check(self, connection: Connection) -> None:
        """Within a :meth:`guard`, raise :class:`LeaseLost` unless its lease is this process's until the transaction
        ends."""
        name = _guarded.get()
        if not name:
            return
        query = select(_leases.c.owner).where(_leases.c.name == name).with_for_update(read=True)
        if connection.execute(query).scalar_one_or_none() != self.owner:
            raise LeaseLost(name)


def _within(name: str) -> Any:
    return or_(_leases.c.name == name, _leases.c.name.startswith(f"{name}/", autoescape=True))
