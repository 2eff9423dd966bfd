"""Where OpenAI-compatible endpoints differ: names of fields, formats of answers, what a response counts.

An endpoint shows what it does not take by refusing a request. :class:`Dialect` remembers that for the life of the
client, so that each is learned once, and says so in the log. docs/models.md names the documentation of each quirk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from service_kit.llm.failures import Message, ModelError
from service_kit.llm.tokens import estimate
from service_kit.llm.usage import Usage
from service_kit.settings import ModelSettings

_UNSUPPORTED = re.compile(
    r"(?i)unsupported|not support|does not accept|only the default|not permitted|unexpected|unknown"
)


class Format(IntEnum):
    """How an answer's form is asked for: the next one where an endpoint refuses one."""

    TEXT = 0
    """In words alone."""
    OBJECT = 1
    """``json_object``: some JSON object."""
    SCHEMA = 2
    """``json_schema``: an object that fits a schema."""


class Dialect:
    """What one endpoint takes, as far as it has shown."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        # OpenAI's own endpoint has renamed the field; most others know only the old name.
        self._limit = "max_completion_tokens" if settings.base_url is None else "max_tokens"
        self._limits_refused: set[str] = set()
        self._temperature = settings.temperature
        self._system = True
        self.format = Format.SCHEMA
        """The strictest format that it has not refused."""

    def request(
        self,
        messages: Sequence[Message],
        schema: tuple[str, Mapping[str, Any]] | None,
        format_: Format,
        max_tokens: int | None,
    ) -> dict[str, Any]:
        """The fields of a request; ``schema`` is a name and a JSON schema."""
        sent = messages if self._system else _without_system(messages)
        fields: dict[str, Any] = {"messages": [message.to_json() for message in sent]}
        if self._temperature is not None:
            fields["temperature"] = self._temperature
        if max_tokens is not None:
            fields[self._limit] = max_tokens
        if schema is not None and format_ is Format.SCHEMA:
            name, body = schema
            fields["response_format"] = {"type": "json_schema", "json_schema": {"name": name, "schema": body}}
        elif schema is not None and format_ is Format.OBJECT:
            fields["response_format"] = {"type": "json_object"}
        return fields

    def learn(self, refusal: ModelError, sent: Mapping[str, Any]) -> str:
        """Take note of a refused field; what changes from now on in a sentence, empty when nothing was learned."""
        said, parameter = refusal.message, refusal.parameter
        if not _UNSUPPORTED.search(said):
            return ""
        other = "max_tokens" if self._limit == "max_completion_tokens" else "max_completion_tokens"
        if self._limit in sent and _names(self._limit, parameter, said) and other not in self._limits_refused:
            self._limits_refused.add(self._limit)
            self._limit = other
            return f"sends {other} for the longest answer"
        if "temperature" in sent and _names("temperature", parameter, said):
            self._temperature = None
            return "sends no temperature: the model has its own"
        if self._system and re.search(r"(?i)'system'|system role|system message", said):
            self._system = False
            return "sends the system message as part of the first user message"
        return ""

    def usage(self, response: Any) -> Usage | None:
        """What the response counted, without its cost; None where it counted nothing."""
        counted = response.usage
        if counted is None or counted.prompt_tokens is None:
            return None
        written = counted.completion_tokens or 0
        details = counted.completion_tokens_details
        reasoning = details.reasoning_tokens if details is not None else None
        if reasoning is None:
            # vLLM and Ollama send the reasoning and do not count it apart.
            reasoning = min(written, estimate(reasoning_text(response)))
        read = counted.prompt_tokens_details
        cached = read.cached_tokens if read is not None else None
        if cached is None:
            cached = (counted.model_extra or {}).get("prompt_cache_hit_tokens")  # DeepSeek's name
        return Usage(1, counted.prompt_tokens, written, reasoning, None, min(cached or 0, counted.prompt_tokens))


def reasoning_text(response: Any) -> str:
    """The reasoning beside the answer: ``reasoning_content`` (DeepSeek, older vLLM) or ``reasoning`` (vLLM, Ollama)."""
    if not response.choices:
        return ""
    extra = response.choices[0].message.model_extra or {}
    text = extra.get("reasoning_content") or extra.get("reasoning")
    return text if isinstance(text, str) else ""


def _names(field: str, parameter: str, said: str) -> bool:
    return parameter == field if parameter else re.search(rf"\b{field}\b", said) is not None


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The same conversation for a model that knows only users and assistants."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    rest = [message for message in messages if message.role != "system"]
    if not system:
        return rest
    if rest and rest[0].role == "user":
        return [Message("user", f"{system}\n\n{rest[0].content}"), *rest[1:]]
    return [Message("user", system), *rest]
