"""A run from its creation to its end, driven by the service."""

import asyncio
from typing import Any

import grpc
import pytest
from aiohttp import web
from bilevel.v1 import common_pb2, trace_pb2
from bilevel.v1 import inner_pb2 as pb
from google.protobuf.duration_pb2 import Duration


async def test_a_driven_run_keeps_what_is_strictly_better_and_nothing_else(inner, task, endpoint) -> None:
    values = iter([6.0, 8.0, 6.0, 4.0])
    endpoint.answer = lambda state: [({"x": next(values), "y": 5 if state["trials_left"] != 2 else 6}, "try it")]
    run, events = await inner.driven(max_trials=4, seed=7)
    trials = await inner.trials(run.name)
    assert [t.number for t in trials] == [0, 1, 2, 3, 4]
    assert [t.state for t in trials] == [4, 4, 5, 5, 4]  # the third is worse, the fourth is the incumbent moved in y
    assert run.state == trace_pb2.RUN_STATE_FINISHED
    assert run.decided_trials == 4
    assert run.incumbent_trial == run.best_trial == trials[4].name
    assert run.best_metric == pytest.approx(task.loss(trials[4].configuration, 7))
    assert run.baseline_metric == pytest.approx(25 + 9 + 0.007)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert {r.seed for r in task.requests} == {7}, "every trial is measured on the run's seed"


async def test_an_equal_metric_is_not_better(inner, endpoint) -> None:
    endpoint.answer = lambda _: [({"mode": "fancy"}, "decorate")]
    _, events = await inner.driven(max_trials=1)
    [decided] = inner.of(events, "trial_decided")[1:]
    assert (decided.kept, decided.reason) == (False, "as good as the incumbent")


@pytest.mark.parametrize("outcome", ["DIVERGED", "CRASHED", "OUT_OF_MEMORY", "TIMED_OUT", "INFEASIBLE", "CANCELLED"])
async def test_a_failed_trial_is_discarded_with_its_outcome_and_message_and_has_no_metric(inner, task, outcome) -> None:
    task.fail(outcome, "it went wrong", when=lambda values: values["x"] != 8.0)
    run, _ = await inner.driven(max_trials=2)
    trials = await inner.trials(run.name)
    assert [t.state for t in trials] == [4, 5, 5]
    assert all(t.outcome == common_pb2.Outcome.Value(f"OUTCOME_{outcome}") for t in trials[1:])
    assert not any(t.HasField("metric") for t in trials[1:])
    assert "it went wrong" in trials[1].message
    assert run.best_trial.endswith("/trials/0")


async def test_a_baseline_that_fails_ends_the_run_with_the_reason(inner, task) -> None:
    task.fail("DIVERGED", "loss is NaN")
    run, _ = await inner.driven()
    assert run.state == trace_pb2.RUN_STATE_FAILED
    assert "loss is NaN" in run.state_reason
    assert not run.HasField("best_metric")


async def test_the_starting_configuration_is_the_baseline(inner, task) -> None:
    start = common_pb2.Configuration(values={"x": common_pb2.Value(double_value=5.0)})
    run, _ = await inner.driven(max_trials=1, start=start)
    [baseline, trial] = await inner.trials(run.name)
    assert baseline.configuration.values["x"].double_value == 5.0
    assert trial.changes.values["x"].double_value == 4.0


async def test_the_prompt_holds_the_complete_typed_state_and_the_sources(inner, endpoint) -> None:
    await inner.driven(max_trials=2)
    state = endpoint.states[-1]
    assert state["task"] == "quadratic"
    assert state["objective"] == {"metric": "loss", "direction": "minimize", "unit": "points"}
    assert {p["name"]: p["active"] for p in state["parameters"]} == dict.fromkeys(["x", "y", "mode", "betas"], True) | {
        "depth": False
    }
    assert state["incumbent"]["configuration"]["x"] == 5.5
    assert [t["number"] for t in state["trials"]] == [0, 1]
    assert all("configuration" not in t for t in state["trials"])
    assert (state["trials_left"], state["count"], state["refused"], state["mechanisms"]) == (1, 1, [], [])
    system, user = endpoint.prompts[-1]
    assert "def loss(x, y)" in system["content"]
    assert user["content"].count("```json search-state") == 1


