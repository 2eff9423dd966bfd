"""One call to a language model: any OpenAI-compatible endpoint, with a deadline, patience and an account of its use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openai
import structlog
import tenacity

from service_kit.errors import InvalidArgument
from service_kit.llm.cassette import Cassette
from service_kit.llm.failures import TRANSIENT, Failure, Message, ModelError, model_error
from service_kit.llm.usage import Usage, price
from service_kit.settings import ModelSettings

PURPOSE_HEADER = "X-Bilevel-Purpose"
"""Tells the endpoint what a call is for, so that a server can label, route or account for it."""

PATIENCE = 300.0
"""Longest Retry-After in seconds that is waited for; a longer one is an answer."""

log = structlog.get_logger("service_kit.llm")


@dataclass(frozen=True, slots=True)
class Completion:
    """The text that a model answered with, and what it took."""

    text: str
    model: str
    """Name of the model as the endpoint reports it."""
    usage: Usage
    latency: float
    """Seconds from asking to answer, retries included."""

    @property
    def scripted(self) -> bool:
        """Whether this came from the scripted researcher: such an answer is never evidence for the method."""
        return is_scripted(self.model)


def is_scripted(model: str) -> bool:
    """Whether a model of this name is the scripted researcher."""
    return model.startswith("scripted")


class LanguageModel:
    """A model behind an endpoint. Any number of tasks may call it at once; its owner closes it."""

    def __init__(
        self,
        settings: ModelSettings,
        *,
        cassette: Cassette | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Raises :class:`InvalidArgument` without a model name. With a ``cassette`` calls are recorded or replayed."""
        if not settings.model:
            raise InvalidArgument.of("BILEVEL_MODEL", "must name a model that the endpoint offers")
        self.settings = settings
        self.name = settings.model
        self.schema_refused = False
        """Whether the endpoint has shown that it does not take a response format."""
        self._cassette = cassette
        self._sleep = sleep
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url or "https://api.openai.com/v1",
            # Endpoints without keys still need a header, and the library would look for the variable itself.
            api_key=settings.api_key.get_secret_value() if settings.api_key else "none",
            max_retries=0,
            timeout=settings.timeout,
        )

    @property
    def scripted(self) -> bool:
        """Whether the scripted researcher is to answer, by the configured name; each answer tells for itself."""
        return is_scripted(self.name)

    async def close(self) -> None:
        await self._client.close()

    async def complete(
        self, purpose: str, messages: Sequence[Message], *, response_format: Mapping[str, Any] | None = None
    ) -> Completion:
        """The model's answer to ``messages``. Transient failures are repeated as often as the settings allow.

        Raises :class:`ModelError` with the failure's kind, the usage so far and the messages.
        """
        if self._cassette is not None and not self._cassette.recording:
            answer = self._cassette.replay(purpose, messages)
            return Completion(answer["text"], answer["model"], Usage.from_json(answer["usage"]), answer["latency"])
        started, attempts = time.monotonic(), 0
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.settings.retries + 1),
            retry=tenacity.retry_if_exception(_worth_repeating),
            wait=_pause,
            sleep=self._sleep,
            before_sleep=lambda state: _log_retry(purpose, state),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    attempts += 1
                    response = await self._request(purpose, messages, response_format)
        except ModelError as error:
            error.usage, error.messages = Usage(calls=attempts), tuple(messages)
            raise
        usage = self._usage(response, attempts)
        latency = time.monotonic() - started
        log.info("model answered", purpose=purpose, model=response.model, seconds=round(latency, 3), **usage.to_json())
        completion = Completion(_text(response, usage, tuple(messages)), response.model or self.name, usage, latency)
        if self._cassette is not None:
            answer = {"text": completion.text, "model": completion.model, "usage": usage.to_json(), "latency": latency}
            await self._cassette.record(purpose, messages, answer)
        return completion

    async def _request(
        self, purpose: str, messages: Sequence[Message], response_format: Mapping[str, Any] | None
    ) -> Any:
        s, options = self.settings, dict[str, Any]()
        if s.temperature is not None:
            options["temperature"] = s.temperature
        if s.max_tokens is not None:
            # OpenAI's own endpoint has renamed the field; most others only know the old name.
            options["max_completion_tokens" if s.base_url is None else "max_tokens"] = s.max_tokens
        if response_format is not None:
            options["response_format"] = response_format
        failure: ModelError | None = None
        create: Any = self._client.chat.completions.create
        try:
            async with asyncio.timeout(s.timeout):  # the library's own limit is for each read, not for the answer
                response = await create(
                    model=self.name,
                    messages=[message.to_json() for message in messages],
                    extra_headers={PURPOSE_HEADER: purpose},
                    **options,
                )
        except (TimeoutError, ValueError, openai.OpenAIError) as error:
            failure = model_error(error, s)
        if failure is not None:
            # Raised outside the handler: the library's exception, which would be its context, may quote the key.
            raise failure
        if not isinstance(getattr(response, "choices", None), list):
            raise model_error(ValueError(), s)
        return response

    def _usage(self, response: Any, attempts: int) -> Usage:
        counted = response.usage
        if counted is None:
            return Usage(calls=attempts, cost_usd=None)
        details = counted.completion_tokens_details
        prompt, completion = counted.prompt_tokens or 0, counted.completion_tokens or 0
        reasoning = (details.reasoning_tokens or 0) if details is not None else 0
        return Usage(attempts, prompt, completion, reasoning, price(self.settings, prompt, completion))


def _text(response: Any, usage: Usage, messages: tuple[Message, ...]) -> str:
    def failed(kind: Failure, text: str) -> ModelError:
        return ModelError(kind, text, usage=usage, messages=messages)

    if not response.choices:
        raise failed(Failure.EMPTY, "the model sent no answer")
    choice = response.choices[0]
    text = choice.message.content or ""
    if choice.message.refusal or choice.finish_reason == "content_filter":
        raise failed(Failure.REFUSED, f"the model refused to answer: {choice.message.refusal or 'content filter'}")
    if choice.finish_reason == "length":
        answered = (*messages, Message("assistant", text))
        raise ModelError(Failure.TRUNCATED, "the model's answer was cut off", usage=usage, messages=answered)
    if not text.strip():
        raise failed(Failure.EMPTY, "the model's answer is empty")
    return text


def _worth_repeating(error: BaseException) -> bool:
    return isinstance(error, ModelError) and error.kind in TRANSIENT and (error.retry_after or 0) <= PATIENCE


_back_off = tenacity.wait_exponential(multiplier=0.5, max=30) + tenacity.wait_random(0, 0.5)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, ModelError) else None
    return asked if asked is not None else _back_off(state)


def _log_retry(purpose: str, state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    seconds = state.next_action.sleep if state.next_action is not None else 0.0
    reason = error.message if isinstance(error, ModelError) else str(error)
    log.warning("model call failed, trying again", purpose=purpose, reason=reason, in_seconds=round(seconds, 2))
