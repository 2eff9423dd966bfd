"""The documented peculiarities of endpoints, each imitated by a local server; docs/models.md names the documents."""

from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from service_kit.llm.dialect import Format
from service_kit.llm.failures import Failure, Message, ModelError
from service_kit.llm.structured import ask
from service_kit.llm.usage import Usage
from tests.service_kit.llm_endpoint import Endpoint, answer, refusal
from tests.service_kit.test_language_model import GOOD, HELLO, Proposal


def openai_reasoning(request: web.Request, body: dict[str, Any]) -> web.Response:
    """An OpenAI reasoning model: its own temperature, another name for the limit, reasoning counted apart."""
    if "max_tokens" in body:
        said = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return refusal(400, said, code="unsupported_parameter", param="max_tokens")
    if "temperature" in body:
        said = "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) is."
        return refusal(400, said, code="unsupported_value", param="temperature")
    return answer(
        GOOD,
        usage={
            "prompt_tokens": 1000,
            "completion_tokens": 900,
            "total_tokens": 1900,
            "prompt_tokens_details": {"cached_tokens": 600},
            "completion_tokens_details": {"reasoning_tokens": 800},
        },
    )


async def test_openai_reasoning_models(endpoint: Endpoint) -> None:
    model = endpoint.model(
        openai_reasoning, temperature=0.2, max_tokens=4000, price_input=1.0, price_cached=0.1, price_output=10.0
    )
    first = await ask(model, "propose", HELLO, Proposal)
    second = await ask(model, "propose", HELLO, Proposal)
    assert (first.usage.calls, second.usage.calls) == (3, 1)
    assert second.usage == Usage(1, 1000, 900, 800, pytest.approx((400 + 600 * 0.1 + 900 * 10) / 1e6), 600)
    last = endpoint.requests[-1]
    assert last["max_completion_tokens"] == 4000
    assert not {"temperature", "max_tokens"} & last.keys()
    assert last["response_format"]["type"] == "json_schema"


async def test_a_temperature_out_of_range_is_an_error_and_not_dropped(endpoint: Endpoint) -> None:
    model = endpoint.model(refusal(400, "temperature must be at most 1", param="temperature"), temperature=1.5)
    with pytest.raises(ModelError, match="temperature must be at most 1"):
        await model.complete("propose", HELLO)
    assert len(endpoint.requests) == 1


async def test_openai_itself_is_told_the_limit_by_its_new_name(endpoint: Endpoint) -> None:
    model = endpoint.model(answer(), max_tokens=10, base_url=None)
    assert "max_completion_tokens" in model.dialect.request(HELLO, None, Format.SCHEMA, 10)


async def test_an_endpoint_that_knows_only_the_old_name_of_the_limit(endpoint: Endpoint) -> None:
    def old(request: web.Request, body: dict[str, Any]) -> web.Response:
        if "max_completion_tokens" in body:
            return refusal(422, "body.max_completion_tokens: Extra inputs are not permitted")
        return answer()

    model = endpoint.model(old, max_tokens=10)
    model.dialect._limit = "max_completion_tokens"
    await model.complete("propose", HELLO)
    assert endpoint.requests[-1]["max_tokens"] == 10


def deepseek(request: web.Request, body: dict[str, Any]) -> web.Response:
    """DeepSeek: JSON objects but no schemas, reasoning beside the answer, the cache counted by other names."""
    wanted = body.get("response_format", {"type": "text"})["type"]
    if wanted == "json_schema":
        return refusal(400, "This response_format type is unavailable now", code="invalid_request_error")
    if wanted == "json_object" and not any("json" in m["content"].lower() for m in body["messages"]):
        return refusal(400, "Prompt must contain the word 'json' in some form to use 'response_format'")
    return answer(
        GOOD,
        reasoning_content="The batch is large.",
        usage={
            "prompt_tokens": 500,
            "completion_tokens": 120,
            "total_tokens": 620,
            "prompt_cache_hit_tokens": 448,
            "prompt_cache_miss_tokens": 52,
            "completion_tokens_details": {"reasoning_tokens": 100},
        },
    )


async def test_deepseek(endpoint: Endpoint) -> None:
    model = endpoint.model(deepseek)
    found = await ask(model, "propose", HELLO, Proposal)
    assert found.value.step == 3
    assert (found.usage.reasoning_tokens, found.usage.cached_tokens) == (100, 448)
    await ask(model, "propose", HELLO, Proposal)
    assert [r["response_format"]["type"] for r in endpoint.requests] == ["json_schema", "json_object", "json_object"]


async def test_deepseek_has_no_more_balance(endpoint: Endpoint) -> None:
    with pytest.raises(ModelError, match="quota is used up") as caught:
        await endpoint.model(refusal(402, "Insufficient Balance")).complete("propose", HELLO)
    assert caught.value.kind is Failure.QUOTA_USED_UP