async def test_every_model_call_is_on_the_trace_with_prompt_answer_and_usage(inner, endpoint) -> None:
    run, events = await inner.driven(max_trials=2)
    calls = inner.of(events, "model_called")
    assert len(calls) == 2
    assert calls[0].purpose == "propose"
    assert "search-state" in calls[0].prompt[-1].content
    assert "candidates" in calls[0].answer
    assert (run.usage.calls, run.usage.prompt_tokens, run.usage.completion_tokens) == (2, 200, 20)
    assert (run.model, run.scripted) == ("test-model", False)


async def test_an_answer_of_the_scripted_researcher_marks_the_run(inner, endpoint) -> None:
    endpoint.name = "scripted-researcher"
    run, events = await inner.driven(max_trials=1)
    assert run.scripted
    assert inner.of(events, "model_called")[0].scripted


async def test_a_batch_is_evaluated_at_the_same_time_and_decided_best_first(inner, task, endpoint) -> None:
    endpoint.answer = lambda state: [({"x": 7.0}, "worse"), ({"x": 4.0}, "best"), ({"x": 6.0}, "middle")]
    task.hold_after(1)
    name = await inner.create(max_trials=3, parallelism=3)
    await inner.start(name)
    for _ in range(4):
        await asyncio.wait_for(task.started.get(), 10)
    assert task.running == 3
    task.gate.set()
    events = await inner.finished(name)
    assert [d.number for d in inner.of(events, "trial_decided")] == [0, 2, 3, 1]
    assert [d.kept for d in inner.of(events, "trial_decided")] == [True, True, False, False]
    assert endpoint.states[0]["count"] == 3


async def test_two_runs_share_a_busy_task_without_losing_a_trial(inner, task) -> None:
    task.capacity = 1
    first, second = await asyncio.gather(inner.driven(max_trials=2), inner.driven(max_trials=2))
    assert task.most_running == 1
    assert [t.state for run, _ in (first, second) for t in await inner.trials(run.name)] == [4] * 6


async def test_a_checkpoint_pauses_after_every_so_many_decided_trials(inner) -> None:
    name = await inner.create(max_trials=5, checkpoint_every=2)
    await inner.start(name)
    for decided in (2, 4):
        paused = await inner.until_state(name, "PAUSED", (await inner.run(name)).last_sequence if decided == 4 else 0)
        assert paused.run_state_changed.reason == "checkpoint"
        assert (await inner.run(name)).decided_trials == decided
        await inner.resume(name)
    events = await inner.finished(name)
    assert [c.decided_trials for c in inner.of(events, "checkpoint_reached")] == [2, 4]
    assert (await inner.run(name)).decided_trials == 5


async def test_a_run_that_is_asked_to_pause_at_its_checkpoint_stays_there_with_the_reason(inner) -> None:
    name = await inner.create(max_trials=2, checkpoint_every=1)
    await inner.start(name)
    await inner.until_state(name, "PAUSED")
    held = await inner.stub.PauseRun(pb.PauseRunRequest(name=name, reason="to look"))
    assert (held.run.state, held.run.state_reason) == (trace_pb2.RUN_STATE_PAUSED, "to look")
    with pytest.raises(grpc.aio.AioRpcError, match="paused"):
        await inner.stub.PauseRun(pb.PauseRunRequest(name=name))
    await inner.resume(name)
    events = await inner.finished(name)
    assert [p.reason for p in inner.of(events, "pause_requested")] == ["to look"]


async def test_pausing_waits_for_the_current_trial_and_resuming_goes_on(inner, task) -> None:
    task.gate.clear()
    name = await inner.create(max_trials=3)
    await inner.start(name)
    await task.started.get()
    pausing = (await inner.stub.PauseRun(pb.PauseRunRequest(name=name, reason="lunch"))).run
    assert pausing.state == trace_pb2.RUN_STATE_RUNNING
    task.gate.set()
    paused = await inner.until_state(name, "PAUSED")
    assert paused.run_state_changed.reason == "lunch"
    assert [t.state for t in await inner.trials(name)] == [4]
    await inner.resume(name)
    await inner.finished(name)
    assert (await inner.run(name)).decided_trials == 3


async def test_cancelling_a_run_kills_its_evaluation_at_once(inner, task) -> None:
    task.gate.clear()
    name = await inner.create()
    await inner.start(name)
    await task.started.get()
    cancelled = (await inner.stub.CancelRun(pb.CancelRunRequest(name=name, reason="enough"))).run
    assert (cancelled.state, cancelled.state_reason) == (trace_pb2.RUN_STATE_CANCELLED, "enough")
    assert await asyncio.wait_for(task.killed.get(), 5) == f"{name}/trials/0"
    [trial] = await inner.trials(name)
    assert (trial.state, trial.outcome) == (trace_pb2.TRIAL_STATE_DISCARDED, common_pb2.OUTCOME_CANCELLED)
    assert inner.kinds(await inner.finished(name))[-1] == "run_state_changed"


