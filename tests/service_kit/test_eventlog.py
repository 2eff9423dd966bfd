"""The event log keeps its numbers gap-free and lets anyone resume from anywhere, on every database."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service_kit.database import Database
from service_kit.errors import InvalidArgument, ServiceError
from service_kit.eventlog import EventLog, Idle, NewEvent, StoredEvent, metadata


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[Database, EventLog]]:
    database = await Database.open(url)
    async with database.transaction() as connection:
        await connection.run_sync(metadata.create_all)
    try:
        yield database, EventLog(database)
    finally:
        await database.close()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[tuple[Database, EventLog]]:
    async with opened(database_url) as pair:
        yield pair


async def append(store: tuple[Database, EventLog], stream: str, *kinds: str) -> list[StoredEvent]:
    database, log = store
    async with database.transaction() as transaction:
        return await log.append(transaction, stream, [NewEvent(kind, {"n": i}) for i, kind in enumerate(kinds)])


async def test_events_are_numbered_from_one_in_each_stream_and_read_back_as_stored(store) -> None:
    before = datetime.now(UTC)
    stored = await append(store, "runs/a", "created", "started") + await append(store, "runs/a", "ended")
    await append(store, "runs/b", "created")
    assert [event.sequence for event in stored] == [1, 2, 3]
    assert await store[1].read("runs/a") == stored
    assert await store[1].read("runs/a", after=1, limit=1) == stored[1:2]
    assert before <= stored[0].time <= datetime.now(UTC)
    assert [await store[1].last_sequence(stream) for stream in ("runs/a", "runs/b", "runs/c")] == [3, 1, 0]


async def test_a_rolled_back_transaction_leaves_no_event_no_gap_and_wakes_nobody(store) -> None:
    database, log = store
    await append(store, "s", "first")

    async def fail() -> None:
        async with database.transaction() as transaction:
            await log.append(transaction, "s", [NewEvent("lost")])
            assert len(await log.read("s", connection=transaction)) == 2
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert [event.sequence for event in await append(store, "s", "second")] == [2]
    assert [event.kind for event in await log.read("s")] == ["first", "second"]


async def test_a_transaction_in_one_go_appends_and_a_connection_outside_of_one_is_refused(store) -> None:
    database, log = store
    assert [stored.sequence for stored in await database.transact(log.put, "s", [NewEvent("one")])] == [1]
    assert await log.last_sequence("s") == 1
    async with database.reading() as connection:
        with pytest.raises(RuntimeError, match=r"Database\.transact"):
            await log.append(connection, "s", [NewEvent("two")])


async def test_concurrent_appenders_of_two_handles_keep_the_numbers_gap_free(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        await asyncio.gather(*(append(store, f"s{i % 2}", "x", "y") for i in range(20) for store in (one, two)))
        for stream in ("s0", "s1"):
            events = await one[1].read(stream)
            assert [event.sequence for event in events] == list(range(1, 41))
            assert [event.kind for event in events] == ["x", "y"] * 20


async def test_a_reader_sees_a_whole_transaction_or_nothing_of_it(store) -> None:
    database, log = store
    async with database.transaction() as transaction:
        await log.append(transaction, "s", [NewEvent("a"), NewEvent("b")])
        assert await log.read("s") == []
    assert len(await log.read("s")) == 2


async def take(log: EventLog, count: int, stream: str = "s", after: int = 0, **options) -> list[StoredEvent | Idle]:
    taken: list[StoredEvent | Idle] = []
    async with aclosing(log.watch(stream, after, **options)) as events:
        async for event in events:
            taken.append(event)
            if len(taken) == count:
                break
    return taken


async def test_a_watch_that_keeps_up_reads_nothing_again(store, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, log = 0, store[1]
    read = log.read

    async def counted(*arguments, **options) -> list[StoredEvent]:
        nonlocal reads
        reads += 1
        return await read(*arguments, **options)

    monkeypatch.setattr(log, "read", counted)
    await append(store, "s", "first")
    async with aclosing(log.watch("s", poll=600.0)) as events:
        assert (await anext(events)).sequence == 1
        following = asyncio.ensure_future(anext(events))
        for sequence in range(2, 12):
            await append(store, "s", "next")
            assert (await asyncio.wait_for(following, 10)).sequence == sequence
            following = asyncio.ensure_future(anext(events))
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert reads <= 2, "the stored events, and whether there are more"


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    cut=st.floats(0, 1),
    written_before=st.floats(0, 1),
    batch=st.integers(1, 7),
)
async def test_resuming_from_any_number_sees_exactly_the_rest(
    sizes: list[int], cut: float, written_before: float, batch: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with opened(f"sqlite:///{folder}/deep/e.db") as store:
            early = round(len(sizes) * written_before)
            after, total = round(sum(sizes) * cut), sum(sizes)
            for size in sizes[:early]:
                await append(store, "s", *["k"] * size)
            watching = asyncio.create_task(take(store[1], total - after, after=after, batch=batch))
            for size in sizes[early:]:
                await append(store, "s", *["k"] * size)
            if total > after:
                seen = await asyncio.wait_for(watching, 10)
                assert [event.sequence for event in seen] == list(range(after + 1, total + 1))
                assert seen == await store[1].read("s", after=after)
            else:
                watching.cancel()


async def test_a_watcher_is_woken_by_the_commit_and_not_by_its_poll(store) -> None:
    watching = asyncio.create_task(take(store[1], 1, poll=3600, heartbeat=3600))
    async with asyncio.timeout(10):
        while not store[1]._watched:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await append(store, "s", "x")
        (event,) = await watching
    assert event.kind == "x"
    assert not store[1]._watched


async def test_appends_through_another_handle_are_seen_by_polling(database_url: str) -> None:
    async with opened(database_url) as here, opened(database_url) as elsewhere:
        watching = asyncio.create_task(take(here[1], 3, poll=0.01, heartbeat=3600))
        for kind in "abc":
            await append(elsewhere, "s", kind)
        assert [event.kind for event in await asyncio.wait_for(watching, 10)] == ["a", "b", "c"]


async def test_an_idle_watch_gives_signs_of_life_with_its_place(store) -> None:
    await append(store, "s", "x", "y")
    seen = await asyncio.wait_for(take(store[1], 4, heartbeat=0.01), 10)
    assert [type(item) for item in seen] == [StoredEvent, StoredEvent, Idle, Idle]
    assert seen[-1] == Idle(2)


async def test_a_slow_watcher_delays_no_appender_and_still_misses_nothing(store) -> None:
    async with aclosing(store[1].watch("s", batch=4)) as events:
        await append(store, "s", "first")
        seen = [await anext(events)]
        for _ in range(50):
            await asyncio.wait_for(append(store, "s", "x"), 10)
        seen += [await anext(events) for _ in range(50)]
    assert [event.sequence for event in seen] == list(range(1, 52))


async def test_a_watch_ends_at_drain_after_delivering_what_is_stored(store) -> None:
    draining = asyncio.Event()
    watching = asyncio.create_task(take(store[1], 99, draining=draining))
    await append(store, "s", "x", "y")
    draining.set()
    assert [event.kind for event in await asyncio.wait_for(watching, 10)] == ["x", "y"]


async def test_events_survive_reopening(database_url: str) -> None:
    async with opened(database_url) as store:
        (event,) = await append(store, "s", "x")
    async with opened(database_url) as store:
        assert await store[1].read("s") == [event]
        assert (await append(store, "s", "y"))[0].sequence == 2
        assert timedelta(0) <= datetime.now(UTC) - event.time < timedelta(minutes=1)


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:"])
async def test_a_database_url_that_cannot_work_is_named(url: str) -> None:
    with pytest.raises(InvalidArgument, match="BILEVEL_DATABASE: must"):
        await Database.open(url)


async def test_a_file_that_is_no_database_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "e.db").write_text("this is no database, but a long enough text to be read as one" * 20)
    with pytest.raises(ServiceError, match=r"cannot open the database .*file is not a database"):
        await Database.open(f"sqlite:///{tmp_path}/e.db")


async def test_an_unreachable_database_is_named_without_its_password() -> None:
    with pytest.raises(ServiceError, match="cannot open the database") as caught:
        await Database.open("postgresql://me:swordfish@127.0.0.1:1/x")
    assert "swordfish" not in str(caught.value)
    assert "127.0.0.1:1/x" in caught.value.message


async def test_a_cancelled_caller_tears_no_commit_apart_and_closing_waits_for_it(database_url: str) -> None:
    begun, finish = asyncio.Event(), asyncio.Event()
    async with opened(database_url) as (database, log):

        async def commit() -> None:
            async with database.transaction() as connection:
                await log.append(connection, "runs/1", [NewEvent("started")])
                begun.set()
                await finish.wait()

        caller = asyncio.create_task(database.uninterrupted(commit()))
        await begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        closing = asyncio.create_task(database.close())
        finish.set()
        await closing
    async with opened(database_url) as (_, log):
        assert await log.last_sequence("runs/1") == 1
