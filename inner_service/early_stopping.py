"""Early stopping: whether the trace says that a running trial will not win. Pure functions of learning curves.

The median rule is that of Google Vizier (Golovin et al., KDD 2017, section 3.5) in the form of Optuna's MedianPruner:
the trial's best intermediate value against the median of the others' values at the same share of the budget.

The learning-curve rule extrapolates with the power law c + a x^-alpha (pow3 of Domhan, Springenberg and Hutter, IJCAI
2015). What such a fit is worth is not assumed but measured: the same extrapolation is made for every finished trial of
the run from the same share of its curve, and the errors against the metrics that these had in the end give the new
prediction its shift and its interval.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from statistics import fmean, median, stdev

from inner_service.seeds import share
from inner_service.student_t import t_quantile
from service_kit.parameters import Direction, Objective

NEAREST = 0.05
"""Share of the budget by which two curves' reports may lie apart and still count as reports at the same share."""
RESOLUTION = 1 / 64
"""Points of a curve that lie closer together than this share of the budget are thinned out."""
NEWEST_CURVES = 64
"""Finished curves that the learning-curve rule looks at: the newest ones, so that its cost does not grow."""
_EXPONENTS = tuple(0.05 * 1.2**i for i in range(25))
"""Candidates for the power law's exponent, 0.05 to 4."""
_GOLDEN, _REFINEMENTS = 0.618, 12

Point = tuple[float, float]
"""Share of the budget and intermediate value."""


