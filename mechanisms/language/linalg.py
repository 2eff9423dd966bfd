"""Linear algebra, Gaussian processes and designs of experiments over plain lists, with size caps.

numpy cannot be offered to generated code (a hundred modules hang on it, ctypes among them). At the sizes of a search
history, pure Python is adequate and gives the same digits everywhere: a Cholesky factor of order 100 takes about 20 ms.

Points are lists of floats, usually ``space.to_unit`` of every searched parameter. Errors are ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Vector = list[float]
Matrix = list[list[float]]

MAX_ORDER = 200
"""Largest matrix order and number of observations."""
MAX_POINTS = 1000
"""Largest number of points in a prediction or a design."""
MAX_DIMENSIONS = 64

OFFERED = (
    "cholesky",
    "dot",
    "expected_improvement",
    "gp_posterior",
    "latin_hypercube",
    "least_squares",
    "matmul",
    "normal_cdf",
    "normal_pdf",
    "orthogonal_array",
    "solve",
    "thompson",
    "transpose",
    "ucb",
)


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    """The inner product of two vectors of equal length."""
    if len(a) != len(b):
        raise ValueError(f"dot needs vectors of equal length; got {len(a)} and {len(b)}")
    return sum(x * y for x, y in zip(a, b, strict=True))


def transpose(matrix: Matrix) -> Matrix:
    """Rows become columns."""
    rows = _matrix(matrix, "transpose")
    return [list(column) for column in zip(*rows, strict=True)]


def matmul(a: Matrix, b: Matrix) -> Matrix:
    """The product of an n x k and a k x m matrix."""
    left, columns = _matrix(a, "matmul"), transpose(b)
    return [[dot(row, column) for column in columns] for row in left]


def solve(matrix: Matrix, vector: Sequence[float]) -> Vector:
    """x with ``matrix`` x = ``vector``: Gaussian elimination with partial pivoting. ValueError when singular."""
    rows = _matrix(matrix, "solve")
    order = len(rows)
    if len(rows[0]) != order or len(vector) != order:
        raise ValueError("solve needs a square matrix and a vector of its order")
    table = [[*map(float, row), float(value)] for row, value in zip(rows, vector, strict=True)]
    for column in range(order):
        pivot = max(range(column, order), key=lambda row: abs(table[row][column]))
        if abs(table[pivot][column]) < 1e-12:
            raise ValueError("solve: the matrix is singular")
        table[column], table[pivot] = table[pivot], table[column]
        lead = table[column]
        for row in table[column + 1 :]:
            factor = row[column] / lead[column]
            if factor:
                for k in range(column, order + 1):
                    row[k] -= factor * lead[k]
    solution = [0.0] * order
    for i in reversed(range(order)):
        known = sum(table[i][k] * solution[k] for k in range(i + 1, order))
        solution[i] = (table[i][order] - known) / table[i][i]
    return solution


def cholesky(matrix: Matrix) -> Matrix:
    """The lower triangular L with L L' = ``matrix``. ValueError unless symmetric positive definite."""
    rows = _matrix(matrix, "cholesky")
    order = len(rows)
    if len(rows[0]) != order:
        raise ValueError("cholesky needs a square matrix")
    lower = [[0.0] * order for _ in range(order)]
    for i in range(order):
        row = lower[i]
        for j in range(i):
            other = lower[j]
            row[j] = (rows[i][j] - sum(map(float.__mul__, row[:j], other[:j]))) / other[j]
        square = rows[i][i] - sum(value * value for value in row[:i])
        if square <= 0.0:
            raise ValueError("cholesky: the matrix is not positive definite; add to its diagonal")
        row[i] = math.sqrt(square)
    return lower


def least_squares(rows: Matrix, values: Sequence[float], ridge: float = 1e-6) -> Vector:
    """The weights w that minimise |rows w - values|^2 + ridge |w|^2."""
    columns = transpose(rows)
    normal = [[dot(a, b) + (ridge if i == j else 0.0) for j, b in enumerate(columns)] for i, a in enumerate(columns)]
    return solve(normal, [dot(column, values) for column in columns])