async def test_an_evaluation_beyond_its_hard_limit_is_killed_and_times_out(inner, task) -> None:
    task.hard_limit = 0.3
    name = await inner.create(max_trials=1)
    baseline = await inner.one_trial(name)
    task.gate.clear()
    [trial] = await inner.propose(name)
    events = await inner.evaluate(trial.name)
    assert events[-1].trial_evaluated.result.outcome == common_pb2.OUTCOME_TIMED_OUT
    assert "hard limit of 0.3 s" in events[-1].trial_evaluated.result.message
    assert await asyncio.wait_for(task.killed.get(), 5) == trial.name
    assert baseline.state == trace_pb2.TRIAL_STATE_KEPT


async def test_progress_is_on_the_trace_at_most_twice_a_second(inner, task) -> None:
    task.progress = 200
    _, events = await inner.driven(max_trials=1)
    assert [p.number for p in inner.of(events, "trial_progressed")] == [0, 1], "one each: they take a few milliseconds"
    assert inner.of(events, "trial_progressed")[0].progress.phase == "measuring"


async def test_an_unreachable_model_pauses_at_once_and_says_what_to_do(inner, endpoint) -> None:
    endpoint.answer = lambda _: web.Response(status=401, text="{}")
    name = await inner.create()
    await inner.start(name)
    paused = await inner.until_state(name, "PAUSED")
    assert "OPENAI_API_KEY" in paused.run_state_changed.reason
    events = [e async for e in _so_far(inner, name)]
    assert "refused the API key" in inner.of(events, "model_called")[0].error
    assert inner.of(events, "proposal_failed")[0].consecutive == 1


async def test_five_failed_proposals_in_a_row_pause_the_run(inner, endpoint) -> None:
    endpoint.answer = lambda _: "I would rather not."
    name = await inner.create(max_trials=1)
    await inner.start(name)
    paused = await inner.until_state(name, "PAUSED")
    assert paused.run_state_changed.reason.startswith("5 proposals in a row failed")
    events = [e async for e in _so_far(inner, name)]
    assert [f.consecutive for f in inner.of(events, "proposal_failed")] == [1, 2, 3, 4, 5]
    endpoint.answer = lambda _: [({"x": 4.0, "y": 4}, "better now"), ({"x": 3.5}, "never asked for")]
    await inner.resume(name)
    await inner.finished(name)
    assert (await inner.run(name)).state == trace_pb2.RUN_STATE_FINISHED


async def test_refused_candidates_are_recorded_and_the_model_is_told_why(inner, endpoint) -> None:
    bad: list[dict[str, Any]] = [{"x": 99.0}, {"wdith": 3}, {"x": 4.0}]
    endpoint.answer = lambda _: [(bad.pop(0), "why not")]
    run, _ = await inner.driven(max_trials=1)
    trials = await inner.trials(run.name)
    assert [t.state for t in trials] == [4, 6, 6, 4]
    assert "from -10 to 10" in trials[1].message
    assert "is not a parameter" in trials[2].message
    assert run.decided_trials == 1, "rejected trials have a number but do not count"
    assert [len(s["refused"]) for s in endpoint.states] == [0, 1, 2]
    assert endpoint.states[1]["refused"][0]["changes"] == [{"parameter": "x", "value": 99.0}]


async def test_the_tasks_own_validation_refuses_combinations(inner, endpoint) -> None:
    answers = [{"x": 10.0, "y": 10}, {"x": 4.0}]
    endpoint.answer = lambda _: [(answers.pop(0), "large")]
    run, _ = await inner.driven(max_trials=1)
    [_, rejected, _] = await inner.trials(run.name)
    assert rejected.message == "x x plus y must stay below 19"


async def test_after_three_refusals_the_proposal_has_failed(inner, endpoint) -> None:
    endpoint.answer = lambda _: [({"depth": 7}, "deeper")]
    name = await inner.create()
    await inner.one_trial(name)
    error = await inner.refusal(inner.propose(name))
    assert error.code == "FAILED_PRECONDITION"
    assert "locked at 3" in error.message
    assert [t.state for t in await inner.trials(name)] == [4, 6, 6, 6]


