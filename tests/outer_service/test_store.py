"""The campaign store's contract, on every database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from sqlalchemy import text, update

from outer_service import events
from outer_service.campaign import CampaignState, Level, Policy
from outer_service.fold import IllegalEvent
from outer_service.store import Store
from outer_service.tables import campaigns
from service_kit.errors import AlreadyExists, Exhausted, NotFound
from service_kit.leases import LeaseLost
from service_kit.security.quota import Quota

CREATED = events.CampaignCreated("runs/r", "gpt", Policy(levels=(Level.CONFIGURATION,)))


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = await Store.open(database_url)
    yield store
    await store.close()


def cycle(campaign) -> list[events.Event]:
    number = campaign.cycles + 1
    return [events.CycleStarted(number, 5 * number, (Level.CONFIGURATION,), number), events.CycleFinished(number)]


async def test_a_campaign_is_what_its_log_says_after_opening_again(store: Store, database_url: str) -> None:
    await store.create("c", CREATED)
    for _ in range(5):
        campaign = await store.commit("c", cycle)
    await store.close()
    again = await Store.open(database_url)
    assert await again.campaign("c") == campaign
    assert await again.verify() == []
    assert await again.rebuild("c") == campaign
    await again.close()


async def test_a_row_of_other_code_is_not_read(store: Store) -> None:
    await store.create("c", CREATED)
    campaign = await store.commit("c", cycle)
    async with store._database.transaction() as connection:
        await connection.execute(update(campaigns).values(fingerprint="old", document={"of": "another age"}))
    assert await store.campaign("c") == campaign
    assert (await store.campaigns(10))[0][1] == campaign
    assert (await store.commit("c", cycle)).cycles == 2
    assert await store.verify() == []


async def test_commits_see_each_other_and_lose_nothing(store: Store) -> None:
    await store.create("c", CREATED)
    await asyncio.gather(*(store.commit("c", cycle) for _ in range(10)))
    assert (await store.campaign("c")).cycles == 10
    assert await store.verify() == []


async def test_stores_that_share_a_database_see_each_others_commits(postgres) -> None:
    with postgres.database() as url:
        async with AsyncExitStack() as stack:
            stores = [await Store.open(url) for _ in range(3)]
            for store in stores:
                stack.push_async_callback(store.close)
            made = await asyncio.gather(
                *(s.create(f"c{i}", CREATED) for i, s in enumerate(stores)), return_exceptions=True
            )
            assert sorted(type(one).__name__ for one in made) == ["AlreadyExists", "AlreadyExists", "tuple"]
            [campaign] = await stores[0].campaigns_in(CampaignState.ACTIVE)
            await asyncio.gather(*(store.commit(campaign.id, cycle) for store in stores for _ in range(5)))
            assert [(await store.campaign(campaign.id)).cycles for store in stores] == [15] * 3
            assert await stores[0].leases.acquire(campaign.name)
            assert not await stores[1].leases.acquire(campaign.name)
            assert await stores[1].leases.of_others() == {campaign.name}
            assert await stores[0].verify() == []


async def test_a_guarded_commit_fails_once_its_lease_is_gone(store: Store) -> None:
    await store.create("c", CREATED)
    async with store.leases.working("campaigns/c") as taken:
        assert taken
        await store.commit("c", cycle)
        await store.leases.release("campaigns/c")
        with pytest.raises(LeaseLost):
            await store.commit("c", cycle)
    assert (await store.campaign("c")).cycles == 1


async def test_what_cannot_happen_leaves_nothing_behind(store: Store) -> None:
    campaign, _ = await store.create("c", CREATED)
    with pytest.raises(IllegalEvent):
        await store.commit("c", lambda _: [events.CycleFinished(7)])
    with pytest.raises(AlreadyExists):
        await store.create("d", CREATED)
    with pytest.raises(NotFound):
        await store.commit("d", cycle)
    assert await store.campaign("c") == campaign
    assert await store.verify() == []


@pytest.mark.parametrize(
    ("statement", "finding", "mendable"),
    [
        ("UPDATE campaigns SET state = 'paused'", "the row's state is paused", True),
        ("UPDATE campaigns SET document = json_set(document, '$.cycles', 77)", "cycles is not what the log says", True),
        ("UPDATE campaigns SET document = '{}'", "the row cannot be read", True),
        ("UPDATE campaigns SET document = '{oops'", "the row cannot be read: it is not JSON", True),
        ("UPDATE campaigns SET run = 'runs/other'", "the row's run is runs/other, the log says runs/", True),
        ("UPDATE events SET payload = '{not json' WHERE sequence = 2", "event 2 cannot be read: it is not JSON", False),
        ("DELETE FROM campaigns", "the row of the campaign is missing", True),
        ("DELETE FROM events WHERE sequence = 2", "event 2 is missing", False),
        ("UPDATE events SET kind = 'unheard_of' WHERE sequence = 3", "event 3 cannot be read", False),
        ("DELETE FROM events; DELETE FROM event_streams", "there are rows, but no log", False),
    ],
)
async def test_damage_is_found(tmp_path, statement: str, finding: str, mendable: bool) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 'outer.db'}")
    await store.create("c", CREATED)
    campaign = await store.commit("c", cycle)
    async with store._database.transaction() as connection:
        for part in statement.split("; "):
            await connection.execute(text(part))
    found = await store.verify()
    assert any(finding in problem.text for problem in found), found
    assert not any("\n" in problem.text or "https:" in problem.text for problem in found)
    if mendable:
        assert await store.rebuild("c") == campaign
        assert await store.verify() == []
    await store.close()


async def test_one_token_has_as_many_campaigns_as_it_may(store: Store) -> None:
    one = Quota.load(active=1)
    mine, other = (replace(CREATED, run=f"runs/{run}", owner="ann") for run in ("r1", "r2"))
    assert (await store.create("c1", mine, quota=one))[0].owner == "ann"
    with pytest.raises(Exhausted, match=r"active campaigns of the token 'ann' has reached its limit of 1: there are 1"):
        await store.create("c2", other, quota=one)
    await store.create("c3", replace(other, owner="bob"), quota=one)
    assert (await store.rebuild("c1")).owner == "ann"
    assert await store.verify() == []
