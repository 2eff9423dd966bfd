"""Calls of the model as the campaign keeps them: complete, whether they succeeded or not."""

from __future__ import annotations

from typing import Any

from outer_service.campaign import Campaign, Turn
from outer_service.digest import TEMPLATES
from service_kit.llm.budget import Budget
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import Failure, ModelError
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
    """The campaign's budget of tokens or money is spent, or the next call does not fit: research stops cleanly."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def budget_of(campaign: Campaign) -> Budget:
    """What is left of the campaign's budget; its calls follow each other, so that what it used is all on its log."""
    policy = campaign.policy
    return Budget(max_tokens=policy.max_tokens, max_cost_usd=policy.max_cost_usd, used=campaign.usage)


def answered(answer: Answer[Any]) -> Turn:
    """A call that was answered."""
    return Turn(
        answer.messages[:-1],
        answer.text,
        answer.usage,
        answer.latency,
        answer.model,
        answer.scripted,
        prompt_version=TEMPLATES.version,
    )


def failed(error: ModelError, model: LanguageModel) -> Turn:
    """A call that was not; the conversation may end with an answer that did not fit."""
    conversation, text = error.messages, ""
    if conversation and conversation[-1].role == "assistant":
        text, conversation = conversation[-1].content, conversation[:-1]
    said = str(error)
    return Turn(conversation, text, error.usage, error.latency, model.name, model.scripted, said, TEMPLATES.version)