async def test_deepseek_sends_blanks_where_its_json_mode_fails(endpoint: Endpoint) -> None:
    found = await ask(endpoint.model(answer(" \n  "), answer(GOOD)), "propose", HELLO, Proposal)
    assert found.usage.calls == 2
    roles = [message["role"] for message in endpoint.requests[1]["messages"]]
    assert roles == ["user"]
    assert endpoint.requests[1]["messages"][0]["content"].endswith("Answer with the complete JSON object only.")


async def test_deepseek_runs_short_of_resources(endpoint: Endpoint) -> None:
    model = endpoint.model(answer("{", finish="insufficient_system_resource"), answer("whole"))
    completion = await model.complete("propose", HELLO)
    assert (completion.text, completion.usage.calls, len(endpoint.slept)) == ("whole", 2, 1)


async def test_deepseek_keeps_the_connection_alive_with_empty_lines(endpoint: Endpoint) -> None:
    body = answer("whole").body
    assert isinstance(body, bytes)
    kept_alive = web.Response(body=b"\n\n\n" + body, content_type="application/json")
    assert (await endpoint.model(kept_alive).complete("propose", HELLO)).text == "whole"


VLLM_USAGE = {"prompt_tokens": 300, "completion_tokens": 90, "total_tokens": 390}


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_vllm_sends_reasoning_and_does_not_count_it_apart(endpoint: Endpoint, field: str) -> None:
    model = endpoint.model(answer(GOOD, usage=VLLM_USAGE, **{field: "x" * 120}))
    found = await ask(model, "propose", HELLO, Proposal)
    assert (found.usage.completion_tokens, found.usage.reasoning_tokens) == (90, 40)


async def test_vllm_without_a_reasoning_parser_leaves_the_reasoning_in_the_answer(endpoint: Endpoint) -> None:
    text = 'I could try {"hypothesis": "draft", "step": 1}\n</think>\n\n' + GOOD
    found = await ask(endpoint.model(answer(text)), "propose", HELLO, Proposal)
    assert found.value.step == 3


async def test_vllm_says_how_long_its_context_is(endpoint: Endpoint) -> None:
    said = (
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4900 in the messages)."
    )
    body = {"object": "error", "message": said, "type": "BadRequestError", "param": None, "code": 400}
    with pytest.raises(ModelError, match="4096 tokens") as caught:
        await endpoint.model(web.json_response(body, status=400)).complete("propose", HELLO)
    assert caught.value.kind is Failure.CONTEXT_TOO_LONG


async def test_a_template_without_a_system_role(endpoint: Endpoint) -> None:
    def template(request: web.Request, body: dict[str, Any]) -> web.Response:
        if any(message["role"] == "system" for message in body["messages"]):
            return refusal(400, "System role not supported")
        return answer()

    model = endpoint.model(template)
    await model.complete("propose", [Message("system", "Be brief."), *HELLO])
    assert endpoint.requests[-1]["messages"] == [{"role": "user", "content": "Be brief.\n\nhello"}]


async def test_ollama_has_not_pulled_the_model(endpoint: Endpoint) -> None:
    said = 'model "qwen" not found, try pulling it first'
    with pytest.raises(ModelError, match="try pulling it first") as caught:
        await endpoint.model(refusal(404, said)).complete("propose", HELLO)
    assert caught.value.kind is Failure.UNKNOWN_MODEL


async def test_ollama_cuts_long_prompts_silently_and_the_log_says_so(endpoint: Endpoint) -> None:
    usage = {"prompt_tokens": 4096, "completion_tokens": 5, "total_tokens": 4101}
    with capture_logs() as logs:
        await endpoint.model(answer(usage=usage)).complete("propose", [Message("user", "word " * 20_000)])
    assert [entry["read"] for entry in logs if "may have cut the prompt" in entry["event"]] == [4096]


async def test_an_endpoint_that_counts_nothing_is_estimated_and_marked(endpoint: Endpoint) -> None:
    completion = await endpoint.model(answer("x" * 90, usage=None)).complete("propose", HELLO)
    assert completion.usage == Usage(1, 10, 30, 0, None, 0, 1)


async def test_reasoning_that_used_up_the_answer_is_a_cut_off_one(endpoint: Endpoint) -> None:
    with pytest.raises(ModelError, match="while it was still reasoning after 20 tokens") as caught:
        await endpoint.model(answer("", finish="length", reasoning="hm")).complete("propose", HELLO)
    assert caught.value.kind is Failure.TRUNCATED


async def test_a_cut_off_answer_is_asked_for_again_shorter(endpoint: Endpoint) -> None:
    found = await ask(endpoint.model(answer('{"hypo', finish="length"), answer(GOOD)), "propose", HELLO, Proposal)
    assert found.usage.calls == 2
    assert "was cut off before its end" in endpoint.requests[1]["messages"][-1]["content"]
    assert [message.role for message in found.messages] == ["user", "assistant", "user", "assistant"]
