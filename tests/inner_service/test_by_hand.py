"""Propose, Evaluate and Accept from a client; lessons, remarks, the control surface, descriptions."""

import asyncio

import grpc
import pytest
from bilevel.v1 import common_pb2, trace_pb2
from bilevel.v1 import inner_pb2 as pb


def value(number: float) -> common_pb2.Value:
    return common_pb2.Value(double_value=number)


def changes(**values: float) -> common_pb2.Configuration:
    return common_pb2.Configuration(values={name: value(v) for name, v in values.items()})


async def test_the_first_proposal_of_a_run_is_its_baseline_alone(inner) -> None:
    name = await inner.create()
    [baseline] = await inner.propose(name, count=5)
    assert (baseline.number, baseline.origin) == (0, trace_pb2.TRIAL_ORIGIN_BASELINE)
    assert not baseline.changes.values
    assert baseline.configuration.values["x"].double_value == 8.0


async def test_a_run_driven_by_hand_decides_as_a_driven_one_does(inner) -> None:
    name = await inner.create(max_trials=3)
    by_hand = [await inner.one_trial(name) for _ in range(4)]
    run, _ = await inner.driven(max_trials=3)
    driven = await inner.trials(run.name)
    assert [(t.state, t.metric, t.message) for t in by_hand] == [(t.state, t.metric, t.message) for t in driven]
    await inner.start(name)
    await inner.finished(name)
    assert (await inner.run(name)).state == trace_pb2.RUN_STATE_FINISHED


async def test_evaluating_streams_the_trials_own_events_and_ends_with_the_result(inner, task) -> None:
    name = await inner.create()
    [trial] = await inner.propose(name)
    events = await inner.evaluate(trial.name)
    assert inner.kinds(events) == ["trial_started", "trial_progressed", "trial_evaluated"]
    assert events[-1].trial_evaluated.result.metric == pytest.approx(34)


async def test_cancelling_the_evaluation_call_kills_the_work(inner, task) -> None:
    name = await inner.create()
    task.gate.clear()
    [trial] = await inner.propose(name)
    call = inner.stub.Evaluate(pb.InnerLoopServiceEvaluateRequest(name=trial.name))
    await call.read()
    await task.started.get()
    call.cancel()
    assert await asyncio.wait_for(task.killed.get(), 5) == trial.name
    await inner.until(name, lambda e: e.HasField("trial_evaluated"))
    decided = await inner.accept(trial.name)
    assert (decided.state, decided.outcome) == (trace_pb2.TRIAL_STATE_DISCARDED, common_pb2.OUTCOME_CANCELLED)
    task.gate.set()
    baseline = await inner.one_trial(name)
    assert (baseline.origin, baseline.state) == (trace_pb2.TRIAL_ORIGIN_BASELINE, trace_pb2.TRIAL_STATE_KEPT)


async def test_cancelling_the_run_ends_an_evaluation_by_hand(inner, task) -> None:
    name = await inner.create()
    task.gate.clear()
    [trial] = await inner.propose(name)
    evaluating = asyncio.create_task(inner.evaluate(trial.name))
    await task.started.get()
    await inner.stub.CancelRun(pb.CancelRunRequest(name=name))
    events = await asyncio.wait_for(evaluating, 5)
    assert events[-1].trial_evaluated.result.outcome == common_pb2.OUTCOME_CANCELLED
    assert await asyncio.wait_for(task.killed.get(), 5) == trial.name


async def test_a_client_can_propose_its_own_changes(inner) -> None:
    name = await inner.create()
    await inner.one_trial(name)
    trial = await inner.one_trial(name, changes=changes(x=4), hypothesis="I know better")
    assert (trial.origin, trial.hypothesis) == (trace_pb2.TRIAL_ORIGIN_CLIENT, "I know better")
    assert trial.state == trace_pb2.TRIAL_STATE_KEPT


async def test_several_proposals_come_at_once_and_never_more_than_the_run_has_left(inner, endpoint) -> None:
    name = await inner.create(max_trials=3)
    await inner.one_trial(name)
    assert len(await inner.propose(name, count=2)) == 2
    assert len(await inner.propose(name, count=2)) == 1
    error = await inner.refusal(inner.propose(name))
    assert (error.code, error.metadata["field"]) == ("RESOURCE_EXHAUSTED", "spec.max_trials")


async def test_creating_with_one_request_id_twice_gives_one_run(inner) -> None:
    spec = trace_pb2.RunSpec(task="quadratic", max_trials=1)
    first = await inner.stub.CreateRun(pb.CreateRunRequest(spec=spec, request_id="once"))
    again = await inner.stub.CreateRun(pb.CreateRunRequest(spec=spec, request_id="once"))
    assert again.run.name == first.run.name


async def test_runs_are_listed_newest_first_in_pages(inner) -> None:
    created = [await inner.create() for _ in range(5)]
    listed, token = [], ""
    while True:
        page = await inner.stub.ListRuns(pb.ListRunsRequest(page_size=2, page_token=token))
        listed += [run.name for run in page.runs]
        token = page.next_page_token
        if not token:
            break
    assert listed == created[::-1]


async def test_trials_are_listed_oldest_first_in_pages(inner) -> None:
    run, _ = await inner.driven(max_trials=4)
    first = await inner.stub.ListTrials(pb.ListTrialsRequest(parent=run.name, page_size=3))
    rest = await inner.stub.ListTrials(
        pb.ListTrialsRequest(parent=run.name, page_size=3, page_token=first.next_page_token)
    )
    assert [t.number for t in (*first.trials, *rest.trials)] == [0, 1, 2, 3, 4]
    assert rest.next_page_token == ""
    one = (await inner.stub.GetTrial(pb.GetTrialRequest(name=f"{run.name}/trials/3"))).trial
    assert one == rest.trials[0]


