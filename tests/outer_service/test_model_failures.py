"""Answers of uneven quality and a model that fails: typed, stored, and never the end of the run."""

import asyncio
from typing import Any

import pytest
from bilevel.v1 import inner_pb2, trace_pb2
from bilevel.v1 import outer_pb2 as pb
from starlette.responses import JSONResponse, Response, StreamingResponse

from mechanisms.fence import fenced

pytestmark = pytest.mark.asyncio(loop_scope="module")

MECHANISM = [pb.LEVEL_MECHANISM]
GOOD = '''class Mechanism:
    """Bold: halves the batch."""

    def __init__(self, space, settings, rng):
        self.tried = []

    def observe(self, trial):
        self.tried.append(trial.configuration)

    def propose(self, view, count):
        value = view.incumbent.configuration["TOTAL_BATCH_SIZE"] // 2
        changes = {"TOTAL_BATCH_SIZE": value}
        if value < 2**12 or {**view.incumbent.configuration, **changes} in self.tried:
            return []
        return [Candidate(changes=changes, hypothesis="halve it")]
'''
IDLING = '''class Mechanism:
    """Idling: propose what cannot be better."""

    def propose(self, view, count):
        return [Candidate(changes={"WEIGHT_DECAY": 1.0 + 0.01 * len(view.history)}, hypothesis="worse")]
'''
BROKEN = "import os\n\nclass Mechanism:\n    def observe(self, trial):\n        os.remove('x')\n"
INERT = 'class Mechanism:\n    """Idle."""\n\n    def veto(self, view, candidate):\n        return None\n'
IDLE = {"observation": "nothing", "strategy": "", "guidance": ""}


def of_kind(events: list[Any], kind: str) -> list[Any]:
    return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]


def dialogue(*sources: str, choice: str = "bold") -> dict[str, list[Any]]:
    """Answers of a model that needs a while to answer properly."""
    explored = {"bottleneck": "fixation", "candidates": [{"name": "bold", "idea": "halve"}], "chatter": 1}
    first, *repairs = [{"mechanism_id": "Bold Move", "source": source} for source in sources] or [{}]
    return {
        "analyse": [IDLE],
        "explore": ["I would rather talk about the weather.", f"Sure! Here it is:\n```json\n{_json(explored)}\n```"],
        "critique": [{"choice": "something else"}, {"choice": choice, "reason": "it fits"}],
        "specify": [{"name": "bold", "summary": "halve", "hooks": ["propose"], "behaviour": "halve the batch"}],
        "generate": [first],
        "repair": repairs or [first],
    }


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


@pytest.fixture(autouse=True)
def fresh(model_endpoint: Any) -> None:
    model_endpoint.answers, model_endpoint.status, model_endpoint.asked, model_endpoint.tokens = {}, 200, [], 100


async def watched(services: Any, outer: Any, trials: int = 11, checkpoint: int = 10, **policy: Any) -> tuple[Any, str]:
    run = await services.run(trials=trials, checkpoint=checkpoint)
    campaign = await outer.campaign(run, **policy)
    await services.start(run)
    return await outer.events(campaign.name), run


async def test_what_answers_nothing_is_replaced_at_once_and_the_next_session_is_told(
    services: Any, outer: Any, model_endpoint: Any
) -> None:
    model_endpoint.answers = {**dialogue(IDLING), "analyse": [IDLE]}
    events, run = await watched(
        services, outer, trials=16, checkpoint=5, levels=[pb.LEVEL_CONFIGURATION, *MECHANISM], probation_trials=5
    )
    verdict, *_ = of_kind(events, "verdict_reached")
    assert (verdict.mechanism, verdict.verdict, verdict.decided_trials) == ("bold-move", pb.VERDICT_REPLACE, 15)
    assert verdict.changed_decisions > 0
    assert (verdict.before_after.successes_with, verdict.before_after.trials_with) == (0, 5)
    assert not verdict.HasField("touched")  # it proposed all five: there is nothing to compare with
    first, second, *_ = of_kind(events, "research_started")
    assert (list(first.replaces), first.after_trial) == ([], 10)
    assert (list(second.replaces), second.after_trial) == (["bold-move"], 15)
    explored = [messages[-1]["content"] for purpose, messages in model_endpoint.asked if purpose == "explore"]
    assert "The last verdict removed bold-move" in explored[-1]
    removed = [
        e.mechanism_uninstalled for e in await services.trace(run) if e.WhichOneof("event") == "mechanism_uninstalled"
    ]
    assert [(gone.mechanism.rpartition("/")[2], gone.reason) for gone in removed] == [("bold-move", verdict.reason)]