def gp_posterior(
    xs: Matrix, ys: Sequence[float], points: Matrix, length_scale: float = 0.3, noise: float = 1e-2
) -> tuple[Vector, Vector]:
    """Means and standard deviations at ``points`` of a Gaussian process that has seen ``ys`` at ``xs``.

    Matern-5/2 kernel, constant mean, signal variance from the data; ``noise`` is the noise variance relative to the
    signal's. Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), algorithm 2.1.
    """
    process = _Process(xs, ys, length_scale, noise)
    predictions = [process.predict(point)[:2] for point in _points(points, len(xs[0]))]
    return [mean for mean, _ in predictions], [deviation for _, deviation in predictions]


def thompson(
    xs: Matrix, ys: Sequence[float], points: Matrix, rng: Any, length_scale: float = 0.3, noise: float = 1e-2
) -> Vector:
    """One draw of the same process, joint over ``points`` (at most MAX_ORDER of them)."""
    process = _Process(xs, ys, length_scale, noise)
    points = _points(points, len(xs[0]))
    if len(points) > MAX_ORDER:
        raise ValueError(f"thompson takes at most {MAX_ORDER} points; got {len(points)}")
    means, whitened = [], []
    for point in points:
        mean, _, v = process.predict(point)
        means.append(mean)
        whitened.append(v)
    covariance = [
        [
            _matern(a, b, length_scale) - dot(whitened[i], whitened[j]) + (1e-6 if i == j else 0.0)
            for j, b in enumerate(points)
        ]
        for i, a in enumerate(points)
    ]
    lower = cholesky(covariance)
    normals = [rng.gauss(0.0, 1.0) for _ in points]
    return [mean + process.scale * dot(row, normals) for mean, row in zip(means, lower, strict=True)]


