"""Means, intervals and tests, by scipy.

The interval of a mean is a percentile bootstrap over runs. Groups are compared with the reference by paired
differences, since every repeat gives all groups the same seed: a paired t test with its interval. Welch's test, which
ignores the pairing, is given beside it because published results of the method can only be tested that way.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from service_kit.errors import ServiceError

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0
"""Of the resampling, so that the same results give the same table."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A group's gains, in the objective's unit; positive is better."""

    n: int
    mean: float
    sd: float | None
    """Sample standard deviation; None for one run."""
    low: float | None
    high: float | None
    """Ends of the bootstrap interval of the mean; None for one run."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A group's gains against the reference's."""

    pairs: int
    mean: float
    """Mean paired difference."""
    low: float | None
    high: float | None
    """Ends of the paired t interval; None with fewer than two pairs or without any variation."""
    paired_p: float | None
    welch_p: float | None


def check_scipy() -> None:
    """Raise :class:`ServiceError` where scipy is missing, before anything is run for nothing."""
    try:
        import scipy.stats  # noqa: F401
    except ImportError:
        raise ServiceError(
            "an ablation needs scipy for its statistics",
            hint="Install it with `pip install 'bilevel-autoresearch[ablation]'`.",
        ) from None


def estimate(gains: Sequence[float]) -> Estimate:
    """Mean, standard deviation and interval of at least one gain."""
    if len(gains) < 2:
        return Estimate(len(gains), fmean(gains), None, None, None)
    import numpy
    from scipy import stats

    found = stats.bootstrap(
        (numpy.asarray(gains),),
        numpy.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=numpy.random.default_rng(SEED),
    ).confidence_interval
    return Estimate(len(gains), fmean(gains), stdev(gains), float(found.low), float(found.high))


def compare(reference: Mapping[int, float], group: Mapping[int, float]) -> Comparison | None:
    """Gains of a group against the reference's, both by repeat; None without a common repeat."""
    repeats = sorted(reference.keys() & group.keys())
    if not repeats:
        return None
    before, after = [reference[r] for r in repeats], [group[r] for r in repeats]
    differences = [new - old for old, new in zip(before, after, strict=True)]
    mean = fmean(differences)
    low, high, paired_p = None, None, None
    if len(repeats) > 1 and len(set(differences)) > 1:
        from scipy import stats

        test = stats.ttest_rel(after, before)
        interval = test.confidence_interval(CONFIDENCE)
        low, high, paired_p = float(interval.low), float(interval.high), float(test.pvalue)
    welch_p = welch(list(reference.values()), list(group.values()))
    return Comparison(len(repeats), mean, low, high, paired_p, welch_p)


def welch(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p of Welch's t test; None where a side has fewer than two values or neither varies."""
    if min(len(first), len(second)) < 2 or (len(set(first)) < 2 and len(set(second)) < 2):
        return None
    from scipy import stats

    with warnings.catch_warnings():
        # One side without any variation is what it is; the test stays defined.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(stats.ttest_ind(first, second, equal_var=False).pvalue)
