"""A recorded campaign, replayed without any endpoint, gives the same run and the same campaign."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from bilevel.v1 import inner_pb2, inner_pb2_grpc, outer_pb2_grpc, task_pb2_grpc
from bilevel.v1 import outer_pb2 as pb
from google.protobuf.json_format import MessageToDict

from tests.outer_service.conftest import Outer, Services, ValleyTask, process

TIMES = ("time", "create_time", "update_time", "start_time", "decide_time", "install_time", "elapsed", "idle_time")
"""Fields that say when something happened or how long it took, which no recording can repeat."""


@asynccontextmanager
async def services(folder: Path, env: Mapping[str, str]) -> AsyncIterator[tuple[Services, Outer]]:
    """A task, an inner and an outer service with databases of their own."""
    async with AsyncExitStack() as stack:
        server = grpc.aio.server()
        task_pb2_grpc.add_TaskServiceServicer_to_server(ValleyTask(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        group, inner = await process("inner_service", folder, "--task", f"valley=127.0.0.1:{port}", env=env)
        await stack.enter_async_context(group)
        outer_group, outer = await process("outer_service", folder, "--inner", inner, env=env)
        await stack.enter_async_context(outer_group)
        inner_channel = await stack.enter_async_context(grpc.aio.insecure_channel(inner))
        outer_channel = await stack.enter_async_context(grpc.aio.insecure_channel(outer))
        stub = inner_pb2_grpc.InnerLoopServiceStub(inner_channel)
        yield (
            Services(folder, "", inner, stub),
            Outer(outer_pb2_grpc.OuterLoopServiceStub(outer_channel), outer_group, outer),
        )


async def searched(tmp_path: Path, name: str, env: Mapping[str, str]) -> tuple[list[Any], list[Any]]:
    """The trace and the campaign's events of one search, without what differs by nature."""
    folder = tmp_path / name
    await asyncio.to_thread(folder.mkdir)
    async with services(folder, env) as (inner, outer):
        run = await inner.run(trials=10, checkpoint=5)
        levels = [pb.LEVEL_CONFIGURATION, pb.LEVEL_MECHANISM]
        campaign = await outer.campaign(run, levels=levels)
        await inner.inner.StartRun(inner_pb2.StartRunRequest(name=run))
        events = await outer.events(campaign.name)
        trace = await inner.trace(run)
    names = {run: "RUN", campaign.name: "CAMPAIGN"}
    return [plain(event, names) for event in trace], [plain(event, names) for event in events]


def plain(message: Any, names: Mapping[str, str]) -> Any:
    """A message as JSON without times, and with the same names for the same things."""
    data = MessageToDict(message, preserving_proto_field_name=True)
    pattern = re.compile("|".join(map(re.escape, names)))

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: cleaned(inside) for key, inside in value.items() if key not in TIMES}
        if isinstance(value, list):
            return [cleaned(inside) for inside in value]
        if isinstance(value, str):
            text = pattern.sub(lambda match: names[match[0]], value)
            return re.sub(r"\d+\.?\d*(e-\d+)? (m?s|seconds)\b", "TIME", text)
        return value

    return cleaned(data)


@pytest.mark.long
async def test_a_replayed_campaign_gives_the_same_trace_without_an_endpoint(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    group, researcher = await process("clients.scripted_researcher", tmp_path)
    async with group:
        model = {"OPENAI_BASE_URL": f"http://{researcher}/v1", "BILEVEL_MODEL": "scripted-researcher"}
        recorded = await searched(tmp_path, "recorded", model | {"BILEVEL_RECORD": str(tape)})
    assert sorted(file.name for file in tape.iterdir()) == ["inner.jsonl", "outer.jsonl"]
    replayed = await searched(tmp_path, "replayed", {"BILEVEL_REPLAY": str(tape)})
    kinds = [next(key for key in event if key not in ("run", "sequence", "time")) for event in replayed[0]]
    assert kinds.count("model_called") >= 10
    assert replayed[1] == recorded[1]
    assert replayed[0] == recorded[0]


@pytest.mark.parametrize("service", ["inner", "outer"])
async def test_a_missing_recording_is_one_clear_message(tmp_path: Path, service: str) -> None:
    from service_kit.errors import ServiceError
    from service_kit.llm.cassette import Cassette
    from service_kit.settings import ModelSettings

    with pytest.raises(ServiceError, match=f"cannot read the recorded conversation .*{service}.jsonl"):
        Cassette.of(ModelSettings.load(replay=tmp_path), service)