def normal_pdf(x: float) -> float:
    """Density of the standard normal distribution."""
    return math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def normal_cdf(x: float) -> float:
    """Distribution function of the standard normal distribution."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def expected_improvement(mean: float, deviation: float, best: float, minimize: bool = True) -> float:
    """How much better than ``best`` a point is expected to be: Jones, Schonlau and Welch (1998), equation 15."""
    gain = best - mean if minimize else mean - best
    if deviation <= 0.0:
        return max(0.0, gain)
    z = gain / deviation
    return gain * normal_cdf(z) + deviation * normal_pdf(z)


def ucb(mean: float, deviation: float, beta: float = 2.0, minimize: bool = True) -> float:
    """Upper confidence bound as a score, higher is better, for either direction: Srinivas et al. (2010)."""
    return beta * deviation - mean if minimize else mean + beta * deviation


def latin_hypercube(count: int, dimensions: int, rng: Any) -> Matrix:
    """``count`` points in the unit cube, one in each of ``count`` slices of every axis: McKay et al. (1979)."""
    _size("count", count, MAX_POINTS)
    _size("dimensions", dimensions, MAX_DIMENSIONS)
    columns = []
    for _ in range(dimensions):
        slices = list(range(count))
        rng.shuffle(slices)
        columns.append([(place + rng.random()) / count for place in slices])
    return [list(point) for point in zip(*columns, strict=True)]


def orthogonal_array(factors: int, levels: int = 2) -> list[list[int]]:
    """Rows of levels 0 to ``levels`` - 1 in which every pair of columns holds every pair of levels equally often.

    ``levels`` is 2, 3, 5 or 7. The Rao-Hamming construction over the integers modulo a prime: Hedayat, Sloane and
    Stufken, Orthogonal Arrays (1999), section 3.4. L4, L8, L9, L16, L27 arise from it.
    """
    if levels not in (2, 3, 5, 7):
        raise ValueError("orthogonal_array takes 2, 3, 5 or 7 levels")
    _size("factors", factors, MAX_DIMENSIONS)
    power = 1
    while (levels**power - 1) // (levels - 1) < factors:
        power += 1
    rows = levels**power
    if rows > MAX_POINTS:
        raise ValueError(
            f"orthogonal_array: {factors} factors at {levels} levels need {rows} rows; at most {MAX_POINTS}"
        )
    vectors = [_digits(number, levels, power) for number in range(rows)]
    generators = [v for v in vectors if any(v) and next(digit for digit in v if digit) == 1][:factors]
    return [[sum(a * b for a, b in zip(v, g, strict=True)) % levels for g in generators] for v in vectors]


class _Process:
    """A Gaussian process fitted once; ``scale`` is the standard deviation of the data."""

    def __init__(self, xs: Matrix, ys: Sequence[float], length_scale: float, noise: float) -> None:
        if not xs or len(xs) != len(ys):
            raise ValueError("a Gaussian process needs as many values as points, at least one")
        if not length_scale > 0.0 or not noise > 0.0:
            raise ValueError("length_scale and noise must be positive")
        self.xs = _points(xs, len(xs[0]), MAX_ORDER)
        self.length_scale = length_scale
        self.mean = sum(ys) / len(ys)
        self.scale = math.sqrt(sum((y - self.mean) ** 2 for y in ys) / len(ys)) or 1.0
        gram = [
            [_matern(a, b, length_scale) + (noise if i == j else 0.0) for j, b in enumerate(self.xs)]
            for i, a in enumerate(self.xs)
        ]
        self.lower = cholesky(gram)
        self.weights = _backward(self.lower, _forward(self.lower, [(y - self.mean) / self.scale for y in ys]))

    def predict(self, point: Vector) -> tuple[float, float, Vector]:
        """Mean, standard deviation and whitened covariance at ``point``."""
        covariance = [_matern(point, x, self.length_scale) for x in self.xs]
        whitened = _forward(self.lower, covariance)
        variance = max(0.0, 1.0 - dot(whitened, whitened))
        return self.mean + self.scale * dot(covariance, self.weights), self.scale * math.sqrt(variance), whitened


def _matern(a: Vector, b: Vector, length_scale: float) -> float:
    scaled = math.sqrt(5.0) * math.dist(a, b) / length_scale
    return (1.0 + scaled + scaled * scaled / 3.0) * math.exp(-scaled)


def _forward(lower: Matrix, vector: Sequence[float]) -> Vector:
    solution: Vector = []
    for row, value in zip(lower, vector, strict=True):
        solution.append((value - sum(map(float.__mul__, row, solution))) / row[len(solution)])
    return solution


def _backward(lower: Matrix, vector: Sequence[float]) -> Vector:
    order = len(lower)
    solution = [0.0] * order
    for i in reversed(range(order)):
        known = sum(lower[k][i] * solution[k] for k in range(i + 1, order))
        solution[i] = (vector[i] - known) / lower[i][i]
    return solution


def _matrix(matrix: Matrix, function: str) -> Matrix:
    if not matrix or not matrix[0]:
        raise ValueError(f"{function} needs at least one row and one column")
    _size("rows", len(matrix), MAX_POINTS if function in ("transpose", "matmul") else MAX_ORDER)
    _size("columns", len(matrix[0]), MAX_ORDER)
    if any(len(row) != len(matrix[0]) for row in matrix):
        raise ValueError(f"{function} needs rows of equal length")
    return [[float(value) for value in row] for row in matrix]


def _points(points: Matrix, dimensions: int, limit: int = MAX_POINTS) -> Matrix:
    _size("points", len(points), limit)
    _size("dimensions", dimensions, MAX_DIMENSIONS)
    if any(len(point) != dimensions for point in points):
        raise ValueError("every point needs the same number of dimensions")
    return [[float(value) for value in point] for point in points]


def _size(what: str, size: int, limit: int) -> None:
    if type(size) is not int or not 1 <= size <= limit:
        raise ValueError(f"{what} must be from 1 to {limit}; got {size!r}")


def _digits(number: int, base: int, count: int) -> list[int]:
    return [number // base**place % base for place in range(count)]


def signatures() -> list[tuple[str, Callable[..., Any]]]:
    """The offered functions, for the language reference."""
    return [(name, globals()[name]) for name in OFFERED]
