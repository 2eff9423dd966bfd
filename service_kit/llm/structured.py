"""Typed answers: a language model fills in a pydantic model, or fails with a type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from service_kit.llm.client import Completion, LanguageModel
from service_kit.llm.failures import Failure, Message, ModelError
from service_kit.llm.usage import Usage

T = TypeVar("T", bound=BaseModel)

log = structlog.get_logger("service_kit.llm")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A checked answer with everything needed to store and account for it."""

    value: T
    text: str
    """What the model wrote, unchanged."""
    messages: tuple[Message, ...]
    """The whole conversation, the final answer and any repair turn included."""
    usage: Usage
    model: str
    """Name of the model as the endpoint reports it."""
    latency: float
    """Seconds, all turns and retries included."""
    scripted: bool
    """Whether it came from the scripted researcher: such an answer is never evidence for the method."""


async def ask(
    model: LanguageModel, purpose: str, messages: Sequence[Message], answer_type: type[T], *, repairs: int = 1
) -> Answer[T]:
    """Ask until the answer fits ``answer_type``, with at most ``repairs`` further turns that quote what is wrong.

    The schema goes into the last message and, where the endpoint takes it, into the response format. Raises
    :class:`ModelError` with the usage and the conversation so far; its kind is INVALID when no turn fitted.
    """
    schema = answer_type.model_json_schema()
    conversation = _with_schema(messages, schema)
    usage, latency = Usage(), 0.0
    for turn in range(repairs + 1):
        try:
            completion = await _complete(model, purpose, conversation, answer_type.__name__, schema)
        except ModelError as error:
            error.usage = usage + error.usage
            raise
        usage, latency = usage + completion.usage, latency + completion.latency
        conversation = (*conversation, Message("assistant", completion.text))
        value, problems = _read(completion.text, answer_type)
        if value is not None:
            return Answer(value, completion.text, conversation, usage, completion.model, latency, completion.scripted)
        log.info("answer does not fit", purpose=purpose, turn=turn, problems=problems)
        conversation = (*conversation, Message("user", _complaint(problems)))
    text = f"the model's {purpose} answer does not fit after {repairs + 1} turns: {'; '.join(problems)[:500]}"
    raise ModelError(Failure.INVALID, text, usage=usage, messages=conversation[:-1])


async def _complete(
    model: LanguageModel, purpose: str, messages: Sequence[Message], name: str, schema: dict[str, Any]
) -> Completion:
    """One turn with the schema as response format, or without it where the endpoint has refused that (remembered)."""
    if model.schema_refused:
        return await model.complete(purpose, messages)
    response_format = {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
    try:
        return await model.complete(purpose, messages, response_format=response_format)
    except ModelError as error:
        if error.kind is not Failure.BAD_REQUEST:
            raise
        refused = error
    completion = await model.complete(purpose, messages)
    model.schema_refused = True
    log.warning("the endpoint takes no JSON schema; asking in words from now on", reason=refused.message)
    return replace(completion, usage=refused.usage + completion.usage)


def _with_schema(messages: Sequence[Message], schema: dict[str, Any]) -> tuple[Message, ...]:
    *before, last = messages
    asked = f"{last.content}\n\nAnswer with one JSON object that fits this JSON schema, and nothing else:\n"
    return (*before, Message(last.role, asked + json.dumps(schema, separators=(",", ":"))))


def _read(text: str, answer_type: type[T]) -> tuple[T | None, list[str]]:
    """The first JSON object in ``text`` that fits, or what is wrong with the one that came nearest."""
    problems: list[str] = []
    fields = answer_type.model_json_schema().get("properties", {}).keys()
    for candidate in _objects(text):
        if fields and not fields & candidate.keys():
            continue  # some other object: it must not pass for an answer of defaults alone
        try:
            return answer_type.model_validate(candidate), []
        except ValidationError as error:
            found = [f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors()]
            problems = found if not problems or len(found) < len(problems) else problems
    return None, problems or [f"answer: holds no JSON object with any of {', '.join(fields)}"]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Every outermost JSON object in ``text``, whatever stands around it: prose, code fences, reasoning."""
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)
    decoder, position = json.JSONDecoder(strict=False), 0
    while (position := text.find("{", position)) >= 0:
        try:
            found, position = decoder.raw_decode(text, position)
        except ValueError:
            position += 1
        else:
            yield found


def _complaint(problems: Sequence[str]) -> str:
    listed = "\n".join(f"- {problem}" for problem in problems[:20])
    return f"Your answer does not fit the schema:\n{listed}\nAnswer again with the complete corrected JSON object only."
