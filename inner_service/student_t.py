"""Student's t: the quantiles that intervals of few measurements need."""

from __future__ import annotations

import math


def t_quantile(probability: float, freedom: int) -> float:
    """Student's t: the point below which ``probability`` (in [0.5, 1)) of the distribution lies.

    With t = sqrt(v) tan(a), the probability between 0 and t is half the integral of cos^(v-1) from 0 to a over that
    from 0 to pi/2; Simpson's rule gives it, bisection inverts it. Good to 1e-8 for the probabilities in use.
    """
    whole = _cosine_integral(math.pi / 2, freedom)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if 0.5 + _cosine_integral(middle, freedom) / whole / 2 < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _cosine_integral(angle: float, freedom: int, steps: int = 512) -> float:
    width = angle / steps
    inner = sum((4 if i % 2 else 2) * math.cos(i * width) ** (freedom - 1) for i in range(1, steps))
    return width / 3 * (1.0 + inner + math.cos(angle) ** (freedom - 1))
