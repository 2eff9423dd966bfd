"""The linear algebra that mechanisms get in place of numpy: right, bounded, deterministic."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechanisms.language import linalg

MATRICES = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(st.floats(-3, 3), min_size=n, max_size=n), min_size=n, max_size=n)
)


def positive_definite(matrix: Any) -> Any:
    a = np.array(matrix)
    return (a @ a.T + np.eye(len(a))).tolist()


@given(MATRICES)
@settings(max_examples=40)
def test_solve_and_cholesky_agree_with_numpy(matrix: Any) -> None:
    spd = positive_definite(matrix)
    vector = [float(i + 1) for i in range(len(spd))]
    assert np.allclose(linalg.solve(spd, vector), np.linalg.solve(spd, vector), rtol=1e-6, atol=1e-8)
    assert np.allclose(linalg.cholesky(spd), np.linalg.cholesky(spd), rtol=1e-6, atol=1e-8)
    assert np.allclose(linalg.matmul(spd, linalg.transpose(spd)), np.array(spd) @ np.array(spd).T)


def test_least_squares_recovers_a_line() -> None:
    weights = linalg.least_squares([[1.0, x] for x in (0.0, 1.0, 2.0, 3.0)], [1.0, 3.0, 5.0, 7.0])
    assert weights == pytest.approx([1.0, 2.0], abs=1e-4)


def test_a_gaussian_process_passes_near_its_points_and_is_unsure_far_away() -> None:
    xs, ys = [[0.1], [0.5], [0.9]], [1.0, 3.0, 2.0]
    means, deviations = linalg.gp_posterior(xs, ys, [*xs, [0.3], [5.0]], noise=1e-6)
    assert means[:3] == pytest.approx(ys, abs=1e-2)
    assert max(deviations[:3]) < 1e-2 < deviations[3] < deviations[4]
    assert means[4] == pytest.approx(2.0, abs=1e-2)


def test_thompson_draws_have_the_posterior_as_their_mean() -> None:
    xs, ys, points = [[0.0], [1.0]], [0.0, 2.0], [[0.25], [0.6]]
    rng = random.Random(1)
    draws = [linalg.thompson(xs, ys, points, rng) for _ in range(800)]
    means, deviations = linalg.gp_posterior(xs, ys, points)
    for place in (0, 1):
        values = [draw[place] for draw in draws]
        assert statistics.fmean(values) == pytest.approx(means[place], abs=4 * deviations[place] / math.sqrt(800))
        assert statistics.stdev(values) == pytest.approx(deviations[place], rel=0.12)


def test_expected_improvement_is_the_integral_that_it_stands_for() -> None:
    rng = random.Random(2)
    sampled = statistics.fmean(max(0.0, 1.0 - rng.gauss(1.2, 0.5)) for _ in range(100_000))
    assert linalg.expected_improvement(1.2, 0.5, 1.0) == pytest.approx(sampled, rel=0.03)
    assert linalg.expected_improvement(-1.2, 0.5, -1.0, minimize=False) == pytest.approx(sampled, rel=0.03)
    assert linalg.expected_improvement(0.7, 0.0, 1.0) == pytest.approx(0.3)
    assert linalg.ucb(1.0, 0.5, beta=2.0) == 0.0
    assert linalg.ucb(1.0, 0.5, beta=2.0, minimize=False) == 2.0


@pytest.mark.parametrize(
    ("factors", "levels", "rows"), [(3, 2, 4), (7, 2, 8), (15, 2, 16), (4, 3, 9), (13, 3, 27), (6, 5, 25)]
)
def test_orthogonal_arrays_balance_every_pair_of_columns(factors: int, levels: int, rows: int) -> None:
    array = linalg.orthogonal_array(factors, levels)
    assert (len(array), len(array[0])) == (rows, factors)
    for a, b in itertools.combinations(range(factors), 2):
        assert set(Counter((row[a], row[b]) for row in array).values()) == {rows // levels**2}


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=30)
def test_a_latin_hypercube_has_one_point_in_every_slice(count: int, dimensions: int, seed: int) -> None:
    points = linalg.latin_hypercube(count, dimensions, random.Random(seed))
    for axis in range(dimensions):
        assert sorted(int(point[axis] * count) for point in points) == list(range(count))


@pytest.mark.parametrize(
    "call",
    [
        lambda: linalg.solve([[1.0, 2.0], [2.0, 4.0]], [1.0, 2.0]),
        lambda: linalg.cholesky([[1.0, 2.0], [2.0, 1.0]]),
        lambda: linalg.cholesky([[0.0] * 201] * 201),
        lambda: linalg.gp_posterior([], [], [[0.1]]),
        lambda: linalg.gp_posterior([[0.1]], [1.0], [[0.1, 0.2]]),
        lambda: linalg.gp_posterior([[0.1]] * 201, [1.0] * 201, [[0.1]]),
        lambda: linalg.gp_posterior([[0.1]], [1.0], [[0.1]], length_scale=0.0),
        lambda: linalg.latin_hypercube(10**6, 2, random.Random(0)),
        lambda: linalg.orthogonal_array(3, 4),
        lambda: linalg.orthogonal_array(65, 7),
        lambda: linalg.dot([1.0], [1.0, 2.0]),
        lambda: linalg.transpose([[1.0], [1.0, 2.0]]),
    ],
)
def test_what_cannot_be_computed_within_the_caps_says_so(call: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        call()
