"""What calls to a language model used and cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from service_kit.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class Usage:
    """Counted tokens, and the cost where the price is known. Usages add up; an unknown cost makes the sum unknown."""

    calls: int = 0
    """Number of calls, failed ones included."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Tokens written, reasoning tokens included."""
    reasoning_tokens: int = 0
    cost_usd: float | None = 0.0
    """US dollars; None when the model's price is unknown, which is not the same as free."""

    def __add__(self, other: Self) -> Usage:
        known = self.cost_usd is not None and other.cost_usd is not None
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            (self.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None,
        )

    @property
    def total_tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens

    def to_json(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "cost_usd": self.cost_usd,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(**data)


def price(settings: ModelSettings, prompt_tokens: int, completion_tokens: int) -> float | None:
    """Cost in US dollars by the configured prices for a million tokens; None unless both are configured."""
    if settings.price_input is None or settings.price_output is None:
        return None
    return (prompt_tokens * settings.price_input + completion_tokens * settings.price_output) / 1e6
