"""What calls to a language model used and cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Usage:
    """Counted tokens, and the cost where the price is known. Usages add up; an unknown cost makes the sum unknown."""

    calls: int = 0
    """Number of calls, failed ones included."""
    prompt_tokens: int = 0
    """Tokens read, cached ones included."""
    completion_tokens: int = 0
    """Tokens written, reasoning tokens included."""
    reasoning_tokens: int = 0
    cost_usd: float | None = 0.0
    """US dollars; None when the model's price is unknown, which is not the same as free."""
    cached_tokens: int = 0
    """Tokens read that the endpoint had in its cache."""
    estimated_calls: int = 0
    """Calls whose tokens were estimated, because the endpoint did not count them."""

    def __add__(self, other: Self) -> Usage:
        known = self.cost_usd is not None and other.cost_usd is not None
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            (self.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None,
            self.cached_tokens + other.cached_tokens,
            self.estimated_calls + other.estimated_calls,
        )

    @property
    def total_tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(**data)
