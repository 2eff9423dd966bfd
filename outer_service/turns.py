"""Calls of the model as the campaign keeps them: complete, whether they succeeded or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outer_service.campaign import Turn
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import Failure, Message, ModelError
from service_kit.llm.structured import Answer

UNUSABLE = frozenset(
    {
        Failure.UNREACHABLE,
        Failure.UNAUTHORIZED,
        Failure.UNKNOWN_MODEL,
        Failure.QUOTA_USED_UP,
        Failure.NOT_RECORDED,
    }
)
"""Failures after which other calls of the same cycle would fail as well."""


class BudgetSpent(Exception):
    """The campaign's budget of tokens or money is spent: research stops cleanly."""


def answered(answer: Answer[Any]) -> Turn:
    """A call that was answered."""
    return Turn(answer.messages[:-1], answer.text, answer.usage, answer.latency, answer.model, answer.scripted)


def failed(error: ModelError, messages: Sequence[Message], model: LanguageModel) -> Turn:
    """A call that was not; the conversation may end with an answer that did not fit."""
    conversation = error.messages or tuple(messages)
    text = ""
    if conversation and conversation[-1].role == "assistant":
        text, conversation = conversation[-1].content, conversation[:-1]
    scripted = model.name.startswith("scripted")
    return Turn(conversation, text, error.usage, 0.0, model.name, scripted, str(error))
