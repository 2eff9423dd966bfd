"""Noise: how much a metric varies from seed to seed, and which gains are too small to be told from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

from inner_service.seeds import fresh_seeds

MULTIPLE = 2.0


@dataclass(frozen=True, slots=True)
class NoiseRule:
    """What a run that allows for noise was asked to do."""

    baseline_repeats: int
    """Fresh seeds on which the baseline is measured again at the start."""
    multiple: float = MULTIPLE
    """A gain is small below this many standard deviations of the difference of two measurements."""


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """How much the baseline's metric varies."""

    seeds: tuple[int, ...]
    """The run's own first."""
    metrics: tuple[float, ...]
    standard_deviation: float
    small_gain: float
    """Gains below this are checked on a second seed."""


def floor_of(rule: NoiseRule, seeds: Sequence[int], metrics: Sequence[float]) -> NoiseFloor:
    """The floor from at least two measurements of one configuration on different seeds.

    The difference of two independent measurements has the square root of 2 times the standard deviation of one. Two
    configurations on one seed vary less than that, so the threshold errs towards checking.
    """
    deviation = stdev(metrics)
    return NoiseFloor(tuple(seeds), tuple(metrics), deviation, rule.multiple * math.sqrt(2) * deviation)


def repeat_seeds(seed: int, rule: NoiseRule) -> tuple[int, ...]:
    """Where the baseline is measured again."""
    return fresh_seeds("noise floor", seed, rule.baseline_repeats)


def second_seed(seed: int, incumbent: int) -> int:
    """Where small gains over this incumbent are checked: one seed, so that the incumbent is measured there once."""
    return fresh_seeds(f"gain check {incumbent}", seed, 1)[0]
