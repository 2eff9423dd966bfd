"""A service's own database: SQLite in WAL mode by default, PostgreSQL by URL.

Ownership: one :class:`Database` a process; the store that opened it closes it. Any number of tasks of one event loop
may use it. A SQLite file that was opened ``exclusive`` belongs to one process; a PostgreSQL database is always shared.

Concurrency: :meth:`Database.transaction` is for writing. On SQLite one writer runs at a time: the others of this
process queue in order, those of other processes wait up to ``BUSY_SECONDS``. On PostgreSQL writers run at the same time
and lock the rows that they touch. :meth:`Database.reading` never waits for a writer and never delays one. Keep both
short and never await a model or another server inside.

A database that is full, read-only or gone raises :class:`StorageFailed`; the next call tries again.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic_core import to_json
from sqlalchemy import Connection, DateTime, Dialect, Executable, Row, Table, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.types import TypeDecorator

from service_kit.damage import read_json
from service_kit.errors import InvalidArgument, ServiceError, StorageFailed
from service_kit.migrations import Schema, WrongRevision

T = TypeVar("T")
BUSY_SECONDS = 30
CONNECT_SECONDS = 10
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}
_WRITES = "bilevel_writes"
_UPGRADING = 0x62696C65
"""PostgreSQL's advisory lock for whoever brings the tables to the newest revision."""


