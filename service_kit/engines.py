"""How statements reach a database without holding up the event loop.

What a transaction does is a plain function of a SQLAlchemy connection. On SQLite it runs in a thread, whole, so that a
transaction of ten statements costs one hop to another thread and not forty; on PostgreSQL the driver awaits the socket.

Ownership: one engine a :class:`~service_kit.database.Database`, which closes it. Concurrency: what is done on one
connection is done one after the other. Work that has begun in a thread is waited for even when its caller is cancelled:
nobody gives a connection back that is still in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import copy_context
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Engine, Executable, Result, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import _CoreAnyExecuteParams
from sqlalchemy.ext.asyncio import create_async_engine

T = TypeVar("T")
P = ParamSpec("P")
CONNECTIONS = 10
"""To one database, by one process."""
BUSY_SECONDS = 30
"""How long SQLite waits for a writer of another process."""
CONNECT_SECONDS = 10
IDLE_SECONDS = 30.0
"""How long PostgreSQL keeps the locks of a process that is frozen in the middle of a transaction; then it undoes it."""
_WRITES = "bilevel_writes"


class _Run(Protocol):
    async def __call__(self, work: Callable[[Connection], T], /) -> T: ...


class Transaction:
    """An open transaction, or a consistent view for reading."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    async def run_sync(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do ``work``, which is called with the connection and may use it until it returns."""
        return await self._run(lambda connection: work(connection, *args, **kwargs))

    async def execute(
        self, statement: Executable, parameters: _CoreAnyExecuteParams | None = None
    ) -> Result[*tuple[Any, ...]]:
        """One statement, with all of its rows."""
        return await self.run_sync(_executed, statement, parameters)


def _executed(
    connection: Connection, statement: Executable, parameters: _CoreAnyExecuteParams | None
) -> Result[*tuple[Any, ...]]:
    result = connection.execute(statement, parameters)
    return result.freeze()() if result.returns_rows else result


class DatabaseEngine(Protocol):
    """A way to a database."""

    @property
    def sync_engine(self) -> Engine:
        """What SQLAlchemy's events come from."""
        ...

    def connect(self, *, writing: bool) -> AbstractAsyncContextManager[Transaction]:
        """A connection for several steps; what was not committed when the block ends is undone."""
        ...

    async def run(self, work: Callable[[Connection], T], *, writing: bool) -> T:
        """``work`` on a connection of its own, in one go."""
        ...

    async def close(self) -> None: ...


class SqliteEngine:
    """SQLite in threads."""

    def __init__(self, url: URL, **options: Any) -> None:
        self.sync_engine = create_engine(url, pool_size=CONNECTIONS, max_overflow=0, **options)
        self._writing = self.sync_engine.execution_options(**{_WRITES: True})
        self._threads = ThreadPoolExecutor(CONNECTIONS, "sqlite")
        self._free = asyncio.Semaphore(CONNECTIONS)  # so that no thread ever waits for the pool
        event.listen(self.sync_engine, "connect", _prepare_sqlite)
        event.listen(self.sync_engine, "begin", _begin_sqlite)

    @asynccontextmanager
    async def connect(self, *, writing: bool) -> AsyncIterator[Transaction]:
        opened: list[Connection] = []

        async def run(work: Callable[[Connection], T]) -> T:
            return await self._in_thread(lambda: work(opened[0]))

        async with self._free:
            try:
                await self._in_thread(lambda: opened.append(self._engine(writing).connect()))
                yield Transaction(run)
            finally:
                for connection in opened:
                    await self._in_thread(connection.close)

    async def run(self, work: Callable[[Connection], T], *, writing: bool) -> T:
        def whole() -> T:
            with self._engine(writing).connect() as connection:
                return work(connection)

        async with self._free:
            return await self._in_thread(whole)

    async def close(self) -> None:
        self.sync_engine.dispose()
        self._threads.shutdown(wait=False)

    def _engine(self, writing: bool) -> Engine:
        return self._writing if writing else self.sync_engine

    async def _in_thread(self, work: Callable[[], T]) -> T:
        doing = asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, work)
        cancelled: asyncio.CancelledError | None = None
        while not doing.done():
            try:
                await asyncio.wait([doing])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            doing.exception()  # has been looked at: the caller hears of its cancellation instead
            raise cancelled
        return doing.result()


class PostgresEngine:
    """PostgreSQL through a driver that knows the event loop."""

    def __init__(self, url: URL, **options: Any) -> None:
        # A database that names no encoding (SQL_ASCII) would give bytes where text is expected.
        arguments = {"connect_timeout": CONNECT_SECONDS, "client_encoding": "utf8"}
        self._writing = create_async_engine(
            url, pool_pre_ping=True, pool_size=CONNECTIONS, connect_args=arguments, **options
        )
        self._reading = self._writing.execution_options(isolation_level="REPEATABLE READ")
        self.sync_engine = self._writing.sync_engine
        event.listen(self.sync_engine, "connect", _prepare_postgresql)

    @asynccontextmanager
    async def connect(self, *, writing: bool) -> AsyncIterator[Transaction]:
        async with (self._writing if writing else self._reading).connect() as connection:
            yield Transaction(connection.run_sync)

    async def run(self, work: Callable[[Connection], T], *, writing: bool) -> T:
        async with (self._writing if writing else self._reading).connect() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self._writing.dispose()


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_SECONDS * 1000:.0f}")  # milliseconds
    cursor.close()
    connection.commit()


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
