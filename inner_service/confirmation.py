"""Confirming a result: the best configuration and the baseline measured again on seeds that the search never used.

A search overfits its seed; what is left of its gain on fresh seeds, and on held-out data where the task has some, is
the result. Both configurations are measured on the same seeds, and the interval is Student's t for paired differences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from inner_service.run import Confirmation, RemeasurePurpose, Search
from inner_service.seeds import fresh_seeds
from inner_service.student_t import t_quantile
from service_kit.parameters import Objective, Split

CONFIDENCE = 0.95


def seeds_of(search: Search) -> tuple[int, ...]:
    """The seeds to confirm on."""
    return fresh_seeds("confirmation", search.run.spec.seed, search.run.spec.confirmation_seeds)


def pairs(search: Search) -> list[tuple[int, int]]:
    """What is to be measured: trial and seed. A best trial that is the baseline need not be measured twice."""
    assert search.best is not None
    assert search.baseline is not None
    numbers = dict.fromkeys((search.baseline.number, search.best.number))
    return [(number, seed) for seed in seeds_of(search) for number in numbers]


def conclude(search: Search) -> Confirmation | None:
    """The result of what was measured; None when no seed could be measured for both configurations."""
    assert search.best is not None
    assert search.baseline is not None
    results = search.remeasured(RemeasurePurpose.CONFIRMATION)
    measured = []
    for seed in seeds_of(search):
        old, new = (results[trial.number, seed].metric for trial in (search.baseline, search.best))
        if old is not None and new is not None:
            measured.append((seed, old, new))
    return summarise(search, *zip(*measured, strict=True)) if measured else None


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
