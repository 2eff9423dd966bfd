"""A wrong endpoint or key is found before a search starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from clients.model_endpoint import check_endpoint, endpoint_of
from service_kit.errors import InvalidArgument, ServiceError, Unauthenticated
from service_kit.settings import ModelSettings


@asynccontextmanager
async def endpoint(status: str) -> AsyncIterator[str]:
    """An HTTP server that answers every request with one status."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def settings(base: str | None, model: str | None = "a-model", key: str | None = "sk-secret-key-1") -> ModelSettings:
    return ModelSettings(OPENAI_BASE_URL=base, OPENAI_API_KEY=SecretStr(key) if key else None, BILEVEL_MODEL=model)


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
async def test_an_endpoint_that_answers_passes(status: str) -> None:
    async with endpoint(status) as base:
        await check_endpoint(settings(base))


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_a_wrong_key_is_said_without_showing_it(status: str) -> None:
    async with endpoint(status) as base:
        with pytest.raises(Unauthenticated, match="refuses the key") as caught:
            await check_endpoint(settings(base))
    assert "OPENAI_API_KEY" in caught.value.hint
    assert "sk-secret" not in str(caught.value)


async def test_an_endpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1/v1 cannot be reached") as caught:
        await check_endpoint(settings("http://127.0.0.1:1/v1"))
    assert "OPENAI_BASE_URL" in caught.value.hint


async def test_a_model_must_be_named() -> None:
    with pytest.raises(InvalidArgument, match="BILEVEL_MODEL"):
        await check_endpoint(settings("http://127.0.0.1:1/v1", model=None))


async def test_without_an_endpoint_nothing_is_asked() -> None:
    await check_endpoint(settings(None, model=None, key=None))
    assert endpoint_of(settings(None, model=None, key=None)) == ""
