"""Several candidates at the same time: never two alike, in batches or as places become free, over restarts."""

import asyncio
import gc
from typing import Any

import pytest
from bilevel.v1 import common_pb2, trace_pb2
from hypothesis import given
from hypothesis import strategies as st

from inner_service.choice import Option
from inner_service.driving import Driver
from inner_service.round import Round
from inner_service.run import Run, RunSpec, Search, Trial
from mechanisms.interface import Candidate, Origin
from service_kit.leases import LeaseLost
from tests.inner_service.test_budgets import START, TASK

ASYNCHRONOUS = trace_pb2.PARALLEL_MODE_ASYNCHRONOUS


def option(x: float, origin: Origin = Origin.MODEL) -> Option:
    return Option(Candidate({"x": x}, "", origin), f"x = {x}")


@given(
    st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0]), max_size=12),
    st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0]), max_size=3, unique=True),
)
def test_no_batch_holds_two_alike_nor_one_that_is_under_way(wanted: list[float], flying: list[float]) -> None:
    baseline = Trial(0, {"x": 0.0}, {}, "", Origin.BASELINE, metric=1.0)
    under_way = [Trial(i, {"x": x}, {"x": x}, "", Origin.MODEL) for i, x in enumerate(flying, start=1)]
    run = Run("r", RunSpec("t", 9, parallelism=4), TASK, START, START, 9, incumbent=0)
    search = Search(run, (baseline, *under_way), open=tuple(t.number for t in under_way))
    round_ = Round(search, search and None, 4, {}, ())  # type: ignore[arg-type]
    pool: list[Option] = []
    for x in wanted:
        if not round_.twin({"x": x}, pool):
            pool.append(option(x))
    found = [o.candidate.changes["x"] for o in pool]
    assert found == list(dict.fromkeys(x for x in wanted if x not in flying)), "all that are new, in their order"
    both = round_.distinct([*pool, *[option(x, Origin.MECHANISM) for x in wanted]])
    assert [o.candidate.changes["x"] for o in both][: len(found)] == found
    assert len({o.candidate.changes["x"] for o in both}) == len(both)


async def test_a_batch_asks_once_for_distinct_candidates_and_again_for_what_was_double(inner, endpoint) -> None:
    answers = [[4.0, 4.0, 5.0], [5.0], [6.0]]
    endpoint.answer = lambda _: [({"x": x}, "move x") for x in answers.pop(0)]
    run, events = await inner.driven(max_trials=3, parallelism=3)
    trials = await inner.trials(run.name)
    assert [state["count"] for state in endpoint.states] == [3, 1, 1]
    refused = [t.message for t in trials if t.state == trace_pb2.TRIAL_STATE_REJECTED]
    assert refused == ["is the same configuration as another candidate of this proposal"] * 2
    measured = [t.configuration.values["x"].double_value for t in trials if t.outcome == common_pb2.OUTCOME_SUCCEEDED]
    assert sorted(measured) == [4.0, 5.0, 6.0, 8.0]
    assert len(inner.of(events, "model_called")) == 3


async def test_a_model_that_only_repeats_itself_gets_a_smaller_batch(inner, endpoint) -> None:
    endpoint.answer = lambda state: [({"x": 3.5}, "again")] * state["count"]
    run, _ = await inner.driven(max_trials=1, parallelism=4)
    assert run.decided_trials == 1
    assert run.state == trace_pb2.RUN_STATE_FINISHED


async def test_one_at_a_time_nothing_is_de_duplicated(inner, endpoint) -> None:
    endpoint.answer = lambda _: [({"x": 9.0}, "stubborn")]
    run, _ = await inner.driven(max_trials=3)
    assert [t.state for t in await inner.trials(run.name)] == [4, 5, 5, 5], "the control group measures what it is told"


async def test_an_asynchronous_run_fills_a_place_as_soon_as_it_is_free(inner, task, endpoint) -> None:
    slow = asyncio.Event()
    task.wait_for = lambda values: slow if values["x"] == 7.0 else None
    xs = iter([7.0, 5.0, 4.0, 3.5, 3.25])
    endpoint.answer = lambda state: [({"x": next(xs)}, "closer") for _ in range(state["count"])]
    name = await inner.create(max_trials=5, parallelism=2, parallel_mode=ASYNCHRONOUS)
    await inner.start(name)
    await inner.until(name, lambda e: e.HasField("trial_decided") and e.trial_decided.number == 5)
    assert task.running == 1, "four trials went by beside the slow one"
    slow.set()
    events = await inner.finished(name)
    assert [d.number for d in inner.of(events, "trial_decided")] == [0, 2, 3, 4, 5, 1]
    assert task.most_running == 2
    trials = await inner.trials(name)
    assert trials[1].incumbent_trial == trials[2].incumbent_trial == trials[0].name
    assert [t.incumbent_trial for t in trials[3:]] == [t.name for t in trials[2:5]], "the incumbent at its proposal"
    late = inner.of(events, "trial_decided")[-1]
    assert not late.kept
    assert late.gain == pytest.approx(0.0625 - 16.0), "judged against the incumbent of the moment"
    assert trials[1].incumbent_metric == pytest.approx(25.0 + 9), "it had another bar when it was proposed"


