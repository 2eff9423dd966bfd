"""Confirming a result: the best configuration and the baseline measured again on seeds that the search never used.

A search overfits its seed; what is left of its gain on fresh seeds, and on held-out data where the task has some, is
the result. Both configurations are measured on the same seeds, and the interval is Student's t for paired differences.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from statistics import fmean, stdev

from inner_service.run import Confirmation, Search
from service_kit.parameters import Objective, Split

CONFIDENCE = 0.95


def fresh_seeds(seed: int, count: int) -> tuple[int, ...]:
    """``count`` seeds that depend on the run's seed and differ from it and from each other."""
    seeds: list[int] = []
    index = 0
    while len(seeds) < count:
        digest = hashlib.sha256(f"confirmation {seed} {index}".encode()).digest()
        fresh = int.from_bytes(digest[:4]) >> 1
        if fresh != seed and fresh not in seeds:
            seeds.append(fresh)
        index += 1
    return tuple(seeds)


def split_of(search: Search) -> Split:
    """Held-out data where the task has some, else the data that the search saw."""
    return Split.HELD_OUT if search.run.task.has_held_out_split else Split.SEARCH


def summarise(search: Search, seeds: Sequence[int], baseline: Sequence[float], best: Sequence[float]) -> Confirmation:
    """The paired result; ``baseline`` and ``best`` are the metrics on ``seeds``, of which there is at least one."""
    run, objective = search.run, search.run.task.objective
    assert run.best is not None
    assert run.best_metric is not None
    assert run.baseline_metric is not None
    gains = [objective.gain(old, new) for old, new in zip(baseline, best, strict=True)]
    half = _half_width(gains)
    return Confirmation(
        seeds=tuple(seeds),
        baseline_metrics=tuple(baseline),
        best_metrics=tuple(best),
        split=split_of(search),
        mean_gain=fmean(gains),
        gain_low=None if half is None else fmean(gains) - half,
        gain_high=None if half is None else fmean(gains) + half,
        search_gain=objective.gain(run.baseline_metric, run.best_metric),
        trial=run.best,
    )


def verdict(confirmation: Confirmation, objective: Objective) -> str:
    """The result in a sentence."""
    interval = ""
    if confirmation.gain_low is not None and confirmation.gain_high is not None:
        interval = f" (95 % interval {confirmation.gain_low:.6g} to {confirmation.gain_high:.6g})"
    count, unit = len(confirmation.seeds), f" {objective.unit}" if objective.unit else ""
    return (
        f"confirmed on {count} fresh {'seed' if count == 1 else 'seeds'}: gain {confirmation.mean_gain:.6g}{unit}"
        f"{interval}; the search itself saw {confirmation.search_gain:.6g}"
    )


def _half_width(gains: Sequence[float]) -> float | None:
    if len(gains) < 2:
        return None
    quantile = t_quantile(0.5 + CONFIDENCE / 2, len(gains) - 1)
    return quantile * stdev(gains) / math.sqrt(len(gains))


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