async def test_a_broken_mechanism_is_repaired_with_the_gates_report(
    services: Any, outer: Any, model_endpoint: Any
) -> None:
    model_endpoint.answers = dialogue(BROKEN, INERT, GOOD)
    events, run = await watched(services, outer, levels=MECHANISM)
    judged = of_kind(events, "mechanism_judged")
    verdicts = [report.report.verdict for report in judged]
    assert verdicts == [trace_pb2.GATE_VERDICT_REJECTED] * 2 + [trace_pb2.GATE_VERDICT_ACCEPTED]
    assert [report.attempt for report in judged] == [1, 2, 3]
    repairs = [messages for purpose, messages in model_endpoint.asked if purpose == "repair"]
    assert fenced("gate", judged[0].report.text, "the") in repairs[0][-1]["content"]
    assert fenced("gate", judged[1].report.text, "the") in repairs[1][-1]["content"]
    [finished] = of_kind(events, "research_finished")
    assert (finished.outcome, finished.mechanism) == (pb.RESEARCH_OUTCOME_INSTALLED, "bold-move")
    [mechanism] = await services.mechanisms(run)
    assert (mechanism.author, mechanism.source) == ("test-model-1", GOOD)
    critiques = [turn for turn in of_kind(events, "round_finished") if turn.turn.round == pb.RESEARCH_ROUND_CRITIQUE]
    assert [message.role for message in critiques[0].turn.prompt][-2:] == ["assistant", "user"]
    assert critiques[0].turn.usage.calls == 2
    assert not any(turn.turn.scripted for turn in of_kind(events, "round_finished"))


async def test_a_mechanism_that_stays_broken_is_given_up(services: Any, outer: Any, model_endpoint: Any) -> None:
    model_endpoint.answers = dialogue(BROKEN, BROKEN)
    events, run = await watched(services, outer, levels=MECHANISM, repairs=1)
    assert len(of_kind(events, "mechanism_judged")) == 2
    [finished] = of_kind(events, "research_finished")
    assert finished.outcome == pb.RESEARCH_OUTCOME_REJECTED
    assert "rejected all 2 attempts" in finished.message
    assert not await services.mechanisms(run)
    assert [cycle.error for cycle in of_kind(events, "cycle_finished")] == [""]


async def test_none_of_the_candidates_is_a_result(services: Any, outer: Any, model_endpoint: Any) -> None:
    model_endpoint.answers = dialogue(choice="none")
    events, _ = await watched(services, outer, levels=MECHANISM)
    [finished] = of_kind(events, "research_finished")
    assert (finished.outcome, finished.message) == (pb.RESEARCH_OUTCOME_NONE_CHOSEN, "it fits")
    assert len(of_kind(events, "round_finished")) == 2


async def test_after_three_failures_the_campaign_pauses_and_the_run_goes_on(
    services: Any, outer: Any, model_endpoint: Any
) -> None:
    model_endpoint.status = 503
    run = await services.run(trials=12, checkpoint=2)
    policy = {
        "levels": [pb.LEVEL_CONFIGURATION, pb.LEVEL_MECHANISM],
        "configuration_every": 2,
        "mechanism_every": 4,
    }
    campaign = await outer.campaign(run, **policy)
    await services.start(run)
    events = await outer.events(campaign.name)
    cycles = of_kind(events, "cycle_finished")
    assert len(cycles) == 3
    assert all("503" in cycle.error for cycle in cycles)
    [paused, finished] = of_kind(events, "campaign_state_changed")
    assert paused.to_state == pb.CAMPAIGN_STATE_PAUSED
    assert paused.reason.startswith("3 failed cycles in a row, the last one: ")
    assert finished.to_state == pb.CAMPAIGN_STATE_FINISHED
    failed = of_kind(events, "analysis_finished")[0]
    assert failed.turn.error
    assert failed.turn.prompt
    assert not failed.applied
    assert (await services.get(run)).decided_trials == 12