async def test_the_proposer_is_shown_what_is_under_way_and_never_repeats_it(inner, task, endpoint) -> None:
    slow = asyncio.Event()
    task.wait_for = lambda values: slow if values["x"] == 7.0 else None
    answers = [[7.0, 6.0], [7.0], [5.0]]
    endpoint.answer = lambda _: [({"x": x}, "move x") for x in answers.pop(0)]
    name = await inner.create(max_trials=3, parallelism=2, parallel_mode=ASYNCHRONOUS)
    await inner.start(name)
    await inner.until(name, lambda e: e.HasField("trial_rejected"))
    slow.set()
    await inner.finished(name)
    assert "under_way" not in endpoint.states[0]
    assert [c["changes"] for c in endpoint.states[1]["under_way"]] == [{"x": 7.0}]
    rejected = next(t for t in await inner.trials(name) if t.state == trace_pb2.TRIAL_STATE_REJECTED)
    assert rejected.message == "is the same configuration as trial 1, which is under way"


@pytest.mark.parametrize("mode", [trace_pb2.PARALLEL_MODE_BATCH, ASYNCHRONOUS])
async def test_what_was_in_the_air_at_a_restart_is_a_new_attempt(serve_inner, task, mode) -> None:
    async with serve_inner() as inner:
        name = await inner.create(max_trials=6, parallelism=3, parallel_mode=mode)
        await inner.start(name)
        await inner.until(name, lambda e: e.HasField("trial_decided") and e.trial_decided.number == 0)
        task.gate.clear()
        await inner.until(name, lambda e: e.HasField("trial_proposed") and e.trial_proposed.trial.number == 3)
        while task.running < 3:
            await asyncio.wait_for(task.started.get(), 10)
    task.gate.set()
    async with serve_inner() as inner:
        events = await inner.finished(name)
        run = await inner.run(name)
    assert (run.state, run.decided_trials) == (trace_pb2.RUN_STATE_FINISHED, 6)
    decided = [d.number for d in inner.of(events, "trial_decided")]
    repeated = {e.trial_rejected.number for e in events if e.HasField("trial_rejected")}  # the peer may repeat itself
    assert sorted(decided) == [n for n in range(7 + len(repeated)) if n not in repeated], "each once"
    attempts: dict[int, int] = {s.number: s.attempt for s in inner.of(events, "trial_started")}
    assert {number for number, attempt in attempts.items() if attempt == 2}


async def test_pausing_works_off_what_is_in_the_air(inner, task) -> None:
    from bilevel.v1 import inner_pb2 as pb

    task.hold_after(1)
    name = await inner.create(max_trials=9, parallelism=3, parallel_mode=ASYNCHRONOUS)
    await inner.start(name)
    for _ in range(4):
        await asyncio.wait_for(task.started.get(), 10)
    await inner.stub.PauseRun(pb.PauseRunRequest(name=name, reason="lunch"))
    task.gate.set()
    paused = await inner.until_state(name, "PAUSED")
    assert paused.run_state_changed.reason == "lunch"
    assert (await inner.run(name)).decided_trials == 3
    assert task.running == 0


async def test_of_several_flights_that_lose_the_lease_at_once_no_error_is_left_for_asyncio_to_report(inner) -> None:
    driver, reported = Driver(await inner.runs._loops.of((await inner.create()).split("/")[1])), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))

    async def lost() -> Trial:
        raise LeaseLost("runs/r")

    driver._flights = {number: asyncio.create_task(lost()) for number in (1, 2)}
    await asyncio.wait(driver._flights.values())
    with pytest.raises(LeaseLost):
        await driver._land()
    gc.collect()
    assert reported == []


async def test_a_model_that_fails_while_others_fly_lets_them_land_first(inner, task, endpoint) -> None:
    from aiohttp import web

    slow = asyncio.Event()
    task.wait_for = lambda values: slow if values["x"] == 7.0 else None
    answers: list[Any] = [[({"x": 7.0}, "slow"), ({"x": 6.0}, "fast")], web.Response(status=401, text="{}")]
    endpoint.answer = lambda _: answers.pop(0)
    name = await inner.create(max_trials=9, parallelism=2, parallel_mode=ASYNCHRONOUS)
    await inner.start(name)
    await inner.until(name, lambda e: e.HasField("proposal_failed"))
    slow.set()
    paused = await inner.until_state(name, "PAUSED")
    assert "OPENAI_API_KEY" in paused.run_state_changed.reason
    assert (await inner.run(name)).decided_trials == 2
