"""Typed answers: a language model fills in a pydantic model, or fails with a type."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Generic, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from service_kit.llm.budget import Budget
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import Failure, Message, ModelError
from service_kit.llm.reading import Ambiguous, objects, without_thinking
from service_kit.llm.usage import Usage

T = TypeVar("T", bound=BaseModel)

MENDABLE = frozenset({Failure.EMPTY, Failure.TRUNCATED})
"""Failures of an answer after which the same model is asked once more, as after an answer that does not fit."""

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

    def after(self, usage: Usage, latency: float) -> Answer[T]:
        """The same answer with what was used, and the seconds that passed, before it was asked for."""
        return replace(self, usage=usage + self.usage, latency=latency + self.latency)


async def ask(
    model: LanguageModel,
    purpose: str,
    messages: Sequence[Message],
    answer_type: type[T],
    *,
    repairs: int = 1,
    budget: Budget | None = None,
) -> Answer[T]:
    """Ask until the answer fits ``answer_type``, with at most ``repairs`` further turns that say what is wrong.

    The schema goes into the last message and, where the endpoint takes it, into the response format. Raises
    :class:`ModelError` with the usage and the conversation so far; its kind is INVALID when no turn fitted, and
    BUDGET_SPENT when the next turn does not fit into the ``budget``.
    """
    schema = _schema(answer_type)
    conversation = _with_schema(messages, schema)
    usage, latency = Usage(), 0.0
    for turn in range(repairs + 1):
        try:
            completion = await model.complete(
                purpose, conversation, schema=(answer_type.__name__, schema), budget=budget
            )
        except ModelError as error:
            usage, latency = usage + error.usage, latency + error.latency
            error.usage, error.latency = usage, latency
            if error.kind not in MENDABLE or turn == repairs:
                raise
            conversation = _with_request(error.messages, _COMPLAINTS[error.kind])
            log.info("no usable answer", purpose=purpose, turn=turn, reason=error.message)
            continue
        usage, latency = usage + completion.usage, latency + completion.latency
        conversation = (*conversation, Message("assistant", completion.text))
        value, problems = read(completion.text, answer_type)
        if value is not None:
            return Answer(value, completion.text, conversation, usage, completion.model, latency, completion.scripted)
        log.info("answer does not fit", purpose=purpose, turn=turn, problems=problems)
        conversation = _with_request(conversation, _complaint(problems))
    text = f"the model's {purpose} answer does not fit after {repairs + 1} turns: {'; '.join(problems)[:500]}"
    invalid = ModelError(Failure.INVALID, text, usage=usage, messages=conversation[:-1])
    invalid.latency = latency
    raise invalid


def read(text: str, answer_type: type[T]) -> tuple[T | None, list[str]]:
    """The last JSON object in ``text`` that fits, or what is wrong with the one that came nearest.

    The last one, because models that think aloud draft before they answer. An answer type with a class method
    ``from_text(text) -> fields or None`` can also be read from an answer that holds no such object.
    """
    problems: list[str] = []
    fitting: T | None = None
    fields = _schema(answer_type).get("properties", {}).keys()
    for candidate in objects(text):
        if isinstance(candidate, Ambiguous):
            problems = problems or [str(candidate)]
        elif not fields or fields & candidate.keys():  # any other must not pass for an answer of defaults alone
            value, found = _validated(candidate, answer_type)
            fitting = value or fitting
            problems = found if not problems or len(found) < len(problems) else problems
    from_text = getattr(answer_type, "from_text", None)
    if fitting is None and not problems and from_text is not None:
        written = from_text(without_thinking(text))
        if written is not None:
            fitting, problems = _validated(written, answer_type)
    if fitting is not None:
        return fitting, []
    return None, problems or [f"answer: holds no complete JSON object with any of {', '.join(fields)}"]


def _validated(candidate: dict[str, Any], answer_type: type[T]) -> tuple[T | None, list[str]]:
    try:
        return answer_type.model_validate(candidate), []
    except ValidationError as error:
        return None, [f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors()]


def _with_schema(messages: Sequence[Message], schema: dict[str, Any]) -> tuple[Message, ...]:
    *before, last = messages
    asked = f"{last.content}\n\nAnswer with one JSON object that fits this JSON schema, and nothing else:\n"
    return (*before, Message(last.role, asked + json.dumps(schema, separators=(",", ":"))))


def _with_request(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """A further request; in the user's last message where the model said nothing, because roles have to alternate."""
    *before, last = messages
    if last.role == "user":
        return (*before, Message("user", f"{last.content}\n\n{text}"))
    return (*messages, Message("user", text))


_COMPLAINTS = {
    Failure.EMPTY: "Your answer was empty. Answer with the complete JSON object only.",
    Failure.TRUNCATED: "Your answer was cut off before its end, because it was too long. Answer again with the "
    "complete JSON object only: no reasoning before it, short sentences in it.",
}


def _complaint(problems: Sequence[str]) -> str:
    listed = "\n".join(f"- {problem}" for problem in problems[:20])
    return f"Your answer does not fit the schema:\n{listed}\nAnswer again with the complete corrected JSON object only."


@cache
def _schema(answer_type: type[BaseModel]) -> dict[str, Any]:
    """Shared by all calls: nobody may change it."""
    return answer_type.model_json_schema()
