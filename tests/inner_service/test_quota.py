"""How many runs a token may have: counted in the transaction that creates one, on every database."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from bilevel.v1 import inner_pb2 as pb
from bilevel.v1 import inner_pb2_grpc, trace_pb2
from pydantic import SecretStr

from clients.token_file import add_token
from inner_service import trace
from inner_service.run import RunSpec, RunState
from inner_service.store import Store
from service_kit.errors import Exhausted, InvalidArgument
from service_kit.security.channels import ChannelSecurity, open_channel
from service_kit.security.quota import Quota
from service_kit.security.roles import Role
from service_kit.server import ServerSettings
from tests.inner_service.conftest import Inner, Serve
from tests.inner_service.test_store import TASK


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = await Store.open(database_url)
    yield store
    await store.close()


def created(owner: str) -> trace.RunCreated:
    return trace.RunCreated(RunSpec("line", 100), TASK, owner)


def limit(**numbers: int) -> Quota:
    return Quota.load(**numbers)


async def test_one_token_has_as_many_runs_at_a_time_as_it_may_and_others_have_their_own(store: Store) -> None:
    two = limit(active=2)
    await store.create("a1", created("a"), quota=two)
    await store.create("a2", created("a"), quota=two)
    with pytest.raises(Exhausted, match=r"active runs of the token 'a' has reached its limit of 2: there are 2"):
        await store.create("a3", created("a"), quota=two)
    assert (await store.create("b1", created("b"), quota=two)).run.owner == "b"
    cancelled = trace.RunStateChanged(RunState.CREATED, RunState.CANCELLED, "enough")
    await store.commit("a1", lambda _: [cancelled])
    await store.create("a3", created("a"), quota=two)
    assert await store.verify() == []


async def test_what_has_ended_still_counts_as_stored(store: Store) -> None:
    one = limit(stored=1)
    await store.create("a1", created("a"), quota=one)
    await store.commit("a1", lambda _: [trace.RunStateChanged(RunState.CREATED, RunState.CANCELLED, "enough")])
    with pytest.raises(Exhausted, match=r"stored runs of the token 'a'") as caught:
        await store.create("a2", created("a"), quota=one)
    assert "BILEVEL_MAX_STORED_RUNS" in caught.value.hint


async def test_a_request_that_is_sent_again_at_the_limit_gets_its_run(store: Store) -> None:
    one = limit(active=1)
    made = await asyncio.gather(*(store.create(f"a{i}", created("a"), "same", one) for i in range(4)))
    assert len({search.run.id for search in made}) == 1


async def test_no_race_goes_over_the_limit(database_url: str) -> None:
    three = limit(active=3)
    async with AsyncExitStack() as stack:
        stores = [await Store.open(database_url)]
        if stores[0].shared:
            stores += [await Store.open(database_url) for _ in range(2)]
        for one in stores:
            stack.push_async_callback(one.close)
        made = await asyncio.gather(
            *(stores[i % len(stores)].create(f"r{i}", created("a"), quota=three) for i in range(12)),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in made) == ["Exhausted"] * 9 + ["Search"] * 3
        assert len(await stores[0].runs(100)) == 3


async def test_an_owner_survives_rows_written_anew_from_the_log(store: Store) -> None:
    await store.create("a1", created("a"))
    assert (await store.rebuild("a1")).run.owner == "a"
    with pytest.raises(Exhausted):
        await store.create("a2", created("a"), quota=limit(active=1))


async def test_a_caller_is_told_which_limit_how_many_and_what_to_do(serve_inner: Serve, tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    tokens = {name: add_token(file, name, [Role.READ, Role.DRIVE], None) for name in ("ann", "bob")}
    settings = ServerSettings(grace=0.1, tokens=file)
    async with serve_inner(server_settings=settings, quota=limit(active=1)) as inner:
        clients = {name: await _client(inner, token) for name, token in tokens.items()}
        request = pb.CreateRunRequest(spec=trace_pb2.RunSpec(task="quadratic", max_trials=1))
        first = (await clients["ann"].CreateRun(request)).run
        assert first.owner == "ann"
        refused = await Inner.refusal(clients["ann"].CreateRun(request))
        assert refused.code == "RESOURCE_EXHAUSTED"
        assert refused.message == "active runs of the token 'ann' has reached its limit of 1: there are 1"
        assert refused.metadata["current"] == refused.metadata["limit"] == "1"
        assert refused.hint == "Cancel one or let one finish; the operator can raise BILEVEL_MAX_ACTIVE_RUNS."
        assert (await clients["bob"].CreateRun(request)).run.owner == "bob"
        command = [sys.executable, "-c", "from clients.cli import main; main()", "runs", "--inner", inner.address]
        environment = {**os.environ, "BILEVEL_TOKEN": tokens["ann"], "COLUMNS": "200"}
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
        shown = (await process.communicate())[0].decode().splitlines()
        assert "token" in shown[0]
        assert "ann" in next(line for line in shown if first.name in line)


async def test_callers_without_tokens_are_one(serve_inner: Serve) -> None:
    async with serve_inner(quota=limit(active=1)) as inner:
        await inner.create()
        refused = await Inner.refusal(inner.create())
        assert refused.message.startswith("active runs of callers without a token has reached its limit of 1")


def test_a_limit_below_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILEVEL_MAX_ACTIVE_RUNS", "-1")
    with pytest.raises(InvalidArgument, match="BILEVEL_MAX_ACTIVE_RUNS: must be greater than or equal to 0"):
        Quota.load()


async def _client(inner: Inner, token: str) -> Any:
    channel = open_channel(inner.address, ChannelSecurity(token=SecretStr(token)))
    return inner_pb2_grpc.InnerLoopServiceStub(channel)
