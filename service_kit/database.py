"""A service's own database: SQLite in WAL mode by default, PostgreSQL by URL.

Ownership: one :class:`Database` a process; the store that opened it closes it. Any number of tasks of one event loop
may use it. A SQLite file that was opened ``exclusive`` belongs to one process; a PostgreSQL database is always shared.

Concurrency: :meth:`Database.transact` is for writing, :meth:`Database.transaction` for writing in several steps. On
SQLite one writer runs at a time: the others of this process queue in order, those of other processes wait up to half a
minute. On PostgreSQL writers run at the same time and lock the rows that they touch. :meth:`Database.read`, and in
several steps :meth:`Database.reading`, never waits for a writer and never delays one. Keep all of them short and never
await a model or another server inside.

A database that is full, read-only or gone raises :class:`StorageFailed`; the next call tries again.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, Self, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic_core import to_json
from sqlalchemy import Connection, DateTime, Dialect, Executable, Row, Table, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.types import TypeDecorator

from service_kit.damage import read_json
from service_kit.engines import DatabaseEngine, PostgresEngine, SqliteEngine, Transaction
from service_kit.errors import InvalidArgument, ServiceError, StorageFailed
from service_kit.migrations import Schema, WrongRevision
from service_kit.telemetry import metrics

T = TypeVar("T")
P = ParamSpec("P")
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
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
        self._engine: DatabaseEngine = SqliteEngine(url, **json) if self.is_sqlite else PostgresEngine(url, **json)
        self._one_writer = asyncio.Lock() if self.is_sqlite else nullcontext()
        self._after_commit: dict[Connection, list[Callable[[], None]]] = {}
        self._working: set[asyncio.Future[Any]] = set()
        self._lock: IO[bytes] | None = None

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
                await database.read(schema.require_newest)
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

        def upgrade(connection: Connection) -> None:
            if self.is_sqlite:
                # A revision may write a table anew, which must not touch the rows that refer to it. SQLite listens to
                # this only before the transaction begins.
                connection.detach()  # from the pool, whose connections keep an eye on foreign keys
                connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
            with connection.begin():
                if not self.is_sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADING})
                if schema is not None:
                    schema.upgrade(connection)
                if self.is_sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
                    raise ServiceError(f"a row of table {broken[0][0]} refers to one that does not exist")

        await self._engine.run(upgrade, writing=True)

    def _cannot_open(self, reason: str, hint: str) -> ServiceError:
        url = self.url.render_as_string(hide_password=True)
        return ServiceError(f"cannot open the database {url}: {reason}", hint=hint)

    @property
    def shared(self) -> bool:
        """Whether other processes may write to it."""
        return self._lock is None

    async def close(self) -> None:
        await asyncio.gather(*self._working, return_exceptions=True)
        await self._engine.close()
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

    async def transact(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``work`` in a writing transaction, which is committed when it returns and rolled back when it raises.

        On SQLite it runs in a thread, on PostgreSQL in the event loop: it must do nothing but compute and execute.
        """
        hooks: list[Callable[[], None]] = []

        def whole(connection: Connection) -> T:
            with self._hooked(connection, hooks), connection.begin():
                return work(connection, *args, **kwargs)

        async with self._writing():
            with _failures("written"):
                done = await self._engine.run(whole, writing=True)
        for hook in hooks:
            hook()
        return done

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A writing transaction of several steps: committed at the end of the block, rolled back when that raises."""
        hooks: list[Callable[[], None]] = []
        async with self._writing():
            with _failures("written"):
                async with self._engine.connect(writing=True) as transaction:
                    with self._hooked(await transaction.run_sync(_begun), hooks):
                        yield transaction
                        await transaction.run_sync(Connection.commit)
        for hook in hooks:
            hook()

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        """The turn of one writer; how long it takes is measured with the waiting."""
        with metrics.STORE_SECONDS.timing():
            async with self._one_writer:
                yield

    def alone(self, connection: Connection, table: Table) -> None:
        """Let nobody else write to ``table`` before the connection's transaction ends."""
        if not self.is_sqlite:  # where there is one writer anyway
            connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))

    async def write(self, statement: Executable) -> Sequence[Row[Any]]:
        """One statement that returns rows, in a transaction of its own that ends whatever becomes of the caller."""
        return await self.uninterrupted(self.transact(lambda connection: connection.execute(statement).all()))

    async def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``work`` on a consistent view of what was committed when its first statement ran."""
        with _failures("read"):
            return await self._engine.run(lambda connection: work(connection, *args, **kwargs), writing=False)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """A consistent view of what was committed when the first statement of the block ran."""
        with _failures("read"):
            async with self._engine.connect(writing=False) as transaction:
                yield transaction

    async def fetch(self, query: Executable) -> Sequence[Row[Any]]:
        """All rows of a query, read to the end whatever becomes of the caller."""
        return await self.uninterrupted(self.read(lambda connection: connection.execute(query).all()))

    def on_commit(self, connection: Connection, hook: Callable[[], None]) -> None:
        """Call ``hook`` in the event loop once the transaction of ``connection`` has been committed.

        Raises RuntimeError for a connection that is in no transaction of this database.
        """
        if connection not in self._after_commit:
            raise RuntimeError("this needs a connection from Database.transact() or Database.transaction()")
        self._after_commit[connection].append(hook)

    @contextmanager
    def _hooked(self, connection: Connection, hooks: list[Callable[[], None]]) -> Iterator[None]:
        self._after_commit[connection] = hooks
        try:
            yield
        finally:
            del self._after_commit[connection]


def _begun(connection: Connection) -> Connection:
    connection.begin()
    return connection


@contextmanager
def _failures(use: str) -> Iterator[None]:
    """Turn failures of the database into :class:`StorageFailed`; mistakes of ours stay what they are."""
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        if isinstance(error, IntegrityError | ProgrammingError | DataError):
            raise
        raise _failed(use, error) from error


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
