"""The scripted researcher as a process, asked through the same client as any other endpoint."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from clients.scripted_researcher.server import tokens
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import Message
from service_kit.llm.structured import ask
from service_kit.processes import ProcessGroup, clean_environment, spawn
from service_kit.settings import ModelSettings

ROOT = Path(__file__).parents[3]


async def start(*arguments: str) -> ProcessGroup:
    env = clean_environment() | {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "BILEVEL_LOG_FORMAT": "json"}
    command = [sys.executable, "-m", "clients.scripted_researcher", *arguments]
    return await spawn(command, env=env, stdout=PIPE, stderr=PIPE)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[ProcessGroup, str, Path]]:
    file = tmp_path / "address"
    async with await start("--listen", "127.0.0.1:0", "--address-file", str(file)) as group:
        assert group.stderr is not None
        assert b"listening" in await group.stderr.readline()
        yield group, f"http://{file.read_text().strip()}/v1", file


@pytest.fixture
async def client(server: tuple[ProcessGroup, str, Path]) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server[1], api_key="none", max_retries=0) as client:
        yield client


class Change(BaseModel):
    parameter: str
    value: int | float | str


class Candidate(BaseModel):
    changes: list[Change]
    hypothesis: str


class Proposal(BaseModel):
    candidates: list[Candidate]


async def test_a_loop_gets_a_typed_answer_that_says_it_is_scripted(
    server: tuple[ProcessGroup, str, Path], benchmark_search: Any
) -> None:
    model = LanguageModel(ModelSettings.load(base_url=server[1], model="scripted-researcher"))
    messages = [Message(m["role"], m["content"]) for m in benchmark_search.messages()]
    answer = await ask(model, "propose", messages, Proposal)
    await model.close()
    assert answer.scripted
    assert answer.value.candidates[0].changes[0] == Change(parameter="TOTAL_BATCH_SIZE", value=2**14)
    assert answer.usage.completion_tokens == tokens(answer.text)
    assert answer.usage.prompt_tokens == sum(tokens(message.content) for message in answer.messages[:-1])


async def test_it_lists_itself_as_a_script(client: openai.AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert [model.id for model in models] == ["scripted-researcher"]
    assert "script" in models[0].owned_by


@pytest.mark.parametrize(
    ("request_", "purpose", "said"),
    [
        ({}, "dream", "X-Bilevel-Purpose must be one of propose, lessons"),
        ({"messages": [{"role": "user", "content": "hello"}]}, "propose", "```json search-state"),
        ({"messages": []}, "propose", "messages must be a list"),
        ({"messages": [{"role": "poet", "content": "x"}]}, "propose", r"messages\[0\].role must be one of system"),
        ({"n": 2}, "propose", "gives one answer"),
        ({"stream": True}, "propose", "does not stream"),
        ({"response_format": {"type": "grammar"}}, "propose", "response_format.type must be one of"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "propose", "calls no tools"),
    ],
)
async def test_what_it_cannot_do_is_refused_as_openai_refuses(
    client: openai.AsyncOpenAI, benchmark_search: Any, request_: dict[str, Any], purpose: str, said: str
) -> None:
    call: dict[str, Any] = {"model": "scripted-researcher", "messages": benchmark_search.messages(), **request_}
    with pytest.raises(openai.BadRequestError, match=said) as error:
        await client.chat.completions.create(**call, extra_headers={"X-Bilevel-Purpose": purpose})
    body = error.value.body
    assert isinstance(body, dict)
    assert body["type"] == "invalid_request_error"


async def test_another_model_does_not_exist_here(client: openai.AsyncOpenAI, benchmark_search: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="offers scripted-researcher only"):
        await client.chat.completions.create(model="gpt-4", messages=benchmark_search.messages())


async def test_a_broken_body_and_an_unknown_path_get_json_errors(server: tuple[ProcessGroup, str, Path]) -> None:
    host, port = server[1].removeprefix("http://").removesuffix("/v1").split(":")
    for head, status in (("POST /v1/chat/completions", b"400"), ("GET /v2/nothing", b"404")):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{head} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{{{{{{".encode())
        answer = await reader.read()
        writer.close()
        assert answer.split(b" ")[1] == status
        assert "message" in json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]


async def test_sigterm_ends_it_with_success_and_removes_the_address(server: tuple[ProcessGroup, str, Path]) -> None:
    group, _, file = server
    assert await group.terminate(grace=20) == 0
    assert not file.exists()


@pytest.mark.parametrize(
    ("listen", "said"),
    [("nowhere", b"must be HOST:PORT"), ("0.0.0.0:0", b"other machines can reach it"), (None, b"cannot listen on")],
)
async def test_a_bad_address_is_one_clear_line(
    server: tuple[ProcessGroup, str, Path], listen: str | None, said: bytes
) -> None:
    taken = server[1].removeprefix("http://").removesuffix("/v1")
    async with await start("--listen", listen or taken) as group:
        assert group.stderr is not None
        text = await group.stderr.read()
        assert await group.wait() == 2
    assert said in text
    assert b"Traceback" not in text