async def test_configured_tasks_are_listed_and_a_lost_one_says_what_to_do(inner) -> None:
    [quadratic, lost] = (await inner.stub.ListTasks(pb.ListTasksRequest())).tasks
    assert (quadratic.name, quadratic.description.title, quadratic.error) == ("quadratic", "A paraboloid", "")
    assert "127.0.0.1:9" in lost.error
    assert "Start it" in lost.error
    assert not lost.HasField("description")


async def test_freezing_takes_a_parameter_out_of_the_models_reach(inner, endpoint) -> None:
    name = await inner.create(max_trials=1)
    await inner.one_trial(name)
    request = pb.UpdateSearchConfigRequest(
        run=name,
        freeze=[trace_pb2.FreezeReason(parameter="x", reason="tried three times")],
        strategy="refine",
        guidance="Look at y.",
        author="level 1.5",
    )
    config = (await inner.stub.UpdateSearchConfig(request)).search_config
    assert (list(config.frozen), config.strategy, config.revision) == (["x"], "refine", 1)
    answers = [{"x": 4.0}, {"y": 3}]
    endpoint.answer = lambda state: [(answers.pop(0), "as always")]
    [rejected, proposed] = await inner.propose(name)
    assert "x is frozen now" in rejected.message
    assert proposed.state == trace_pb2.TRIAL_STATE_PROPOSED
    state, prompt = endpoint.states[0], endpoint.prompts[0][-1]["content"]
    assert (state["frozen"], state["guidance"]) == (["x"], "Look at y.")
    assert not next(p for p in state["parameters"] if p["name"] == "x")["active"]
    assert "Strategy of the outer loop:" in prompt
    assert "refine" in prompt
    assert "Look at y." in prompt
    thaw = pb.UpdateSearchConfigRequest(
        run=name, unfreeze=[trace_pb2.FreezeReason(parameter="x")], guidance="", expected_revision=1
    )
    config = (await inner.stub.UpdateSearchConfig(thaw)).search_config
    assert (list(config.frozen), config.strategy, config.guidance, config.revision) == ([], "refine", "", 2)
    late = pb.UpdateSearchConfigRequest(run=name, strategy="explore", expected_revision=1)
    assert (await inner.refusal(inner.stub.UpdateSearchConfig(late))).code == "ABORTED"
    first = pb.UpdateSearchConfigRequest(run=name, strategy="explore", check_revision=True)
    assert (await inner.refusal(inner.stub.UpdateSearchConfig(first))).code == "ABORTED"
    unchecked = pb.UpdateSearchConfigRequest(run=name, strategy="explore")
    assert (await inner.stub.UpdateSearchConfig(unchecked)).search_config.revision == 3


async def test_a_remark_is_on_the_trace(inner) -> None:
    name = await inner.create()
    request = pb.RemarkRequest(run=name, author="campaign", text="looking at the trace")
    sequence = (await inner.stub.Remark(request)).sequence
    event = await inner.until(name, lambda e: e.HasField("remarked"))
    assert (event.sequence, event.remarked.author) == (sequence, "campaign")


async def test_the_search_describes_itself(inner, endpoint) -> None:
    name = await inner.create()
    before = await inner.stub.DescribeSearch(pb.DescribeSearchRequest(run=name))
    assert "search-state" in before.proposer_prompt[-1].content
    await inner.one_trial(name)
    described = await inner.stub.DescribeSearch(pb.DescribeSearchRequest(run=name))
    sources = {file.path: file.content for file in described.loop_sources}
    assert "class Loop" in sources["inner_service/loop.py"]
    assert "search-state" in sources["inner_service/prompts/propose.j2"]
    assert "class Mechanism" in described.mechanism_reference
    assert len(described.examples) >= 10
    assert list(described.capabilities.mechanism_languages) == ["python"]
    await inner.propose(name)
    sent = [message["content"] for message in endpoint.prompts[-1]]
    shown = [message.content for message in described.proposer_prompt]
    assert sent[0] == shown[0]
    assert sent[1].startswith(shown[1]), "only the schema of the answer is added"


async def test_a_prompt_too_long_to_be_sent_is_not_described_as_one_that_would_be(serve_inner) -> None:
    async with serve_inner() as inner:
        name = await inner.create(use_lessons=True)
        await inner.one_trial(name)
        whole = await inner.stub.DescribeSearch(pb.DescribeSearchRequest(run=name, with_lessons_prompt=True))
    sizes = [sum(len(m.content) for m in prompt) for prompt in (whole.proposer_prompt, whole.lessons_prompt)]
    async with serve_inner(context_tokens=max(sizes) // 6) as inner:
        refused = await inner.stub.DescribeSearch(pb.DescribeSearchRequest(run=name, with_lessons_prompt=True))
    assert all(sizes)
    assert not refused.proposer_prompt
    assert not refused.lessons_prompt
    assert refused.loop_sources == whole.loop_sources


async def test_every_rpc_of_the_contract_is_served(inner) -> None:
    service = pb.DESCRIPTOR.services_by_name["InnerLoopService"]
    for method in service.methods:
        request = method.input_type._concrete_class()
        call = getattr(inner.stub, method.name)(request)
        with pytest.raises(grpc.aio.AioRpcError) if method.name not in NEEDS_NOTHING else _nothing() as caught:
            await (call.read() if method.server_streaming else call)
        if caught is not None:
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method.name


NEEDS_NOTHING = {"ListTasks", "ListRuns", "ListLessons"}


class _nothing:  # noqa: N801
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