@pytest.mark.parametrize("checkpoint", [2, 0], ids=["synchronous", "concurrent"])
async def test_a_campaign_that_gives_up_can_keep_its_run_paused_until_someone_acts(
    services: Any, outer: Any, model_endpoint: Any, checkpoint: int
) -> None:
    model_endpoint.status = 503
    run = await services.run(trials=500 if checkpoint == 0 else 12, checkpoint=checkpoint)
    policy = {
        "levels": [pb.LEVEL_CONFIGURATION],
        "configuration_every": 2,
        "max_failures": 2,
        "after_failures": pb.AFTER_FAILURES_PAUSE_RUN,
        "mode": pb.CAMPAIGN_MODE_SYNCHRONOUS if checkpoint else pb.CAMPAIGN_MODE_CONCURRENT,
    }
    campaign = await outer.campaign(run, **policy)
    await services.start(run)
    await outer.events(campaign.name, lambda event: event.WhichOneof("event") == "campaign_state_changed")
    async for item in services.inner.WatchTrace(inner_pb2.WatchTraceRequest(run=run)):
        if item.event.run_state_changed.to_state == trace_pb2.RUN_STATE_PAUSED:
            break
    trace = await services.trace(run)
    assert any("the run stays paused: 2 failed cycles in a row" in event.remarked.text for event in trace)
    assert (await services.get(run)).state == trace_pb2.RUN_STATE_PAUSED
    if checkpoint:
        model_endpoint.status, model_endpoint.answers = 200, {"analyse": [IDLE]}
        await outer.stub.ResumeCampaign(pb.ResumeCampaignRequest(name=campaign.name))
        assert (await services.ended(run)).decided_trials == 12
    else:
        await services.inner.CancelRun(inner_pb2.CancelRunRequest(name=run))


def refused(status: int, message: str, **headers: str) -> Any:
    async def fault(request: Any) -> Response:
        body = {"error": {"message": message, "type": "x", "code": "x"}}
        return JSONResponse(body, status, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return fault


def said(text: str, finish: str = "stop") -> Any:
    async def fault(request: Any) -> Response:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "test-model-1", "choices": [choice]}
        return JSONResponse(body)

    return fault


async def broken_json(request: Any) -> Response:
    return Response('{"id": "x", "choices": [', media_type="application/json")


async def reset(request: Any) -> Response:
    async def body() -> Any:
        yield b'{"id": '
        raise ConnectionResetError

    return StreamingResponse(body(), media_type="application/json")


async def slow(request: Any) -> Response:
    async def body() -> Any:
        while True:
            yield b"\n"  # as endpoints keep a connection alive while they think
            await asyncio.sleep(0.05)

    return StreamingResponse(body(), media_type="application/json")


FAULTS: list[tuple[list[Any], str]] = [
    ([refused(429, "slow down", retry_after="9")], "limits the rate of calls"),
    ([refused(500, "oops")], "failed (500): oops"),
    ([slow], "did not answer within 3 s"),
    ([reset], "closed the connection before it had answered"),
    ([broken_json], "does not answer like an OpenAI-compatible endpoint"),
    ([said("no JSON")] * 2, "does not fit after 2 turns"),
    ([said("{", "length")] * 2, "was cut off"),
    ([said("")] * 2, "answer is empty"),
    ([refused(404, "no such model")], "does not offer the model 'test-model'"),
    ([refused(400, "This model's maximum context length is 10 tokens")], "is too long for test-model"),
]


