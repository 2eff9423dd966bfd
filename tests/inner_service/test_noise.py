"""Noise: the floor from repeated baselines, small gains on a second seed, and the confirmation over a crash."""

import asyncio
import statistics
from typing import Any

import pytest
from bilevel.v1 import common_pb2, task_pb2, trace_pb2

from inner_service.noise import NoiseRule, floor_of, repeat_seeds, second_seed
from inner_service.seeds import fresh_seeds

NOISE = trace_pb2.NoiseRule(baseline_repeats=4)


def noisy(spread: float) -> Any:
    """A measure whose value shifts with the seed, by up to ``spread``, for all configurations alike."""

    def measure(values: dict[str, Any], request: task_pb2.EvaluateRequest) -> task_pb2.EvaluationResult:
        loss = (values["x"] - 3.0) ** 2 + spread * (request.seed % 97) / 97
        return task_pb2.EvaluationResult(outcome=common_pb2.OUTCOME_SUCCEEDED, metric=loss)

    return measure


def test_the_floor_is_the_deviation_of_one_and_the_threshold_that_of_a_difference() -> None:
    floor = floor_of(NoiseRule(3, 2.0), (1, 2, 3), (1.0, 2.0, 3.0))
    assert floor.standard_deviation == 1.0
    assert floor.small_gain == pytest.approx(2.0 * 2**0.5)


def test_seeds_of_different_purposes_differ() -> None:
    rule = NoiseRule(5)
    groups = [repeat_seeds(7, rule), fresh_seeds("confirmation", 7, 5), [second_seed(7, n) for n in range(5)]]
    seeds = [seed for group in groups for seed in group]
    assert len(set(seeds)) == 15
    assert 7 not in seeds
    assert second_seed(7, 3) == second_seed(7, 3)


async def test_the_floor_is_estimated_before_the_first_candidate(inner, task) -> None:
    task.measure = noisy(0.5)
    run, events = await inner.driven(max_trials=1, seed=3, noise=NOISE, parallelism=2)
    kinds = inner.kinds(events)
    assert kinds.index("noise_estimated") < kinds.index("model_called")
    repeats = inner.of(events, "trial_remeasured")
    assert len({r.seed for r in repeats}) == 4
    assert all(r.purpose == trace_pb2.REMEASURE_PURPOSE_NOISE_FLOOR and r.number == 0 for r in repeats)
    floor = run.noise_floor
    assert floor.seeds[0] == 3
    assert len(floor.seeds) == 5
    assert floor.standard_deviation == pytest.approx(statistics.stdev(floor.metrics))
    assert task.most_running <= 2


@pytest.mark.parametrize("holds", [True, False])
async def test_a_small_gain_is_kept_only_when_it_holds_on_a_second_seed(inner, task, endpoint, holds) -> None:
    endpoint.answer = lambda _: [({"x": 7.99}, "a hair better")]
    base = noisy(5.0)

    def measure(values: dict[str, Any], request: task_pb2.EvaluateRequest) -> task_pb2.EvaluationResult:
        result = base(values, request)
        lucky = values["x"] == 7.99 and request.seed == 3
        result.metric -= 0.0 if holds or not lucky else 0.5
        result.metric += 0.0 if holds or values["x"] != 7.99 else 0.3
        return result

    task.measure = measure
    run, events = await inner.driven(max_trials=1, seed=3, noise=NOISE)
    [checked] = inner.of(events, "gain_checked")
    assert (checked.number, checked.incumbent, checked.held) == (1, 0, holds)
    assert 0 < checked.first_gain < run.noise_floor.small_gain
    assert (checked.second_gain > 0) is holds
    paired = [r for r in inner.of(events, "trial_remeasured") if r.purpose == trace_pb2.REMEASURE_PURPOSE_GAIN_CHECK]
    assert sorted((r.number, r.seed) for r in paired) == [(0, checked.seed), (1, checked.seed)]
    decided = inner.of(events, "trial_decided")[-1]
    assert (decided.kept, decided.new_best) == (holds, holds)
    assert "may be noise" in decided.reason


async def test_a_large_gain_needs_no_second_seed_and_the_incumbent_is_checked_once(inner, task, endpoint) -> None:
    task.measure = noisy(5.0)
    xs = iter([4.0, 3.999, 9.0, 3.9989])
    endpoint.answer = lambda _: [({"x": next(xs)}, "move x")]
    run, events = await inner.driven(max_trials=4, seed=3, noise=NOISE)
    assert [c.number for c in inner.of(events, "gain_checked")] == [2, 4]
    assert [c.incumbent for c in inner.of(events, "gain_checked")] == [1, 2]
    purpose = trace_pb2.REMEASURE_PURPOSE_GAIN_CHECK
    checks = [r.number for r in inner.of(events, "trial_remeasured") if r.purpose == purpose]
    assert sorted(checks) == [1, 2, 2, 4]
    assert run.best_trial.endswith("/trials/4")


async def test_without_the_rule_every_gain_is_kept(inner, task, endpoint) -> None:
    task.measure = noisy(5.0)
    endpoint.answer = lambda _: [({"x": 7.99}, "a hair better")]
    run, events = await inner.driven(max_trials=1, seed=3)
    assert run.best_trial.endswith("/trials/1")
    assert not inner.of(events, "trial_remeasured")


async def test_a_floor_that_cannot_be_measured_ends_the_run_with_the_reason(inner, task) -> None:
    base = noisy(0.0)

    def measure(values: dict[str, Any], request: task_pb2.EvaluateRequest) -> task_pb2.EvaluationResult:
        if request.seed != 3:
            return task_pb2.EvaluationResult(outcome=common_pb2.OUTCOME_CRASHED, message="no such seed")
        return base(values, request)

    task.measure = measure
    run, _ = await inner.driven(max_trials=1, seed=3, noise=NOISE)
    assert run.state == trace_pb2.RUN_STATE_FAILED
    assert "the noise cannot be estimated" in run.state_reason
    assert "no such seed" in run.state_reason


@pytest.mark.parametrize("spec", [{"noise": NOISE}, {"confirmation_seeds": 4}], ids=["noise", "confirmation"])
async def test_what_was_measured_again_before_a_restart_stays_measured(serve_inner, task, spec) -> None:
    """The service is stopped in the middle of re-measuring; the same path serves a killed one, see test_restart."""
    seen: list[int] = []
    base = noisy(0.5)

    def measure(values: dict[str, Any], request: task_pb2.EvaluateRequest) -> task_pb2.EvaluationResult:
        if request.seed != 3:
            seen.append(request.seed)
            if len(seen) == 2:
                task.gate.clear()
        return base(values, request)

    task.measure = measure
    async with serve_inner() as inner:
        name = await inner.create(max_trials=1, seed=3, **spec)
        await inner.start(name)
        remeasured = 0
        async for event in inner.events(name):
            remeasured += event.HasField("trial_remeasured")
            if remeasured == 2:
                break
        while task.running == 0:
            await asyncio.wait_for(task.started.get(), 10)
    task.gate.set()
    async with serve_inner() as inner:
        events = await inner.finished(name)
        run = await inner.run(name)
    assert run.state == trace_pb2.RUN_STATE_FINISHED
    done = [(r.number, r.seed, r.purpose) for r in inner.of(events, "trial_remeasured")]
    assert len(done) == len(set(done)) == (8 if "confirmation_seeds" in spec else len(done))
    assert "noise" not in spec or len(run.noise_floor.seeds) == 5
    assert "noise" in spec or len(run.confirmation.seeds) == 4
