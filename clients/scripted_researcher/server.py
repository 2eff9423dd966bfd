"""The HTTP side: the part of OpenAI's chat-completions protocol that the loops use, refused clearly where it ends.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from clients.scripted_researcher.answers import answer
from clients.scripted_researcher.state import BadRequest

MODEL = "scripted-researcher"
PURPOSE_HEADER = "X-Bilevel-Purpose"
CHARACTERS_PER_TOKEN = 4
"""The stated approximation of the usage counts: no tokeniser runs here."""
MOST_BYTES = 16 * 2**20
"""Largest request body."""


def application() -> Starlette:
    """The ASGI application. It keeps no state."""
    routes = [
        Route("/v1/models", _models),
        Route("/v1/models/{model}", _model),
        Route("/v1/chat/completions", _complete, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={BadRequest: _refused, HTTPException: _http_error})


def tokens(text: str) -> int:
    """Approximate tokens: characters divided by :data:`CHARACTERS_PER_TOKEN`, rounded up."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _card() -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": 0, "owned_by": "bilevel-autoresearch (a script, not a model)"}


async def _models(_: Request) -> JSONResponse:
    return JSONResponse({"object": "list", "data": [_card()]})


async def _model(request: Request) -> JSONResponse:
    _known(request.path_params["model"])
    return JSONResponse(_card())


async def _complete(request: Request) -> JSONResponse:
    body = await _body(request)
    messages = _checked(body)
    purpose = request.headers.get(PURPOSE_HEADER, "")
    text = json.dumps(answer(purpose, messages), ensure_ascii=False)
    prompt = sum(tokens(message["content"]) for message in messages)
    written = tokens(text)
    return JSONResponse(
        {
            # The same request gets the same answer, its id and time included.
            "id": "scripted-" + hashlib.sha256(json.dumps([purpose, messages]).encode()).hexdigest()[:24],
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "system_fingerprint": "scripted",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "finish_reason": "stop",
                    "logprobs": None,
                }
            ],
            "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
        }
    )


async def _body(request: Request) -> Mapping[str, Any]:
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > MOST_BYTES:
            raise BadRequest(f"the request is larger than {MOST_BYTES} bytes")
    try:
        body = json.loads(received)
    except (ValueError, RecursionError):
        raise BadRequest("the request body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("the request body must be a JSON object")
    return body


def _checked(body: Mapping[str, Any]) -> list[dict[str, str]]:
    """The messages of a request that this server can answer."""
    _known(body.get("model"))
    if body.get("stream"):
        raise BadRequest("the scripted researcher does not stream; leave stream out or false", "stream", "unsupported")
    if body.get("n", 1) != 1:
        raise BadRequest("the scripted researcher gives one answer; leave n out or 1", "n", "unsupported")
    for name in ("tools", "functions"):
        if body.get(name):
            raise BadRequest(f"the scripted researcher calls no tools; leave {name} out", name, "unsupported")
    kinds = ("text", "json_object", "json_schema")
    wanted = body.get("response_format") or {"type": "json_object"}
    if not isinstance(wanted, dict) or wanted.get("type") not in kinds:
        raise BadRequest(f"response_format.type must be one of {', '.join(kinds)}", "response_format")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of at least one message", "messages")
    return [_message(message, i) for i, message in enumerate(messages)]


def _message(message: Any, place: int) -> dict[str, str]:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ("system", "developer", "user", "assistant"):
        field = f"messages[{place}].role"
        raise BadRequest(f"{field} must be one of system, developer, user, assistant; got {role!r}", field)
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        field = f"messages[{place}].content"
        raise BadRequest(f"{field} must be text; the scripted researcher reads nothing else", field)
    return {"role": role, "content": content}


def _known(model: object) -> None:
    if model != MODEL:
        raise HTTPException(404, f"the model {model!r} does not exist here; this server offers {MODEL} only")


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BadRequest)
    return _error(400, error.message, error.param, error.code)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = "model_not_found" if "model" in error.detail else error.detail.lower().replace(" ", "_")
    return _error(error.status_code, error.detail, "model" if "model" in error.detail else None, code)


def _error(status: int, message: str, param: str | None, code: str) -> JSONResponse:
    body = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return JSONResponse({"error": body}, status_code=status)
