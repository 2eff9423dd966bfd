"""One call to a language model: any OpenAI-compatible endpoint, with a deadline, patience and an account of its use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import openai
import structlog
import tenacity

from service_kit.errors import InvalidArgument
from service_kit.llm.budget import COMPLETION_TOKENS, Budget, Reservation
from service_kit.llm.cassette import Cassette
from service_kit.llm.dialect import Dialect, Format, reasoning_text
from service_kit.llm.failures import AWAY, TRANSIENT, Failure, Message, ModelError, model_error
from service_kit.llm.prices import Prices
from service_kit.llm.tokens import estimate, estimate_messages
from service_kit.llm.usage import Usage
from service_kit.patience import Patient
from service_kit.settings import ModelSettings
from service_kit.telemetry import metrics, tracing

PURPOSE_HEADER = "X-Bilevel-Purpose"
"""Tells the endpoint what a call is for, so that a server can label, route or account for it."""

PATIENCE = 300.0
"""Longest Retry-After in seconds that is waited for; a longer one is an answer."""

Schema = tuple[str, Mapping[str, Any]]
"""Name and JSON schema of an answer."""

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


class LanguageModel(Patient):
    """A model behind an endpoint. Any number of tasks may call it at once; its owner closes it."""

    def __init__(
        self,
        settings: ModelSettings,
        *,
        cassette: Cassette | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Raises :class:`InvalidArgument` without a model name, or for wrong prices.

        With a ``cassette`` calls are recorded or replayed; a replay takes the recorded model's name.
        """
        replaying = cassette is not None and not cassette.recording
        name = cassette.model if cassette is not None and replaying and cassette.model else settings.model
        if not name:
            raise InvalidArgument.of("BILEVEL_MODEL", "must name a model that the endpoint offers")
        self.settings = settings
        self.name = name
        self.dialect = Dialect(settings)
        self.prices = Prices.of(settings)
        self._tape = cassette if not replaying else None
        self._replay = cassette if replaying else None
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

    @property
    def priced(self) -> bool:
        """Whether the model's price is known, without which a budget in money cannot be kept."""
        return self.prices.price(self.name) is not None

    async def close(self) -> None:
        await self._client.close()

    async def complete(
        self, purpose: str, messages: Sequence[Message], *, schema: Schema | None = None, budget: Budget | None = None
    ) -> Completion:
        """The model's answer to ``messages``, in the form of ``schema`` as far as the endpoint offers that.

        Transient failures are repeated as often as the settings allow; then an endpoint that is away is waited out, for
        as long as this client is patient. Each attempt sets aside what it may use in the
        ``budget``. Raises :class:`ModelError` with the failure's kind, the usage so far and the messages.
        """
        with tracing.span(f"model {purpose}", {"gen_ai.request.model": self.name}) as span:
            try:
                completion = await self._complete(purpose, messages, schema, budget or Budget())
            except ModelError as error:
                _count(purpose, error.kind.value, error.usage, error.latency)
                raise
            _count(purpose, "answered", completion.usage, completion.latency)
            if span is not None:
                span.set_attribute("gen_ai.response.model", completion.model)
                span.set_attribute("gen_ai.usage.input_tokens", completion.usage.prompt_tokens)
                span.set_attribute("gen_ai.usage.output_tokens", completion.usage.completion_tokens)
        return completion

    async def _complete(
        self, purpose: str, messages: Sequence[Message], schema: Schema | None, budget: Budget
    ) -> Completion:
        started = time.monotonic()
        if self._replay is not None:
            return self._replayed(self._replay, purpose, messages, budget)
        try:
            call = _Call(purpose, tuple(messages), schema, budget)
            called = f"the model endpoint {self.settings.base_url or 'api.openai.com'}"
            completion = await self._wait_out(called, lambda: self._patiently(call, started), is_away)
        except ModelError as error:
            error.messages = error.messages or tuple(messages)
            error.latency = time.monotonic() - started
            if self._tape is not None and error.kind is not Failure.BUDGET_SPENT:
                await self._tape.record_failure(purpose, messages, error)
            raise
        usage = completion.usage.to_json()
        log.info(
            "model answered", purpose=purpose, model=completion.model, seconds=round(completion.latency, 3), **usage
        )
        if self._tape is not None:
            answer = {
                "text": completion.text,
                "model": completion.model,
                "usage": usage,
                "latency": completion.latency,
            }
            await self._tape.record(purpose, messages, answer)
        return completion

    def _replayed(self, tape: Cassette, purpose: str, messages: Sequence[Message], budget: Budget) -> Completion:
        with budget.reserve(self._estimate(messages, None)) as held:
            try:
                answer = tape.replay(purpose, messages)
            except ModelError as error:
                held.settle(error.usage)
                raise
            usage = Usage.from_json(answer["usage"])
            held.settle(usage)
        return Completion(answer["text"], answer["model"], usage, answer["latency"])

    async def _patiently(self, call: _Call, started: float) -> Completion:
        """Attempt after attempt, until one is answered or the patience is over."""
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.settings.retries + 1),
            retry=tenacity.retry_if_exception(_worth_repeating),
            wait=_pause,
            sleep=self._sleep,
            before_sleep=lambda state: _log_retry(call.purpose, state),
            reraise=True,
        )
        usage = Usage()
        async for attempt in retrying:
            with attempt:
                try:
                    text, model, used = await self._attempt(call)
                except ModelError as error:
                    usage = error.usage = usage + error.usage
                    raise
        return Completion(text, model, usage + used, time.monotonic() - started)

    async def _attempt(self, call: _Call) -> tuple[str, str, Usage]:
        """One attempt: repeated at once, without a pause, when the endpoint's refusal taught its dialect something."""
        usage, format_, refused = Usage(), self.dialect.format, False
        while True:
            fields = self.dialect.request(call.messages, call.schema, format_, self._longest_answer(call.budget))
            try:
                with call.budget.reserve(self._estimate(call.messages, call.schema, call.budget)) as held:
                    text, model, used = await self._ask(call, fields, held)
            except ModelError as error:
                usage = error.usage = usage + error.usage
                if error.kind is not Failure.BAD_REQUEST:
                    raise
                if learned := self.dialect.learn(error, fields):
                    log.warning("the endpoint refused a field", now=learned, reason=error.message)
                elif "response_format" in fields:
                    format_, refused = Format(format_ - 1), True
                else:
                    raise
                continue
            if refused:
                self.dialect.format = format_
                log.warning("the endpoint refused the answer's format", now=format_.name.lower())
            return text, model, usage + used

    async def _ask(self, call: _Call, fields: Mapping[str, Any], held: Reservation) -> tuple[str, str, Usage]:
        """One request; what it used is settled, and counted on its error."""
        try:
            response = await self._request(call.purpose, fields)
            used = self._usage(response, held.estimate)
            held.settle(used)
            return _text(response, used, call.messages), response.model or self.name, used
        except ModelError as error:
            if not error.usage.calls:
                error.usage = replace(held.estimate, estimated_calls=1) if error.charged else Usage(calls=1)
                held.settle(error.usage)
            raise

    async def _request(self, purpose: str, fields: Mapping[str, Any]) -> Any:
        failure: ModelError | None = None
        create: Any = self._client.chat.completions.create
        try:
            async with asyncio.timeout(self.settings.timeout):  # the library's own limit is for each read
                response = await create(model=self.name, extra_headers={PURPOSE_HEADER: purpose}, **fields)
        except (TimeoutError, ValueError, openai.OpenAIError) as error:
            failure = model_error(error, self.settings)
        if failure is not None:
            # Raised outside the handler: the library's exception, which would be its context, may quote the key.
            raise failure
        if not isinstance(getattr(response, "choices", None), list):
            raise model_error(ValueError(), self.settings)
        return response

    def _longest_answer(self, budget: Budget) -> int | None:
        return self.settings.max_tokens or (COMPLETION_TOKENS if budget.limited else None)

    def _estimate(self, messages: Sequence[Message], schema: Schema | None, budget: Budget | None = None) -> Usage:
        """The most that a call may use."""
        prompt = estimate_messages(messages) + (estimate(str(schema[1])) if schema is not None else 0)
        written = self._longest_answer(budget or Budget()) or COMPLETION_TOKENS
        return Usage(1, prompt, written, 0, self._cost(self.name, prompt, written))

    def _usage(self, response: Any, reserved: Usage) -> Usage:
        """What a response used: as it counts it, else estimated."""
        model = response.model or self.name
        counted = self.dialect.usage(response)
        if counted is None:
            content = (response.choices[0].message.content or "") if response.choices else ""
            thought = estimate(reasoning_text(response))
            written = estimate(content) + thought
            cost = self._cost(model, reserved.prompt_tokens, written)
            return Usage(1, reserved.prompt_tokens, written, thought, cost, estimated_calls=1)
        if counted.prompt_tokens * 4 < reserved.prompt_tokens and not is_scripted(model):
            log.warning(
                "the endpoint read far fewer tokens than were sent: it may have cut the prompt, see docs/models.md",
                model=model,
                read=counted.prompt_tokens,
                estimated=reserved.prompt_tokens,
            )
        cost = self._cost(model, counted.prompt_tokens, counted.completion_tokens, counted.cached_tokens)
        return replace(counted, cost_usd=cost)

    def _cost(self, model: str, prompt: int, written: int, cached: int = 0) -> float | None:
        """US dollars; None where the price is unknown. The scripted researcher has no price: it costs nothing."""
        if is_scripted(model):
            return 0.0
        price = self.prices.price(model, self.name)
        return price.cost(prompt, written, cached) if price is not None else None


