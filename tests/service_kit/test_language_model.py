"""The language model client against a real local endpoint that misbehaves on request."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel, Field
from structlog.testing import capture_logs

from service_kit.errors import InvalidArgument, ServiceError
from service_kit.llm.cassette import Cassette
from service_kit.llm.client import PATIENCE, LanguageModel
from service_kit.llm.dialect import Format
from service_kit.llm.failures import Failure, Message, ModelError, retry_after
from service_kit.llm.structured import ask
from service_kit.llm.usage import Usage
from tests.service_kit.llm_endpoint import KEY, Endpoint, answer, refusal

HELLO = [Message("user", "hello")]


class Proposal(BaseModel):
    hypothesis: str
    step: int = Field(default=1, ge=1, le=9)


async def failure(model: LanguageModel) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await model.complete("propose", HELLO)
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.__cause__} {caught.value.__context__}"
    assert caught.value.messages[:1] == tuple(HELLO)
    return caught.value


async def test_a_call_carries_purpose_key_and_settings_and_counts_its_use(endpoint: Endpoint) -> None:
    model = endpoint.model(answer(), temperature=0.5, max_tokens=77, price_input=1.0, price_output=10.0)
    completion = await model.complete("analyse", HELLO)
    assert (completion.text, completion.model, completion.scripted) == ("hi", "served", False)
    assert completion.usage == Usage(1, 100, 20, 5, pytest.approx((100 * 1 + 20 * 10) / 1e6))
    assert completion.latency > 0
    (request,) = endpoint.requests
    assert request == {
        "model": "served",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.5,
        "max_tokens": 77,
    }
    assert endpoint.headers[0]["X-Bilevel-Purpose"] == "analyse"
    assert endpoint.headers[0]["Authorization"] == f"Bearer {KEY}"


async def test_what_is_not_set_is_not_sent_and_an_unknown_price_is_not_free(endpoint: Endpoint) -> None:
    completion = await endpoint.model(answer()).complete("propose", HELLO)
    assert endpoint.requests[0].keys() == {"model", "messages"}
    assert completion.usage.cost_usd is None
    assert (completion.usage + Usage(cost_usd=1.0)).cost_usd is None


async def test_a_rate_limit_is_waited_out_as_long_as_asked(endpoint: Endpoint) -> None:
    model = endpoint.model(refusal(429, retry_after="7"), refusal(500), answer())
    with capture_logs() as logs:
        completion = await model.complete("propose", HELLO)
    assert completion.text == "hi"
    assert completion.usage.calls == 3
    assert endpoint.slept[0] == 7
    assert 0 < endpoint.slept[1] <= 3
    assert [entry["log_level"] for entry in logs] == ["warning", "warning", "info"]
    assert KEY not in json.dumps(logs)


async def test_an_endpoint_that_asks_for_too_much_patience_is_given_up_at_once(endpoint: Endpoint) -> None:
    error = await failure(endpoint.model(refusal(429, retry_after=str(PATIENCE + 1))))
    assert (error.kind, error.retry_after, error.usage.calls) == (Failure.RATE_LIMITED, PATIENCE + 1, 1)
    assert endpoint.slept == []


def reset(request: web.Request, body: Any) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_a_dropped_connection_is_tried_again(endpoint: Endpoint) -> None:
    assert (await endpoint.model(reset, answer()).complete("propose", HELLO)).text == "hi"
    assert (await failure(endpoint.model(reset))).kind is Failure.UNREACHABLE


async def test_an_answer_that_takes_too_long_is_a_time_out(endpoint: Endpoint) -> None:
    error = await failure(endpoint.model(endpoint.hang, timeout=0.05, retries=1))
    assert (error.kind, error.usage.calls) == (Failure.TIMED_OUT, 2)
    assert "within 0.05 s" in error.message
    assert "BILEVEL_MODEL_TIMEOUT" in error.hint


async def test_an_endpoint_that_does_not_run_is_named_with_its_variable(endpoint: Endpoint) -> None:
    error = await failure(endpoint.model(answer(), base_url="http://127.0.0.1:1/v1"))
    assert error.kind is Failure.UNREACHABLE
    assert error.message == "the model endpoint http://127.0.0.1:1/v1 cannot be reached"
    assert "OPENAI_BASE_URL" in error.hint


PERMANENT = [
    (refusal(401, f"Incorrect API key provided: {KEY}"), Failure.UNAUTHORIZED, "OPENAI_API_KEY"),
    (refusal(403), Failure.UNAUTHORIZED, "OPENAI_API_KEY"),
    (refusal(404, "model not found"), Failure.UNKNOWN_MODEL, "BILEVEL_MODEL"),
    (refusal(429, code="insufficient_quota"), Failure.QUOTA_USED_UP, "OPENAI_API_KEY"),
    (refusal(400, code="context_length_exceeded"), Failure.CONTEXT_TOO_LONG, "BILEVEL_CONTEXT_TOKENS"),
    (
        refusal(400, "This model's maximum context length is 8 tokens"),
        Failure.CONTEXT_TOO_LONG,
        "BILEVEL_CONTEXT_TOKENS",
    ),
    (refusal(400, f"temperature {KEY} unsupported"), Failure.BAD_REQUEST, "BILEVEL_TEMPERATURE"),
    (answer(None, refusal="I will not"), Failure.REFUSED, "BILEVEL_MODEL"),
    (answer("", finish="content_filter"), Failure.REFUSED, "BILEVEL_MODEL"),
    (answer("  "), Failure.EMPTY, "BILEVEL_MAX_TOKENS"),
    (answer("half an ans", finish="length"), Failure.TRUNCATED, "BILEVEL_MAX_TOKENS"),
    (web.Response(text="<html>", content_type="text/html"), Failure.NOT_AN_ENDPOINT, "OPENAI_BASE_URL"),
    (web.Response(text="{broken", content_type="application/json"), Failure.NOT_AN_ENDPOINT, "OPENAI_BASE_URL"),
    (web.json_response({"hello": "world"}), Failure.NOT_AN_ENDPOINT, "OPENAI_BASE_URL"),
]


@pytest.mark.parametrize(("response", "kind", "variable"), PERMANENT)
async def test_a_permanent_failure_has_a_type_says_what_to_do_and_is_not_repeated(
    endpoint: Endpoint, response: web.Response, kind: Failure, variable: str
) -> None:
    error = await failure(endpoint.model(response))
    assert error.kind is kind
    assert variable in error.hint
    assert (len(endpoint.requests), error.usage.calls) == (1, 1)


async def test_a_truncated_answer_keeps_its_text_and_its_tokens(endpoint: Endpoint) -> None:
    error = await failure(endpoint.model(answer("half", finish="length")))
    assert error.messages[-1] == Message("assistant", "half")
    assert error.usage.completion_tokens == 20


async def test_a_model_has_to_be_named(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BILEVEL_MODEL", raising=False)
    with pytest.raises(InvalidArgument, match="BILEVEL_MODEL: must name a model"):
        endpoint.model(answer(), model=None)


GOOD = '{"hypothesis": "smaller is faster", "step": 3}'


SURROUNDED = [
    GOOD,
    f"```json\n{GOOD}\n```",
    f"Sure {{ok}}! Here: {GOOD} Hope it helps.",
    f"<think>{{}} {{a</think>\n{GOOD}",
    f'{{"x": 1}}{GOOD}',
]


@pytest.mark.parametrize("text", SURROUNDED)
async def test_an_answer_is_found_whatever_stands_around_it(endpoint: Endpoint, text: str) -> None:
    found = await ask(endpoint.model(answer(text)), "propose", HELLO, Proposal)
    assert found.value == Proposal(hypothesis="smaller is faster", step=3)
    assert found.text == text
    assert found.messages[-1] == Message("assistant", text)
    assert len(endpoint.requests) == 1
    assert endpoint.requests[0]["response_format"]["json_schema"]["name"] == "Proposal"


async def test_an_answer_that_does_not_fit_is_repaired_once_with_the_errors_quoted(endpoint: Endpoint) -> None:
    found = await ask(endpoint.model(answer('{"step": 12}'), answer(GOOD)), "propose", HELLO, Proposal)
    assert found.value.step == 3
    assert found.usage.calls == 2
    assert found.usage.prompt_tokens == 200
    assert [message.role for message in found.messages] == ["user", "assistant", "user", "assistant"]
    complaint = endpoint.requests[1]["messages"][-1]["content"]
    assert "hypothesis: Field required" in complaint
    assert "step: Input should be less than or equal to 9" in complaint


@pytest.mark.parametrize("text", ["no idea", "{}", '{"other": 1}', '{"hypothesis": "cut'])
async def test_an_answer_that_never_fits_fails_with_everything_that_was_said(endpoint: Endpoint, text: str) -> None:
    with pytest.raises(ModelError) as caught:
        await ask(endpoint.model(answer(text)), "critique", HELLO, Proposal)
    error = caught.value
    assert (error.kind, error.usage.calls) == (Failure.INVALID, 2)
    assert [message.content for message in error.messages if message.role == "assistant"] == [text, text]
    assert "critique" in error.message


def without_schema(request: web.Request, body: dict[str, Any]) -> web.Response:
    return refusal(400, "response_format is not supported") if "response_format" in body else answer(GOOD)


async def test_an_endpoint_without_schemas_is_asked_in_words_and_remembered(endpoint: Endpoint) -> None:
    model = endpoint.model(without_schema)
    first = await ask(model, "propose", HELLO, Proposal)
    second = await ask(model, "propose", HELLO, Proposal)
    assert (first.usage.calls, second.usage.calls) == (3, 1)
    formats = [request.get("response_format", {}).get("type") for request in endpoint.requests]
    assert formats == ["json_schema", "json_object", None, None]
    assert '"maximum":9' in endpoint.requests[-1]["messages"][-1]["content"]


async def test_a_bad_request_for_another_reason_does_not_give_up_schemas(endpoint: Endpoint) -> None:
    model = endpoint.model(refusal(400, "temperature unsupported"))
    with pytest.raises(ModelError, match="temperature unsupported"):
        await ask(model, "propose", HELLO, Proposal)
    assert model.dialect.format is Format.SCHEMA


async def test_the_scripted_researcher_is_labelled(endpoint: Endpoint) -> None:
    def scripted(request: web.Request, body: dict[str, Any]) -> web.Response:
        response = json.loads(answer(GOOD).body)
        return web.json_response(response | {"model": "scripted-researcher"})

    assert (await ask(endpoint.model(scripted), "propose", HELLO, Proposal)).scripted


async def test_a_recorded_conversation_replays_without_an_endpoint(endpoint: Endpoint, tmp_path: Path) -> None:
    tape = tmp_path / "tape.jsonl"
    model = endpoint.model(answer('{"step": 12}'), answer(GOOD), answer(GOOD), cassette=Cassette(tape, record=True))
    recorded = [await ask(model, "propose", HELLO, Proposal) for _ in range(2)]
    calls = len(endpoint.requests)
    offline = endpoint.model(refusal(500), base_url="http://127.0.0.1:1/v1", cassette=Cassette(tape))
    assert [await ask(offline, "propose", HELLO, Proposal) for _ in range(2)] == recorded
    assert len(endpoint.requests) == calls
    assert KEY not in tape.read_text()
    with pytest.raises(ModelError, match="no further answer to this analyse prompt"):
        await ask(offline, "analyse", HELLO, Proposal)


def test_a_broken_recording_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="cannot read the recorded conversation"):
        Cassette(tmp_path / "missing.jsonl")


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after({"retry-after": "2.5"}) == 2.5
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert retry_after({"retry-after": later}) == pytest.approx(100, abs=5)
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None
