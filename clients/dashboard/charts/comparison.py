"""The best metric so far of several runs."""

from __future__ import annotations

from collections.abc import Sequence

from clients.dashboard.charts.axes import SERIES, Options, best_line_series, forward, frame, time_unit
from clients.dashboard.projection.curve import Point, best_line


def comparison(runs: Sequence[tuple[str, Sequence[Point], bool]], *, seconds: bool, relative: bool) -> Options:
    """The best metric so far of several runs, each a line with its title.

    Args:
        runs: Title and points of each, and whether larger is better in it.
        seconds: Whether the x axis is time, and not trials.
        relative: Whether the gain over each run's own first metric is drawn, and not the metric.
    """
    divisor, unit = time_unit(max((points[-1].seconds for _, points, _ in runs if points), default=0.0))
    series: list[Options] = []
    for place, (title, points, maximize) in enumerate(runs):
        line = [(point, point.best) for point in best_line(points) if point.best is not None]
        first = line[0][1] if line else 0.0
        sign = 1 if maximize else -1
        data = [
            (point.seconds / divisor if seconds else point.number, sign * (best - first) if relative else best)
            for point, best in line
        ]
        series.append(best_line_series(title, forward(data), f"var(--series-{place % SERIES + 1})"))
    values = [value for one in series for _, value in one["data"]]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.01 * (abs(high) or 1.0)
    options = frame(unit if seconds else "trial", low - margin, high + margin)
    options["series"] = series
    options["tooltip"]["trigger"] = "axis"
    return options
