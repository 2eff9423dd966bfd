"""Many runs in one service stay fair to each other: a flood of one delays the others, and starves nobody."""

import asyncio
from datetime import timedelta

from inner_service import trace
from inner_service.run import Search
from inner_service.store import Store
from inner_service.task import EvaluationProgress
from tests.inner_service.conftest import Inner, QuadraticTask
from tests.inner_service.test_store import CREATED, STARTED, proposed

FLOOD = trace.TrialProgressed(0, EvaluationProgress(0.5, 1, timedelta(seconds=1), {"loss": 0.5}, "x" * 500))


async def test_a_flood_of_progress_of_some_runs_takes_its_turns_with_the_others(database_url: str) -> None:
    store = await Store.open(database_url)
    for run_id in [f"r{number}" for number in range(12)]:
        await store.create(run_id, CREATED)
        await store.commit(run_id, lambda _: [STARTED])
        await store.commit(run_id, lambda s: [*proposed(s), trace.TrialStarted(0, 1, 0)])
    committed, enough = dict.fromkeys(range(12), 0), asyncio.Event()

    async def live(number: int) -> None:
        # The first two never pause between commits and have ten events in each; the others are ordinary runs.
        while not enough.is_set():
            await store.commit(f"r{number}", lambda _: [FLOOD] * (10 if number < 2 else 1))
            committed[number] += 1
            if number >= 2 and min(committed[n] for n in range(2, 12)) >= 10:
                enough.set()

    await asyncio.wait_for(asyncio.gather(*map(live, range(12))), 60)
    quiet = [committed[number] for number in range(2, 12)]
    assert max(committed.values()) <= 4 * min(quiet), committed
    assert await store.verify() == []
    await store.close()


async def test_many_runs_at_once_all_finish(inner: Inner, task: QuadraticTask) -> None:
    task.capacity, task.progress = 64, 20
    names = [await inner.create(max_trials=2) for _ in range(16)]
    await asyncio.gather(*map(inner.start, names))
    ended = await asyncio.wait_for(asyncio.gather(*map(inner.finished, names)), 100)
    for events in ended:
        assert [e.sequence for e in events] == list(range(1, len(events) + 1))
        assert [e.trial_decided.number for e in events if e.HasField("trial_decided")] == [0, 1, 2]
    searches: list[Search] = [await inner.runs.store.search(name.removeprefix("runs/")) for name in names]
    last_start = max(trial.start_time for search in searches for trial in search.trials[:1])  # type: ignore[type-var]
    first_end = min(search.run.update_time for search in searches)
    assert last_start < first_end, "the last run's baseline began before the first run had ended"
    assert await inner.runs.store.verify() == []