async def test_a_run_ends_cleanly_when_its_time_is_over(inner) -> None:
    run, _ = await inner.driven(max_trials=50, max_duration=Duration(nanos=1000))
    assert (run.state, run.decided_trials) == (trace_pb2.RUN_STATE_FINISHED, 0)
    assert "time" in run.state_reason


async def test_a_task_that_is_lost_and_comes_back_costs_an_attempt_and_no_trial(inner, served, task) -> None:
    task.gate.clear()
    name = await inner.create(max_trials=1)
    await inner.start(name)
    await task.started.get()
    await served.stop()
    task.gate.set()
    await served.start()
    events = await inner.finished(name)
    assert [(s.number, s.attempt) for s in inner.of(events, "trial_started")] == [(0, 1), (0, 2), (1, 1)]
    assert (await inner.run(name)).state == trace_pb2.RUN_STATE_FINISHED


async def test_a_task_that_stays_away_pauses_the_run_and_resuming_tries_again(inner, served, task, monkeypatch) -> None:
    monkeypatch.setattr("inner_service.evaluation.RECONNECT_SECONDS", 1.0)
    task.gate.clear()
    name = await inner.create(max_trials=1)
    await inner.start(name)
    await task.started.get()
    await served.stop()
    paused = await inner.until_state(name, "PAUSED")
    assert "cannot be reached" in paused.run_state_changed.reason
    assert "Start it" in paused.run_state_changed.reason
    task.gate.set()
    await served.start()
    await inner.resume(name)
    await inner.finished(name)
    assert (await inner.run(name)).state == trace_pb2.RUN_STATE_FINISHED


async def test_a_finished_run_is_confirmed_on_fresh_seeds(inner, task) -> None:
    task.held_out = True
    run, _ = await inner.driven(max_trials=3, seed=5, confirmation_seeds=3, parallelism=2)
    confirmation = run.confirmation
    assert len(set(confirmation.seeds)) == 3
    assert 5 not in confirmation.seeds
    assert confirmation.split == common_pb2.SPLIT_HELD_OUT
    assert confirmation.mean_gain == pytest.approx(confirmation.search_gain)
    assert confirmation.gain_low == pytest.approx(confirmation.gain_high)
    assert confirmation.trial == run.best_trial
    held_out = [r for r in task.requests if r.split == common_pb2.SPLIT_HELD_OUT]
    assert sorted({r.seed for r in held_out}) == sorted(confirmation.seeds)
    assert len(held_out) == 6


async def test_idle_time_is_the_time_without_an_evaluation(inner, task, endpoint) -> None:
    run, events = await inner.driven(max_trials=2)
    times = [e.time.ToNanoseconds() for e in events]
    spans, last = 0, None
    for event, at in zip(events, times, strict=True):
        kind = event.WhichOneof("event")
        if kind == "trial_started" or (kind == "run_state_changed" and last is not None):
            spans += at - last if last is not None else 0
            last = None
        if kind == "trial_evaluated" or (kind == "run_state_changed" and event.run_state_changed.to_state == 2):
            last = at
    assert run.idle_time.ToNanoseconds() == pytest.approx(spans, abs=2000)


async def test_cancelling_while_the_model_thinks_ends_the_run_without_its_answer(inner, endpoint) -> None:
    endpoint.gate.clear()
    name = await inner.create()
    await inner.start(name)
    await inner.until(name, lambda e: e.HasField("trial_decided"))
    await asyncio.wait_for(inner.stub.CancelRun(pb.CancelRunRequest(name=name)), 10)
    endpoint.gate.set()
    events = await inner.finished(name)
    assert inner.kinds(events)[-1] == "run_state_changed"
    assert not inner.of(events, "model_called")


async def test_a_run_whose_task_is_no_longer_configured_pauses_and_says_so(serve_inner, task) -> None:
    task.gate.clear()
    async with serve_inner() as inner:
        name = await inner.create(max_trials=1)
        await inner.start(name)
        await task.started.get()
    async with serve_inner(tasks={"other": "127.0.0.1:9"}) as inner:
        paused = await inner.until_state(name, "PAUSED")
        assert "task 'quadratic' does not exist" in paused.run_state_changed.reason
        assert "--task NAME=HOST:PORT" in paused.run_state_changed.reason
    task.gate.set()
    async with serve_inner() as inner:
        await inner.resume(name)
        await inner.finished(name)
        assert (await inner.run(name)).state == trace_pb2.RUN_STATE_FINISHED


async def _so_far(inner: Any, name: str) -> Any:
    async for item in inner.stub.WatchTrace(pb.WatchTraceRequest(run=name, no_follow=True)):
        yield item.event
