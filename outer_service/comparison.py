"""Two shares of successes compared: the little that can be said honestly with a handful of trials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

Z = 1.6449
"""Quantile of the normal distribution for two-sided intervals at 90 %."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """``successes_with`` of ``trials_with`` against ``successes_without`` of ``trials_without``.

    The interval is Newcombe's hybrid score interval for the difference of two independent proportions (method 10 of
    Newcombe, Statistics in Medicine 17, 1998): made of two Wilson intervals, it holds its level for samples of ten and
    needs no continuity correction.
    """

    successes_with: int
    trials_with: int
    successes_without: int
    trials_without: int
    difference: float
    """Share with minus share without."""
    low: float
    high: float

    @classmethod
    def of(
        cls, successes_with: int, trials_with: int, successes_without: int, trials_without: int, z: float = Z
    ) -> Self | None:
        """None where either side has no trials: nothing can be compared."""
        if not trials_with or not trials_without:
            return None
        p, q = successes_with / trials_with, successes_without / trials_without
        p_low, p_high = wilson(successes_with, trials_with, z)
        q_low, q_high = wilson(successes_without, trials_without, z)
        low = p - q - math.hypot(p - p_low, q_high - q)
        high = p - q + math.hypot(p_high - p, q - q_low)
        numbers = successes_with, trials_with, successes_without, trials_without
        return cls(*numbers, p - q, max(low, -1.0), min(high, 1.0))

    @property
    def worse(self) -> bool:
        """Whether the whole interval lies below nothing."""
        return self.high < 0

    @property
    def better(self) -> bool:
        """Whether the whole interval lies above nothing."""
        return self.low > 0

    def __str__(self) -> str:
        return (
            f"{self.successes_with} of {self.trials_with} against {self.successes_without} of {self.trials_without},"
            f" difference {self.difference:+.2f}, 90 % interval [{self.low:+.2f}, {self.high:+.2f}]"
        )


def wilson(successes: int, trials: int, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval of a proportion; ``trials`` is at least 1."""
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    # Rounding must not put the share itself outside.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
