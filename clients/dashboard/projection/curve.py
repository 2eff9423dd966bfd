"""The points of a run's curve, and the bounded sample of them that a page draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

MARK_LIMIT = 480
"""Most marks that a chart is sent, however many trials there are."""
LINE_LIMIT = 240
"""Most corners of a best-so-far line that a chart is sent."""


@dataclass(frozen=True, slots=True)
class Point:
    """What became of one trial."""

    number: int
    seconds: float
    """Since the run was created."""
    kind: str
    """baseline, kept, discarded, failed or refused."""
    metric: float | None
    """In the objective's unit; None exactly for what failed or was refused."""
    best: float | None
    """The best metric so far, this trial included; None before the first."""


def best_line(points: Sequence[Point], limit: int = LINE_LIMIT) -> list[Point]:
    """The points at which the best changed, and where the run is now; at most ``limit`` of them, evenly thinned."""
    corners: list[Point] = []
    for point in points:
        if point.best is not None and (not corners or point.best != corners[-1].best):
            corners.append(point)
    if corners and points[-1] is not corners[-1]:
        # Trials that ran at the same time are decided in any order: the newest decision need not be the newest trial.
        corners.append(replace(points[-1], number=max(point.number for point in points)))
    return _thinned(corners, limit)


def marks(points: Sequence[Point], limit: int = MARK_LIMIT) -> list[Point]:
    """At most ``limit`` of the points, so that what is drawn looks like all of them.

    A quarter of the room is for kept trials. The rest is shared by stretches of the run: of each, the best and the
    worst discarded trial stay, and one of each kind without a metric.
    """
    if len(points) <= limit:
        return list(points)
    kept = [point for point in points if point.kind in ("kept", "baseline")]
    chosen = _thinned(kept, limit // 4)
    room = limit - len(chosen)
    stretch = -(-len(points) // (room // 4))
    for start in range(0, len(points), stretch):
        chosen += _extremes(points[start : start + stretch])
    return sorted(chosen, key=lambda point: point.number)


def spread(points: Iterable[Point], baseline: float | None, *, maximize: bool) -> tuple[float, float] | None:
    """The range of metrics worth drawing: all of the best-so-far line, and nine tenths of what was tried.

    A few trials that are far worse would press everything else flat; they are drawn on the edge. None without metrics.
    """
    metrics = sorted(point.metric for point in points if point.metric is not None)
    if not metrics:
        return None
    cut = len(metrics) // 10
    tried = metrics[cut:] if maximize else metrics[: len(metrics) - cut]
    values = [*tried, *([baseline] if baseline is not None else [])]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.01 * (abs(high) or 1.0)
    return low - margin, high + margin


def _extremes(points: Sequence[Point]) -> list[Point]:
    discarded = sorted(
        (p for p in points if p.kind == "discarded" and p.metric is not None), key=lambda p: p.metric or 0
    )
    chosen = discarded[:1] + discarded[1:][-1:]
    for kind in ("failed", "refused"):
        chosen += [point for point in points if point.kind == kind][:1]
    return chosen


def _thinned(points: list[Point], limit: int) -> list[Point]:
    """Evenly spaced points, first and last included."""
    if len(points) <= limit:
        return points
    return [points[round(place * (len(points) - 1) / (limit - 1))] for place in range(limit)]
