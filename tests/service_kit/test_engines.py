"""Transactions as plain functions: a connection is given back when its work has ended, and nobody waits forever."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, text

from service_kit.database import Database
from service_kit.engines import CONNECTIONS
from tests.postgres import PostgresServer

INSERT, COUNT = text("INSERT INTO t VALUES (1)"), text("SELECT count(*) FROM t")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(database_url)
    await database.transact(lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER)")))
    yield database
    await database.close()


async def count(database: Database) -> int:
    return int((await database.fetch(COUNT))[0][0])


async def test_what_raises_is_undone_and_what_returns_is_committed(database: Database) -> None:
    def insert_and(fail: bool, connection: Connection) -> None:
        connection.execute(INSERT)
        if fail:
            raise KeyError

    with pytest.raises(KeyError):
        await database.transact(lambda connection: insert_and(True, connection))
    assert await count(database) == 0
    await database.transact(lambda connection: insert_and(False, connection))
    assert await count(database) == 1


async def test_more_readers_and_writers_than_connections_all_have_their_turn(database: Database) -> None:
    async def step_by_step() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(INSERT)

    async def look() -> None:
        async with database.reading() as view:
            first = (await view.execute(COUNT)).all()
            await asyncio.sleep(0)
            assert (await view.execute(COUNT)).all() == first, "a view does not change"

    work = [*(look() for _ in range(3 * CONNECTIONS)), *(step_by_step() for _ in range(2 * CONNECTIONS))]
    await asyncio.gather(*work, *(database.transact(lambda c: c.execute(INSERT)) for _ in range(CONNECTIONS)))
    assert await count(database) == 3 * CONNECTIONS


async def test_a_caller_that_is_cancelled_waits_for_its_thread(tmp_path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path}/a.db")
    await database.transact(lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER)")))
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        begun.set()
        assert go_on.wait(60)
        connection.execute(INSERT)

    caller = asyncio.create_task(database.transact(slow))
    assert await asyncio.to_thread(begun.wait, 60)
    caller.cancel()
    assert await count(database) == 0, "readers go on"
    assert not caller.done(), "its connection is still in use"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await count(database) == 1
    await database.transact(lambda connection: connection.execute(INSERT))
    assert await count(database) == 2
    await database.close()


async def test_a_database_that_names_no_encoding_gives_text_and_not_bytes(postgres: PostgresServer) -> None:
    with postgres.database("TEMPLATE template0 ENCODING SQL_ASCII LC_COLLATE 'C' LC_CTYPE 'C'") as url:
        database = await Database.open(url)
        try:
            assert (await database.fetch(text("SELECT 'größer'")))[0][0] == "größer"
        finally:
            await database.close()