def _count(purpose: str, result: str, usage: Usage, seconds: float) -> None:
    metrics.MODEL_CALLS.add(purpose=purpose, result=result)
    metrics.MODEL_SECONDS.observe(seconds, purpose=purpose)
    metrics.MODEL_COST.add(usage.cost_usd or 0.0)
    for kind in ("prompt", "cached", "completion", "reasoning"):
        metrics.MODEL_TOKENS.add(getattr(usage, f"{kind}_tokens"), kind=kind)


@dataclass(frozen=True, slots=True)
class _Call:
    """What one call asks."""

    purpose: str
    messages: tuple[Message, ...]
    schema: Schema | None
    budget: Budget


def _text(response: Any, usage: Usage, messages: tuple[Message, ...]) -> str:
    """The answer's text. Raises :class:`ModelError` where it is refused, cut off or empty."""

    def failed(kind: Failure, said: str, answer: str = "") -> ModelError:
        answered = (*messages, Message("assistant", answer)) if answer else messages
        return ModelError(kind, said, usage=usage, messages=answered)

    if not response.choices:
        raise failed(Failure.EMPTY, "the model sent no answer")
    choice = response.choices[0]
    text, end = choice.message.content or "", choice.finish_reason
    if choice.message.refusal or end == "content_filter":
        raise failed(Failure.REFUSED, f"the model refused to answer: {choice.message.refusal or 'content filter'}")
    if end == "insufficient_system_resource":  # DeepSeek: the endpoint was short of resources and stopped
        raise failed(Failure.SERVER_ERROR, "the endpoint broke off the answer for want of resources", text)
    if end == "length":
        where = " while it was still reasoning" if not text.strip() and reasoning_text(response) else ""
        said = f"the model's answer was cut off{where} after {usage.completion_tokens} tokens"
        raise failed(Failure.TRUNCATED, said, text)
    if not text.strip():
        raise failed(Failure.EMPTY, "the model's answer is empty")
    return text


def is_away(error: Exception) -> bool:
    """Whether the endpoint is away for a moment, so that waiting may help."""
    return isinstance(error, ModelError) and error.kind in AWAY and (error.retry_after or 0) <= PATIENCE


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