async def test_every_fault_is_a_typed_failure_on_the_stream_and_the_run_goes_on(
    services: Any, outer_service: Any, model_endpoint: Any
) -> None:
    model = {"OPENAI_BASE_URL": model_endpoint.address, "BILEVEL_MODEL": "test-model", "BILEVEL_MODEL_TIMEOUT": "3"}
    model_endpoint.answers = {"analyse": [IDLE]}
    model_endpoint.faults = [fault for faults, _ in FAULTS for fault in faults]
    async with outer_service("faults", model) as outer:
        trials = 2 * len(FAULTS) + 3
        levels = [pb.LEVEL_CONFIGURATION]
        events, run = await watched(services, outer, trials, 2, levels=levels, configuration_every=2, max_failures=100)
    turns = [event.turn for event in of_kind(events, "analysis_finished")]
    for turn, (_, problem) in zip(turns, FAULTS, strict=False):
        assert problem in turn.error
        assert turn.prompt_version
        assert turn.latency.ToNanoseconds() > 0
    assert turns[-1].error == ""
    assert (await services.get(run)).decided_trials == trials


async def test_a_round_without_a_usable_answer_ends_the_session_and_is_stored(
    services: Any, outer: Any, model_endpoint: Any
) -> None:
    model_endpoint.answers = {"explore": ["nonsense"]}
    events, _ = await watched(services, outer, levels=MECHANISM)
    [round_] = of_kind(events, "round_finished")
    assert round_.turn.answer == "nonsense"
    assert "does not fit after 2 turns" in round_.turn.error
    assert round_.turn.usage.prompt_tokens == 200
    [finished] = of_kind(events, "research_finished")
    assert finished.outcome == pb.RESEARCH_OUTCOME_MODEL_FAILED
    assert "level 2: the model's explore answer" in of_kind(events, "cycle_finished")[0].error


async def test_a_spent_budget_stops_research_and_not_the_run(services: Any, outer: Any, model_endpoint: Any) -> None:
    model_endpoint.answers = dialogue(GOOD)
    model_endpoint.tokens = 5_000
    events, run = await watched(services, outer, trials=30, levels=MECHANISM, max_tokens=50_000)
    rounds = of_kind(events, "round_finished")
    used = sum(round_.turn.usage.prompt_tokens + round_.turn.usage.completion_tokens for round_ in rounds)
    assert 5_000 < used <= 50_000
    [finished] = of_kind(events, "research_finished")
    assert finished.outcome == pb.RESEARCH_OUTCOME_STOPPED
    assert "stopped before" in finished.message
    assert "the budget of 50000 tokens does not cover the next call" in finished.message
    assert [cycle.error for cycle in of_kind(events, "cycle_finished")] == [""]
    assert "the run goes on without research" in of_kind(events, "campaign_state_changed")[0].reason
    assert (await services.get(run)).decided_trials == 30


async def test_room_is_made_for_a_new_mechanism(services: Any, outer: Any, model_endpoint: Any) -> None:
    other = GOOD.replace("Bold:", "Bolder:")
    model_endpoint.answers = dialogue(GOOD)
    model_endpoint.answers["generate"] = [
        {"mechanism_id": "bold", "source": GOOD},
        {"mechanism_id": "bold", "source": other},
    ]
    events, run = await watched(services, outer, trials=25, levels=MECHANISM, max_mechanisms=1, probation_trials=20)
    assert [m.mechanism for m in of_kind(events, "research_finished")] == ["bold", "bold-2"]
    verdict = of_kind(events, "verdict_reached")[0]
    assert (verdict.mechanism, verdict.verdict) == ("bold", pb.VERDICT_RETIRE)
    assert "makes room: at most 1 mechanisms" in verdict.reason
    states = {m.name.rsplit("/", 1)[-1]: m.state for m in await services.mechanisms(run)}
    assert states == {"bold": trace_pb2.MECHANISM_STATE_UNINSTALLED, "bold-2": trace_pb2.MECHANISM_STATE_ACTIVE}
