"""A budget of tokens and money that is never exceeded: what a call may use is set aside before it is made.

The owner of a budget seeds it with what was used so far. Each call reserves the most that it can use, and settles with
what it did use; calls in flight count in full. A call that does not fit is not made.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from service_kit.llm.failures import Failure, ModelError
from service_kit.llm.usage import Usage

COMPLETION_TOKENS = 8192
"""Longest answer of a call under a budget where BILEVEL_MAX_TOKENS sets none: what has no end cannot be set aside."""


class Budget:
    """Tokens and US dollars that may be used; 0 is no limit. One event loop at a time uses it."""

    def __init__(self, *, max_tokens: int = 0, max_cost_usd: float = 0.0, used: Usage | None = None) -> None:
        self.max_tokens = max_tokens
        self.max_cost_usd = max_cost_usd
        self.used = used or Usage()
        """What was used, without the calls in flight."""
        self._held: list[Usage] = []

    @property
    def limited(self) -> bool:
        return bool(self.max_tokens or self.max_cost_usd)

    @property
    def in_flight(self) -> Usage:
        """What is set aside for calls that are being made."""
        return sum(self._held, Usage())

    def reserve(self, estimate: Usage) -> Reservation:
        """Set aside the most that a call can use.

        Raises :class:`ModelError` of kind BUDGET_SPENT when it does not fit, or when its cost is not known.
        """
        if refusal := self._refusal(estimate):
            raise ModelError(Failure.BUDGET_SPENT, refusal)
        self._held.append(estimate)
        return Reservation(self, estimate)

    def _refusal(self, estimate: Usage) -> str:
        taken = self.used + self.in_flight
        if self.max_tokens and taken.total_tokens + estimate.total_tokens > self.max_tokens:
            left = max(0, self.max_tokens - taken.total_tokens)
            return (
                f"the budget of {self.max_tokens} tokens does not cover the next call: {self.used.total_tokens} are "
                f"used, and it may use {estimate.total_tokens} where {left} are left"
            )
        if not self.max_cost_usd:
            return ""
        if taken.cost_usd is None or estimate.cost_usd is None:
            return f"the budget of {self.max_cost_usd:g} US dollars cannot be kept: the model's price is unknown"
        if taken.cost_usd + estimate.cost_usd > self.max_cost_usd:
            left_usd = max(0.0, self.max_cost_usd - taken.cost_usd)
            return (
                f"the budget of {self.max_cost_usd:g} US dollars does not cover the next call: "
                f"{self.used.cost_usd or 0.0:.4g} are used, and it may cost {estimate.cost_usd:.4g} where "
                f"{left_usd:.4g} are left"
            )
        return ""

    def _release(self, estimate: Usage, usage: Usage) -> None:
        self._held.remove(estimate)
        self.used = self.used + usage


class Reservation:
    """What is set aside for one call. Leaving its block without :meth:`settle` gives all of it back."""

    def __init__(self, budget: Budget, estimate: Usage) -> None:
        self._budget = budget
        self.estimate = estimate
        self._usage = Usage()

    def settle(self, usage: Usage) -> None:
        """What the call used in fact."""
        self._usage = usage

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget._release(self.estimate, self._usage)  # noqa: SLF001 (two halves of one thing)