class Moment(TypeDecorator[datetime]):
    """Column type for a point in time: an aware datetime in, the same moment in UTC out, on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Database:
    """An open database. Create it with :meth:`open`."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        json: dict[str, Any] = {"json_serializer": _to_json, "json_deserializer": read_json}
        if self.is_sqlite:
            self._engine = create_async_engine(url, **json)
            self._reading_engine = self._engine
        else:
            arguments = {"connect_timeout": CONNECT_SECONDS}
            self._engine = create_async_engine(url, pool_pre_ping=True, pool_size=10, connect_args=arguments, **json)
            self._reading_engine = self._engine.execution_options(isolation_level="REPEATABLE READ")
        self._writing_engine = self._engine.execution_options(**{_WRITES: True})
        self._one_writer = asyncio.Lock() if self.is_sqlite else nullcontext()
        self._after_commit: dict[Connection, list[Callable[[], None]]] = {}
        self._working: set[asyncio.Future[Any]] = set()
        self._lock: IO[bytes] | None = None
        if self.is_sqlite:
            event.listen(self._engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin_sqlite)

    @classmethod
    async def open(
        cls, url: str, schema: Schema | None = None, *, exclusive: bool = False, upgrade: bool = True
    ) -> Self:
        """Connect, and bring the tables to the newest revision of ``schema``; without ``upgrade`` they must be there.

        With ``exclusive`` no other process can open the same SQLite file exclusively until this one closes it or ends.
        Raises :class:`InvalidArgument` for a URL that cannot be used and :class:`ServiceError` when connecting fails or
        the tables are newer than the code.
        """
        database = cls(_checked(url))
        try:
            if database.is_sqlite:
                file = _file(database.url)
                _find(file, create=upgrade)
                if exclusive:
                    database._lock = _locked(file)
            if upgrade:
                await database._upgrade(schema)
            elif schema is not None:
                async with database.reading() as connection:
                    await connection.run_sync(schema.require_newest)
        except (DBAPIError, OSError) as error:
            await database.close()
            hint = "Set BILEVEL_DATABASE to another URL, or BILEVEL_HOME to a folder that can be written."
            raise database._cannot_open(str(getattr(error, "orig", error)).strip(), hint) from error
        except WrongRevision as error:
            await database.close()
            raise database._cannot_open(error.message, error.hint) from None
        return database

    async def _upgrade(self, schema: Schema | None) -> None:
        """Bring the tables to the newest revision in one transaction, one process after the other."""
        async with self._writing_engine.connect() as connection:
            if self.is_sqlite:
                # A revision may write a table anew, which must not touch the rows that refer to it. SQLite listens to
                # this only before the transaction begins.
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                await driver.execute("PRAGMA foreign_keys=OFF")
            async with connection.begin():
                if not self.is_sqlite:
                    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADING})
                if schema is not None:
                    await connection.run_sync(schema.upgrade)
                if self.is_sqlite and (broken := (await connection.exec_driver_sql("PRAGMA foreign_key_check")).all()):
                    raise ServiceError(f"a row of table {broken[0][0]} refers to one that does not exist")
        await self._engine.dispose()  # the next connections keep an eye on foreign keys again

    def _cannot_open(self, reason: str, hint: str) -> ServiceError:
        url = self.url.render_as_string(hide_password=True)
        return ServiceError(f"cannot open the database {url}: {reason}", hint=hint)

    @property
    def shared(self) -> bool:
        """Whether other processes may write to it."""
        return self._lock is None

    async def close(self) -> None:
        await asyncio.gather(*self._working, return_exceptions=True)
        await self._engine.dispose()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def uninterrupted(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` to its end even when the caller is cancelled, which the caller then still hears of.

        For whatever uses the database on behalf of someone who may go away: a driver that is torn out of a statement
        can leave a commit whose fate nobody knows, or a connection that cannot be closed.
        """
        task = asyncio.ensure_future(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return await asyncio.shield(task)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction: committed at the end of the block, rolled back when the block raises."""
        hooks: list[Callable[[], None]] = []
        async with self._one_writer, self._connected(self._writing_engine, "written") as connection:
            assert connection.sync_connection is not None
            self._after_commit[connection.sync_connection] = hooks
            try:
                async with connection.begin():
                    yield connection
            finally:
                del self._after_commit[connection.sync_connection]
        for hook in hooks:
            hook()

    async def alone(self, transaction: AsyncConnection, table: Table) -> None:
        """Let nobody else write to ``table`` before the transaction ends."""
        if not self.is_sqlite:  # where there is one writer anyway
            await transaction.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))

    async def write(self, statement: Executable) -> Sequence[Row[Any]]:
        """One statement that returns rows, in a transaction of its own that ends whatever becomes of the caller."""
        return await self.uninterrupted(self._write(statement))

    async def _write(self, statement: Executable) -> Sequence[Row[Any]]:
        async with self.transaction() as connection:
            return (await connection.execute(statement)).all()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A consistent view of what was committed when the first statement of the block ran."""
        async with self._connected(self._reading_engine, "read") as connection:
            yield connection

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine, use: str) -> AsyncIterator[AsyncConnection]:
        try:
            async with engine.connect() as connection:
                yield connection
        except (DBAPIError, PoolTimeout) as error:
            if isinstance(error, IntegrityError | ProgrammingError | DataError):
                raise  # a mistake of ours and no failure of the database
            raise _failed(use, error) from error

    async def fetch(self, query: Executable) -> Sequence[Row[Any]]:
        """All rows of a query, read to the end whatever becomes of the caller."""
        return await self.uninterrupted(self._fetch(query))

    async def _fetch(self, query: Executable) -> Sequence[Row[Any]]:
        async with self.reading() as connection:
            return (await connection.execute(query)).all()

    async def on_commit(self, transaction: AsyncConnection | AsyncSession, hook: Callable[[], None]) -> AsyncConnection:
        """Call ``hook`` once ``transaction`` has been committed; returns its connection.

        ``transaction`` is what :meth:`transaction` yielded, or a session bound to that. Raises RuntimeError for others.
        """
        connection = await transaction.connection() if isinstance(transaction, AsyncSession) else transaction
        hooks = self._after_commit.get(connection.sync_connection) if connection.sync_connection is not None else None
        if hooks is None:
            raise RuntimeError("this needs a connection from Database.transaction(), or a session bound to one")
        hooks.append(hook)
        return connection


def _to_json(value: Any) -> str:
    return to_json(value, inf_nan_mode="constants").decode()


def _failed(use: str, error: Exception) -> StorageFailed:
    reason = " ".join(str(getattr(error, "orig", error)).split())
    said = reason.lower()
    if "full" in said or "no space" in said:
        hint = "Make space on its disk: what was committed is kept, and runs go on by themselves."
    elif "readonly" in said or "read-only" in said:
        hint = "Make it writable again: what was committed is kept, and runs go on by themselves."
    elif "malformed" in said or "not a database" in said:
        hint = "Put back a copy of it, or choose another with --database or BILEVEL_DATABASE."
    elif "no such table" in said or "no such column" in said:
        hint = "It lacks what this service keeps: choose the right one with --database or BILEVEL_DATABASE."
    else:
        hint = "Check the database and its disk: what was committed is kept, and runs go on by themselves."
    return StorageFailed(f"the database cannot be {use}: {reason}", hint=hint)


def _checked(url: str) -> URL:
    def wrong(description: str) -> InvalidArgument:
        return InvalidArgument.of("BILEVEL_DATABASE", description)

    try:
        parsed = make_url(url)
    except ArgumentError:
        raise wrong("must be a SQLAlchemy URL such as sqlite:////data/inner.db") from None
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS:
        raise wrong(f"must begin with sqlite:// or postgresql://; got {backend}://")
    if backend == "sqlite" and (_file(parsed).name in {"", ":memory:"} or parsed.query.get("mode") == "memory"):
        raise wrong("must name a file: every connection needs to see the same data")
    return parsed.set(drivername=_DRIVERS[backend])


def _file(url: URL) -> Path:
    """The file of a SQLite URL, also of one such as ``sqlite:///file:/data/inner.db?mode=ro&uri=true``."""
    name = url.database or ""
    return Path(unquote(urlsplit(name).path) if name.startswith("file:") and "uri" in url.query else name)


def _find(file: Path, *, create: bool) -> None:
    """Make room for a SQLite file, or insist that it exists."""
    if not create and not file.exists():
        raise InvalidArgument.of("BILEVEL_DATABASE", f"must name a database that exists; {file} does not")
    file.parent.mkdir(parents=True, exist_ok=True)


def _locked(database: Path) -> IO[bytes]:
    """A lock beside ``database`` that the kernel takes back when this process ends, however that happens."""
    path = Path(f"{database}.lock")
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        hint = "Stop the other one, or choose another database with --database or BILEVEL_DATABASE."
        raise ServiceError(f"the database {database} is in use by another process", hint=hint) from None
    return file


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver would begin transactions itself, too late and never IMMEDIATE: _begin_sqlite does it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails when another writer came between; IMMEDIATE waits instead.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