class EarlyStoppingRule(StrEnum):
    """How the trace says that a trial will not win."""

    MEDIAN = "median"
    LEARNING_CURVE = "learning_curve"


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Whether and how a run stops evaluations on the way."""

    rule: EarlyStoppingRule
    grace_fraction: float = 0.25
    """Share of the budget that every trial gets undisturbed."""
    min_curves: int = 5
    """Finished curves that the rule needs before it stops anything."""
    audit_fraction: float = 0.2
    """Share of the trials which the rule would stop that run to the end all the same."""
    confidence: float = 0.95
    """Probability with which the learning-curve rule must see the trial miss the incumbent."""


@dataclass(frozen=True, slots=True)
class EarlyStoppingEffect:
    """What early stopping did in a run."""

    stopped: int = 0
    audited: int = 0
    errors: int = 0
    """Audited trials that were better than the incumbent after all."""
    measured: int = 0
    """Audited trials that are decided and have a metric."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The intermediate values of one full-budget trial, by growing share of the budget."""

    number: int
    points: tuple[Point, ...] = ()
    metric: float | None = None
    """The objective's value in the end; None while the trial runs."""

    def extended(self, fraction: float, value: float) -> Curve:
        """The curve with its newest point; one that lies close to the last but one takes the last one's place.

        A point before the last one does not belong to a curve and is left out.
        """
        if self.points and fraction < self.points[-1][0]:
            return self
        crowded = len(self.points) > 1 and fraction - self.points[-2][0] < RESOLUTION
        return replace(self, points=(*(self.points[:-1] if crowded else self.points), (fraction, value)))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a trial will not win."""

    rule: EarlyStoppingRule
    fraction: float
    value: float
    prediction: float
    threshold: float
    curves: int
    bound: float | None = None

    def sentence(self) -> str:
        at = f"at {self.fraction:.0%} of the budget"
        if self.rule is EarlyStoppingRule.MEDIAN:
            return (
                f"{at} its best intermediate value {self.prediction:.6g} is worse than {self.threshold:.6g}, "
                f"the median of {self.curves} finished trials there"
            )
        return (
            f"{at} it is predicted to reach {self.prediction:.6g}, {self.bound:.6g} at best, where the incumbent has "
            f"{self.threshold:.6g}; judged by the errors of the same prediction for {self.curves} finished trials"
        )


def judge(
    settings: EarlyStopping, objective: Objective, curve: Curve, finished: Sequence[Curve], incumbent: float
) -> Verdict | None:
    """The verdict against a running trial, or None while it may still win. ``incumbent`` is the metric to beat."""
    if not curve.points or not settings.grace_fraction <= curve.points[-1][0] < 1.0:
        return None  # at the end there is nothing left to save
    if settings.rule is EarlyStoppingRule.MEDIAN:
        return _median(settings, objective, curve, finished)
    return _learning_curve(settings, objective, curve, finished, incumbent)


def drawn_for_audit(settings: EarlyStopping, seed: int, number: int) -> bool:
    """Whether the trial runs to the end whatever the rule says. The same for the same run seed and number."""
    return share(f"early stopping audit {seed} {number}") < settings.audit_fraction


def _median(settings: EarlyStopping, objective: Objective, curve: Curve, finished: Sequence[Curve]) -> Verdict | None:
    fraction, value = curve.points[-1]
    others = [at for other in finished if (at := value_at(other.points, fraction)) is not None]
    if len(others) < settings.min_curves:
        return None
    best = (max if objective.direction is Direction.MAXIMIZE else min)(v for _, v in curve.points)
    threshold = median(others)
    if not objective.better(threshold, best):
        return None
    return Verdict(settings.rule, fraction, value, best, threshold, len(others))


def _learning_curve(
    settings: EarlyStopping, objective: Objective, curve: Curve, finished: Sequence[Curve], incumbent: float
) -> Verdict | None:
    fraction, value = curve.points[-1]
    errors = []
    for other in finished[-NEWEST_CURVES:]:
        seen = tuple(point for point in other.points if point[0] <= fraction + NEAREST)
        if other.metric is not None and value_at(other.points, fraction) is not None:
            errors.append(other.metric - extrapolated(seen))
    if len(errors) < settings.min_curves:
        return None
    prediction = extrapolated(curve.points) + fmean(errors)
    half = _quantile(settings.confidence, len(errors) - 1) * stdev(errors) * math.sqrt(1 + 1 / len(errors))
    bound = prediction + half if objective.direction is Direction.MAXIMIZE else prediction - half
    if not objective.better(incumbent, bound):
        return None
    return Verdict(settings.rule, fraction, value, prediction, incumbent, len(errors), bound)


def value_at(points: Sequence[Point], fraction: float) -> float | None:
    """A curve's value at a share of the budget, between two reports on the line through them; None far from any."""
    after = bisect_left(points, (fraction, -math.inf))
    if 0 < after < len(points):
        (x0, y0), (x1, y1) = points[after - 1], points[after]
        return y0 + (y1 - y0) * (fraction - x0) / (x1 - x0)
    end = points[min(after, len(points) - 1)] if points else (math.inf, 0.0)
    return end[1] if abs(end[0] - fraction) <= NEAREST else None


@lru_cache(maxsize=4096)
def extrapolated(points: tuple[Point, ...]) -> float:
    """The value at the full budget by the best-fitting power law; with fewer than three points, the newest value.

    For each exponent the least squares in a and c are solved exactly. The exponent with the smallest remainder on a
    grid is refined by golden-section search.
    """
    usable = [(x, y) for x, y in points if x > 1e-6]
    if len({x for x, _ in usable}) < 3:
        return points[-1][1]
    best = min(range(len(_EXPONENTS)), key=lambda i: _fit(usable, _EXPONENTS[i]))
    low, high = _EXPONENTS[max(best - 1, 0)], _EXPONENTS[min(best + 1, len(_EXPONENTS) - 1)]
    for _ in range(_REFINEMENTS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if _fit(usable, left) < _fit(usable, right):
            high = right
        else:
            low = left
    return _fit(usable, (low + high) / 2)[1]


def _fit(points: Sequence[Point], exponent: float) -> tuple[float, float]:
    """Sum of squared errors of y = c + a x^-exponent, and its value at x = 1."""
    xs, ys = [x**-exponent for x, _ in points], [y for _, y in points]
    mean_x, mean_y = fmean(xs), fmean(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    a = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    c = mean_y - a * mean_x
    return sum((y - c - a * x) ** 2 for x, y in zip(xs, ys, strict=True)), c + a


_quantile = lru_cache(maxsize=256)(t_quantile)
