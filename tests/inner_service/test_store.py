"""The store's contract, on every database: the log, the rows and the state in memory never say different things."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text, update

from inner_service import projections, trace
from inner_service.amendments import IllegalEvent
from inner_service.run import RunSpec, RunState, Search, Trial, TrialState
from inner_service.store import Store
from inner_service.tables import runs
from inner_service.task import EvaluationProgress, EvaluationResult, TaskDescription
from mechanisms.interface import Origin
from service_kit.errors import NotFound
from service_kit.leases import LeaseLost
from service_kit.parameters import Direction, Kind, Objective, Outcome, Parameter, ParameterSpace

SPACE = ParameterSpace((Parameter("x", Kind.REAL, 1.0, "where", minimum=0.0, maximum=9.0),))
TASK = TaskDescription(
    name="line",
    title="A line",
    documentation="",
    space=SPACE,
    objective=Objective("loss", Direction.MINIMIZE),
    budget=timedelta(seconds=1),
    budget_clock="wall",
    capacity=1,
    hard_limit=timedelta(seconds=5),
)
CREATED = trace.RunCreated(RunSpec("line", 100), TASK)
STARTED = trace.RunStateChanged(RunState.CREATED, RunState.RUNNING, "started")


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = await Store.open(database_url)
    yield store
    await store.close()


def proposed(search: Search) -> list[trace.Event]:
    number = len(search.trials)
    origin = Origin.MODEL if number else Origin.BASELINE
    return [trace.TrialProposed(Trial(number, {"x": 1.5}, {"x": 1.5}, "why", origin))]


def some_next(choose: random.Random) -> Callable[[Search], list[trace.Event]]:
    """Any one thing that may happen to a run next."""

    def decide(search: Search) -> list[trace.Event]:
        possible: list[trace.Event] = [trace.Remarked("me", "text"), *proposed(search)]
        for trial in search.open_trials:
            number = trial.number
            if trial.state is TrialState.PROPOSED:
                possible += [trace.TrialRejected(number, "no"), trace.TrialStarted(number, trial.attempt + 1, 0)]
            elif trial.state is TrialState.RUNNING:
                result = EvaluationResult(Outcome.SUCCEEDED, 1 / (number + 1), {"s": 0.5}, elapsed=timedelta(seconds=2))
                possible += [
                    trace.TrialProgressed(
                        number, EvaluationProgress(0.5, 1, timedelta(seconds=1), {"loss": 0.5}, "half")
                    ),
                    trace.TrialEvaluated(number, result),
                ]
            else:
                possible += [
                    trace.TrialDecided(number, True, "better", True, 0.1),
                    trace.TrialDecided(number, False, "w"),
                ]
        return [choose.choice(possible)]

    return decide


async def lived(store: Store, seed: int, events: int, run_id: str = "r") -> Search:
    """A run with some history."""
    choose = random.Random(seed)
    await store.create(run_id, CREATED)
    search = (await store.commit(run_id, lambda _: [STARTED])).search
    for _ in range(events):
        search = (await store.commit(run_id, some_next(choose))).search
    return search


@pytest.mark.parametrize("seed", range(3))
async def test_a_run_is_opened_as_it_was_from_rows_and_from_its_trace(
    store: Store, database_url: str, seed: int
) -> None:
    search = await lived(store, seed, 40)
    await store.close()
    again = await Store.open(database_url)
    assert await again.search("r") == search
    assert await again.rebuild("r") == search
    assert await again.verify() == []
    await again.close()


async def test_a_run_is_opened_without_reading_its_trace(store: Store, database_url: str) -> None:
    search = await lived(store, 1, 20)
    async with store._database.transaction() as connection:
        await connection.execute(text("DELETE FROM events WHERE sequence < 20"))
    await store.close()
    again = await Store.open(database_url)
    assert await again.search("r") == search
    await again.close()


async def test_rows_of_other_code_are_not_read_but_written_anew(store: Store, database_url: str) -> None:
    search = await lived(store, 2, 20)
    async with store._database.transaction() as connection:
        await connection.execute(update(runs).values(fingerprint="old", head={"written": "by other code"}))
        await connection.execute(text("""UPDATE trials SET document = '{"of": "another age"}'"""))
    await store.close()
    again = await Store.open(database_url)
    assert await again.search("r") == search
    assert await again._database.read(projections.load, "r") == search
    assert await again.verify() == []
    await again.close()


async def test_what_cannot_happen_leaves_nothing_behind(store: Store) -> None:
    before = await lived(store, 3, 10)
    with pytest.raises(IllegalEvent):
        await store.commit("r", lambda _: [trace.Remarked("me", "first"), trace.TrialStarted(99, 1, 0)])
    with pytest.raises(KeyError):
        await store.commit("r", lambda _: {}["no such thing"])
    assert await store.search("r") == before
    assert len([entry async for entry in store.entries("r")]) == before.run.last_sequence
    assert await store.verify() == []


async def test_nothing_to_happen_appends_nothing(store: Store) -> None:
    before = await lived(store, 3, 5)
    commit = await store.commit("r", lambda _: [])
    assert (commit.search, commit.entries) == (before, ())


async def test_a_request_creates_one_run_however_often_it_is_made(store: Store) -> None:
    made = await asyncio.gather(*(store.create(f"r{i}", CREATED, "once") for i in range(5)))
    assert len({search.run.id for search in made}) == 1
    assert len(await store.runs(10)) == 1
    assert await store.verify() == []


async def test_an_unknown_run_is_not_found(store: Store) -> None:
    for ask in (store.search("nobody"), store.commit("nobody", lambda _: []), store.rebuild("nobody")):
        with pytest.raises(NotFound):
            await ask


async def test_commits_of_one_run_see_each_other_and_lose_nothing(store: Store) -> None:
    await lived(store, 4, 0)
    await asyncio.gather(*(store.commit("r", proposed) for _ in range(20)))
    search = await store.search("r")
    assert [trial.number for trial in search.trials] == list(range(20))
    assert await store.verify() == []


async def test_watchers_see_every_entry_once_and_end_with_the_run(store: Store) -> None:
    await lived(store, 5, 10)

    async def watched() -> list[int]:
        return [e.sequence async for e in store.watch("r", 3, heartbeat=60, draining=asyncio.Event())]

    watching = asyncio.create_task(watched())
    for _ in range(5):
        await store.commit("r", lambda _: [trace.Remarked("me", "text")])

    def cancelled(search: Search) -> list[trace.Event]:
        closing = [trace.TrialRejected(t.number, "x") for t in search.open_trials if t.state is TrialState.PROPOSED]
        return [*closing, trace.RunStateChanged(RunState.RUNNING, RunState.CANCELLED, "enough")]

    def all_closed(search: Search) -> list[trace.Event]:
        events: list[trace.Event] = []
        for trial in search.open_trials:
            if trial.state is TrialState.RUNNING:
                events.append(trace.TrialEvaluated(trial.number, EvaluationResult(Outcome.CANCELLED)))
            if trial.state is not TrialState.PROPOSED:
                events.append(trace.TrialDecided(trial.number, False, "cancelled"))
        return events

    await store.commit("r", all_closed)
    last = (await store.commit("r", cancelled)).search.run.last_sequence
    assert await asyncio.wait_for(watching, 20) == list(range(4, last + 1))


async def test_a_guarded_commit_fails_once_its_lease_is_gone(store: Store) -> None:
    await lived(store, 6, 5)
    remark = trace.Remarked("driver", "text")
    assert await store.leases.acquire("runs/r")
    with store.leases.guard("runs/r"):
        await store.commit("r", lambda _: [remark])
    before = (await store.commit("r", lambda _: [remark], revoke=True)).search
    with store.leases.guard("runs/r"), pytest.raises(LeaseLost):
        await store.commit("r", lambda _: [remark])
    assert await store.search("r") == before
    assert await store.leases.renew() == {"runs/r"}


@pytest.mark.parametrize(
    ("statement", "finding", "mendable"),
    [
        ("UPDATE runs SET state = 'paused'", "state is paused, the trace says running", True),
        ("UPDATE runs SET head = json_set(head, '$.decided_trials', 77)", "decided_trials is 77", True),
        ("DELETE FROM trials WHERE number = 0", "trial 0: the row is missing", True),
        ("UPDATE trials SET document = json_set(document, '$.hypothesis', 'lie')", "hypothesis is lie", True),
        ("UPDATE trials SET document = '{}' WHERE number = 0", "trial 0: the row cannot be read", True),
        (
            "UPDATE trials SET document = '{oops' WHERE number = 3",
            "trial 3: the row cannot be read: it is not JSON",
            True,
        ),
        ("UPDATE runs SET head = '{oops'", "run: the row cannot be read: it is not JSON", True),
        ("UPDATE runs SET created = ''", "run: the row cannot be read: it is not JSON", True),
        ("UPDATE trials SET state = 'lost' WHERE number = 3", "trial 3: the row's state is lost, the trace says", True),
        (
            "UPDATE trials SET decision = 77 WHERE number = 0",
            "trial 0: the row's decision is 77, the trace says 0",
            True,
        ),
        ("UPDATE events SET payload = '{not json' WHERE sequence = 4", "event 4 cannot be read: it is not JSON", False),
        ("UPDATE events SET payload = '{}' WHERE sequence = 4", "event 4 cannot be read: ", False),
        ("UPDATE events SET time = 'noon' WHERE sequence = 4", "an event after 0 cannot be read: ", False),
        ("DELETE FROM trials; DELETE FROM mechanisms; DELETE FROM runs", "the row of the run is missing", True),
        ("DELETE FROM events WHERE sequence = 5", "event 5 is missing", False),
        ("DELETE FROM events WHERE sequence = (SELECT max(sequence) FROM events)", "is missing", False),
        ("UPDATE event_streams SET last_sequence = 9", "event 10 is there, but 9 is the last", False),
        ("UPDATE events SET kind = 'unheard_of' WHERE sequence = 4", "event 4 cannot be read", False),
        ("UPDATE events SET payload = json_set(payload, '$.number', 9) WHERE kind = 'trial_started'", "cannot", False),
    ],
)
async def test_damage_is_found_and_rebuilding_mends_what_can_be(
    tmp_path: Path, statement: str, finding: str, mendable: bool
) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 'inner.db'}")
    try:
        await lived(store, 1, 30)
        assert await store.verify() == []
        async with store._database.transaction() as connection:
            for part in statement.split("; "):
                await connection.execute(text(part))
        found = await store.verify()
        assert any(finding in problem.text for problem in found), found
        assert {problem.stream for problem in found} == {"runs/r"}
        assert not any("\n" in problem.text or "https:" in problem.text for problem in found)
        if mendable:
            await store.rebuild("r")
            assert await store.verify() == []
    finally:
        await store.close()


async def test_rows_without_a_trace_are_found(store: Store) -> None:
    await lived(store, 1, 3)
    async with store._database.transaction() as connection:
        await connection.execute(text("DELETE FROM events"))
        await connection.execute(text("DELETE FROM event_streams"))
    assert [(p.stream, p.text) for p in await store.verify()] == [("runs/r", "there are rows, but no trace")]


async def test_moments_are_aware_and_in_order(store: Store) -> None:
    await lived(store, 1, 10)
    times = [entry.time async for entry in store.entries("r")]
    assert times == sorted(times)
    assert all(time.tzinfo is not None and time <= datetime.now(UTC) for time in times)
