"""An OpenAI-compatible endpoint that does on request what real ones do: answer, refuse, hang, break off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from service_kit.llm.cassette import Cassette
from service_kit.llm.client import LanguageModel
from service_kit.settings import ModelSettings

KEY = "swordfish-1234"
Handler = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse] | web.StreamResponse]


def answer(content: str | None = "hi", *, finish: str = "stop", usage: Any = "counted", **message: Any) -> web.Response:
    """An answer; ``usage`` replaces what is counted, None counts nothing."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    counted = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "served",
        "choices": [choice],
        "usage": counted if usage == "counted" else usage,
    }
    return web.json_response(body)


def refusal(
    status: int, message: str = "no", *, code: str | None = None, param: str | None = None, **headers: str
) -> web.Response:
    body = {"error": {"message": message, "type": "error", "code": code, "param": param}}
    return web.json_response(body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


class Endpoint:
    """Answers call after call with the next of ``script``, and with the last one from then on."""

    def __init__(self) -> None:
        self.script: list[web.Response | Handler] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.slept: list[float] = []
        self.models: list[LanguageModel] = []
        self.url = ""
        self.over = asyncio.Event()

    async def hang(self, request: web.Request, body: Any) -> web.Response:
        await self.over.wait()
        return web.Response()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(request.headers.copy())
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, web.Response):
            # A response object can be sent once; the script may repeat its last step.
            return web.Response(body=step.body, status=step.status, headers=step.headers)
        result = step(request, body)
        return result if isinstance(result, web.StreamResponse) else await result

    def model(
        self, *script: web.Response | Handler, cassette: Cassette | None = None, **overrides: Any
    ) -> LanguageModel:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)

        self.script = list(script)
        fields = {"base_url": self.url, "api_key": KEY, "model": "served", "retries": 2, "timeout": 30.0} | overrides
        self.models.append(LanguageModel(ModelSettings.load(**fields), cassette=cassette, sleep=sleep))
        return self.models[-1]


@asynccontextmanager
async def serving() -> AsyncIterator[Endpoint]:
    """A running endpoint."""
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield endpoint
    endpoint.over.set()
    for model in endpoint.models:
        await model.close()
    await runner.cleanup()
