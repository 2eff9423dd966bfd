"""Known numbers: the published ones, and ones that can be checked by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.ablation.statistics import compare, estimate, welch

# Gains of the paper's three repeats (arXiv 2603.23420).
A, B = [0.009, 0.008, 0.011], [0.000, 0.010, 0.009]
C, D = [0.065, 0.011, 0.058], [0.001, 0.063, 0.039]


def test_the_published_groups_do_not_differ_significantly() -> None:
    assert welch(A, C) == pytest.approx(0.17, abs=0.005)
    assert welch(A, D) == pytest.approx(0.30, abs=0.005)


def test_the_published_means_and_deviations_come_out() -> None:
    for gains, mean, sd in ((A, 0.009, 0.002), (B, 0.006, 0.006), (C, 0.045, 0.030), (D, 0.034, 0.031)):
        found = estimate(gains)
        assert found.n == 3
        assert (found.mean, found.sd) == (pytest.approx(mean, abs=0.001), pytest.approx(sd, abs=0.001))


def test_a_paired_difference_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t(2; 0.975) = 4.302653.
    found = compare({1: 0.0, 2: 0.0, 3: 0.0}, {1: 1.0, 2: 2.0, 3: 3.0})
    assert found is not None
    half = 4.302653 / math.sqrt(3)
    assert (found.pairs, found.mean) == (3, 2.0)
    assert (found.low, found.high) == (pytest.approx(2 - half, abs=1e-5), pytest.approx(2 + half, abs=1e-5))
    assert found.paired_p == pytest.approx(0.0741799, abs=1e-6)


def test_only_common_repeats_are_paired() -> None:
    found = compare({1: 1.0, 2: 5.0}, {2: 6.0, 3: 100.0})
    assert found is not None
    assert (found.pairs, found.mean, found.low, found.paired_p) == (1, 1.0, None, None)
    assert compare({1: 1.0}, {2: 1.0}) is None


def test_without_variation_there_is_no_interval_and_no_test() -> None:
    found = compare({1: 1.0, 2: 2.0}, {1: 2.0, 2: 3.0})
    assert found is not None
    assert (found.mean, found.low, found.paired_p) == (1.0, None, None)
    assert welch([1.0, 1.0], [1.0, 1.0]) is None
    assert welch([1.0], [1.0, 2.0]) is None


def test_one_run_has_a_mean_and_nothing_else() -> None:
    found = estimate([0.5])
    assert (found.n, found.mean, found.sd, found.low, found.high) == (1, 0.5, None, None, None)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=12))
def test_the_interval_holds_within_the_data_and_repeats_itself(gains: list[float]) -> None:
    found = estimate(gains)
    assert found.low is not None
    assert found.high is not None
    assert min(gains) - 1e-9 <= found.low <= found.high <= max(gains) + 1e-9
    assert estimate(gains) == found
