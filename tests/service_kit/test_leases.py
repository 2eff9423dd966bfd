"""Leases of two processes on one database whose clock jumps, and whose owners freeze and come back."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from inner_service.tables import SCHEMA
from service_kit import engines
from service_kit.database import Database
from service_kit.errors import StorageFailed
from service_kit.leases import LeaseLost, Leases

NAME, SECONDS = "runs/a", 10.0


@dataclass
class Two:
    """Two processes; ``now`` is what the second one's own clock says."""

    database: Database
    now: float = 0.0

    def __post_init__(self) -> None:
        self.one, self.two = Leases(self.database, SECONDS), Leases(self.database, SECONDS, lambda: self.now)

    async def database_clock(self, seconds: float) -> None:
        """What the database's clock being set forward (or back) is to the leases that are held: they end sooner."""
        async with self.database.transaction() as connection:
            await connection.execute(text("UPDATE leases SET until = until - :seconds"), {"seconds": seconds})

    async def renew(self) -> None:
        """The first one renews, at a later moment of the database's clock than before."""
        before = await self.until()
        while await self.until() == before:
            assert await self.one.renew() == frozenset()

    async def until(self) -> float:
        async with self.database.reading() as connection:
            found = (await connection.execute(text("SELECT until FROM leases"))).scalar_one()
        return float(found)

    async def write_as_one(self) -> None:
        with self.one.guard(NAME):
            await self.database.transact(self.one.check)


@pytest.fixture
async def both(database_url: str) -> AsyncIterator[Two]:
    database = await Database.open(database_url, SCHEMA)
    yield Two(database)
    await database.close()


async def test_an_owner_that_renews_keeps_its_lease_however_far_the_clock_is_set_back(both: Two) -> None:
    assert await both.one.acquire(NAME)
    await both.database_clock(-3600)
    for _ in range(5):
        assert await both.two.of_others() == {NAME}
        both.now += SECONDS - 1
        assert not await both.two.acquire(NAME)
        await both.renew()
    await both.write_as_one()


async def test_a_dead_owner_is_followed_in_time_although_the_clock_was_set_back_by_an_hour(both: Two) -> None:
    assert await both.one.acquire(NAME)
    await both.database_clock(-3600)
    assert await both.two.of_others() == {NAME}
    both.now += SECONDS
    assert await both.two.of_others() == {NAME}
    assert not await both.two.acquire(NAME)
    both.now += 1
    assert await both.two.of_others() == frozenset()
    assert await both.two.acquire(NAME)
    with pytest.raises(LeaseLost):
        await both.write_as_one()
    assert await both.one.renew() == {NAME}


async def test_one_that_wakes_between_the_look_and_the_taking_keeps_its_lease(both: Two) -> None:
    assert await both.one.acquire(NAME)
    await both.database_clock(-3600)
    await both.two.of_others()
    both.now += SECONDS + 1
    assert await both.two.of_others() == frozenset()
    await both.renew()
    assert not await both.two.acquire(NAME)
    await both.write_as_one()


async def test_a_clock_that_is_set_forward_moves_the_lease_and_the_former_owner_writes_nothing(both: Two) -> None:
    assert await both.one.acquire(NAME)
    await both.database_clock(3600)
    assert await both.two.of_others() == frozenset()
    assert await both.two.acquire(NAME)
    with pytest.raises(LeaseLost):
        await both.write_as_one()
    assert not await both.one.keep(NAME)


async def test_what_is_given_back_and_taken_again_during_a_renewal_is_not_lost(
    both: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await both.one.acquire(NAME)
    assert await both.one.acquire("runs/b")
    write = both.database.write

    async def interrupted(statement: Any) -> Any:
        monkeypatch.undo()
        await both.one.release(NAME)
        await both.one.release("runs/b")
        renewed = await write(statement)
        assert await both.one.acquire(NAME)
        return renewed

    monkeypatch.setattr(both.database, "write", interrupted)
    assert await both.one.renew() == frozenset()
    assert not await both.one.acquire(NAME), "it is held"
    assert await both.one.renew() == frozenset()
    await both.write_as_one()


async def test_an_owner_that_freezes_in_the_middle_of_a_transaction_is_followed_all_the_same(
    postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction holds the lease's row. To the database, a frozen process is one that sends nothing."""
    monkeypatch.setattr(engines, "IDLE_SECONDS", 0.3)
    with postgres.database() as url:
        frozen, other = await Database.open(url, SCHEMA), await Database.open(url, SCHEMA)
        one, two = Leases(frozen, 0.1), Leases(other, SECONDS)
        assert await one.acquire(NAME)

        async def write_frozen() -> None:
            async with frozen.transaction() as connection:
                with one.guard(NAME):
                    await connection.run_sync(one.check)
                while not await two.acquire(NAME):
                    pass
                await connection.execute(text("DELETE FROM leases"))

        with pytest.raises(StorageFailed):
            await write_frozen()
        assert not await one.keep(NAME)
        await frozen.close()
        await other.close()
