"""A trial's lines bear its name, whoever drives it, and so does the call that evaluates it."""

from typing import Any

from bilevel.v1 import inner_pb2_grpc

from service_kit import context
from service_kit.security.channels import ChannelSecurity, open_channel
from tests.inner_service.conftest import Inner, QuadraticTask


def of_trial(lines: list[dict[str, Any]], trial: str) -> list[str]:
    return [line["event"] for line in lines if line.get("trial") == trial and line["log_level"] != "debug"]


async def test_a_driven_trial_is_followed_into_its_task(
    inner: Inner, task: QuadraticTask, lines: list[dict[str, Any]]
) -> None:
    run, _ = await inner.driven(max_trials=2)
    for number in range(3):
        trial = f"{run.name}/trials/{number}"
        assert of_trial(lines, trial) == ["trial proposed", "trial started", "trial evaluated", "trial decided"]
        assert (task.ids[number]["run"], task.ids[number]["trial"]) == (run.name, trial)
    assert len({ids["request"] for ids in task.ids}) == 3, "the run has outlived the request that started it"
    answered = [line for line in lines if line["event"] == "model answered"]
    assert {line["run"] for line in answered} == {run.name}


async def test_a_trial_by_hand_belongs_to_the_clients_request(
    inner: Inner, task: QuadraticTask, lines: list[dict[str, Any]]
) -> None:
    name = await inner.create()
    async with open_channel(inner.address, ChannelSecurity()) as channel:
        inner.stub = inner_pb2_grpc.InnerLoopServiceStub(channel)
        with context.bound(request="by-hand"):
            trial = await inner.one_trial(name)
    assert task.ids == [{"request": "by-hand", "run": name, "trial": trial.name}]
    mine = [line["event"] for line in lines if line.get("request") == "by-hand"]
    assert [event for event in mine if event.startswith("trial")] == [
        "trial proposed", "trial started", "trial evaluated", "trial decided",
    ]  # fmt: skip
    assert mine.count("call answered") == 3
