"""The best metric so far over trials or time, every trial's mark, and the moments at which the search changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clients.dashboard.charts.axes import Options, best_line_series, forward, frame, rounded, time_unit
from clients.dashboard.projection.curve import Point, best_line, marks, spread
from clients.dashboard.projection.moments import Moment

_CROSS = "path://M1.5,0 L5,3.5 L8.5,0 L10,1.5 L6.5,5 L10,8.5 L8.5,10 L5,6.5 L1.5,10 L0,8.5 L3.5,5 L0,1.5 Z"
_SYMBOLS: dict[str, tuple[str, int]] = {
    "discarded": ("circle", 6),
    "kept": ("circle", 8),
    "baseline": ("rect", 8),
    "failed": (_CROSS, 8),
    "refused": ("diamond", 8),
}
"""Symbol and size in pixels of each kind of mark, in the order in which they are drawn."""
_HOLLOW = ("discarded", "refused")
_MOMENTS = {"configuration": "level 1.5", "mechanism": "level 2", "person": "a person"}
_MOMENT_COLOURS = {
    "configuration": "var(--level-configuration)",
    "mechanism": "var(--level-mechanism)",
    "person": "var(--person)",
}
MOMENT_LIMIT = 48
"""Most moments of each kind that a chart is sent: the newest ones."""
_LINED = 12
"""Of these, the newest ones have a line through the chart, the others a handle at its upper edge only."""
_SHORTEST = 5
"""Trials that the axis has room for at least."""
_NARROWEST = 0.008
"""Share of the axis that two moments of one kind must be apart to be drawn both."""
_FOOT, _HEAD = 0.14, 0.05
"""Shares of the range of metrics."""
_LABELLED = 6
"""With more mechanisms than this, only the newest ones' lines carry a name."""

_Place = Callable[[float, float], float]
"""Where a trial number or a time, in seconds, is on the x axis."""


def best_so_far(
    points: Sequence[Point],
    moments: Sequence[Moment],
    baseline: float | None,
    *,
    maximize: bool,
    metric: str,
    seconds: bool = False,
) -> Options:
    """The best metric so far over trials or over time, every trial's mark, and the moments at which the search changed.

    Args:
        points: Trials as they were decided.
        moments: Acts of level 1.5, of level 2 and of people.
        baseline: The baseline's metric, drawn as a line.
        maximize: Whether larger is better.
        metric: Name of the metric.
        seconds: Whether the x axis is time since the run was created, and not the trial's number.
    """
    divisor, unit = time_unit(points[-1].seconds if points else 0.0)

    def x(number: float, at: float) -> float:
        return float(f"{at / divisor:.6g}") if seconds else number

    low, high = spread(points, baseline, maximize=maximize) or (0.0, 1.0)
    line = [(x(p.number, p.seconds), p.best) for p in best_line(points) if p.best is not None]
    series = [_line(forward(line), baseline, moments, x)]
    sample = marks(points)
    for kind, (symbol, size) in _SYMBOLS.items():
        rows: list[list[float | None]] = []
        for point in sample:
            if point.kind == kind:
                shown = None if point.metric is None else rounded(min(max(point.metric, low), high))
                rows.append([x(point.number, point.seconds), shown, point.number, rounded(point.metric)])
        series.append(_marks(kind, symbol, size, rows, metric))
    series += [_ticks(kind, moments, x) for kind in _MOMENTS]
    # Room at the foot for what has no metric, at the head for the handles of the moments.
    foot = _FOOT if any(point.metric is None for point in points) else 0.0
    options = frame(unit if seconds else "trial", low - foot * (high - low), high + _HEAD * (high - low))
    if not seconds:
        options["xAxis"]["max"] = max(
            (_SHORTEST, *(point.number + 1 for point in points), *(moment.after + 1 for moment in moments))
        )
    options["series"] = series
    return options


def _line(line: list[list[float | None]], baseline: float | None, moments: Sequence[Moment], x: _Place) -> Options:
    series = best_line_series("best so far", line, "var(--accent)")
    lines: list[Options] = []
    if baseline is not None:
        lines.append(
            {
                "yAxis": rounded(baseline),
                "lineStyle": {"color": "var(--baseline)", "type": [4, 4], "width": 1, "opacity": 0.55},
                "label": {
                    "show": True,
                    "position": "insideEndTop",
                    "formatter": "baseline",
                    "color": "var(--quiet)",
                    "fontSize": 11,
                },
            }
        )
    named = [moment for moment in moments if moment.kind == "mechanism"][-_LABELLED:]
    for moment in _bounded(moments, _LINED):
        label = moment in named
        lines.append(
            {
                "xAxis": x(moment.after + 0.5, moment.seconds),
                "lineStyle": {
                    "color": _MOMENT_COLOURS[moment.kind],
                    "type": "solid" if moment.kind == "mechanism" else [2, 3],
                    "width": 1,
                    "opacity": 0.75 if moment.kind == "mechanism" else 0.5,
                },
                "label": {
                    "show": label,
                    "position": "insideEndTop",
                    "rotate": 90,
                    "formatter": _short(moment.title.removeprefix("installed ")),
                    "backgroundColor": "var(--surface)",
                    "padding": [1, 3],
                    "color": _MOMENT_COLOURS[moment.kind],
                    "fontSize": 11,
                },
            }
        )
    series["markLine"] = {"silent": True, "symbol": "none", "animation": False, "precision": 10, "data": lines}
    return series


def _marks(kind: str, symbol: str, size: int, rows: list[list[float | None]], metric: str) -> Options:
    colour = f"var(--{kind})"
    without_metric = kind in ("failed", "refused")
    bottom = 0.025 if kind == "failed" else 0.07
    return {
        "type": "scatter",
        "name": kind,
        "symbol": symbol,
        "symbolSize": size,
        # What has no metric stands at the foot of the chart, on an axis of its own.
        "yAxisIndex": 1 if without_metric else 0,
        "data": [[row[0], bottom, row[2]] for row in rows] if without_metric else rows,
        "dimensions": ["x", "y", "trial"] if without_metric else ["x", "y", "trial", metric or "metric"],
        "encode": {"x": 0, "y": 1, "tooltip": [2] if without_metric else [2, 3]},
        "itemStyle": {
            "color": "var(--surface)" if kind in _HOLLOW else colour,
            "borderColor": colour,
            "borderWidth": 1.5 if kind in _HOLLOW else 0,
        },
        "emphasis": {"disabled": True},
        "cursor": "pointer",
        "z": 4,
    }


def _ticks(kind: str, moments: Sequence[Moment], x: _Place) -> Options:
    """Small handles at the upper edge that say what happened."""
    rows = [
        [x(moment.after + 0.5, moment.seconds), 1.0, _short(moment.title, 60)]
        for moment in _bounded(moments)
        if moment.kind == kind
    ]
    return {
        "type": "scatter",
        "name": _MOMENTS[kind],
        "symbol": "triangle",
        "symbolRotate": 180,
        "symbolSize": 8,
        "yAxisIndex": 1,
        "data": rows,
        "dimensions": ["x", "y", {"name": _MOMENTS[kind], "type": "ordinal"}],
        "encode": {"x": 0, "y": 1, "tooltip": [2]},
        "itemStyle": {"color": _MOMENT_COLOURS[kind]},
        "emphasis": {"disabled": True},
        "z": 5,
    }


def _bounded(moments: Sequence[Moment], limit: int = MOMENT_LIMIT) -> list[Moment]:
    """At most ``limit`` moments of each kind, in order: the newest that do not stand on each other."""
    width = _NARROWEST * max((moment.after for moment in moments), default=0)
    chosen: list[Moment] = []
    for kind in _MOMENTS:
        own: list[Moment] = []
        for moment in reversed(moments):
            if moment.kind == kind and (not own or own[-1].after - moment.after > width):
                own.append(moment)
        chosen += own[:limit]
    return sorted(chosen, key=lambda moment: moment.after)


def _short(words: str, limit: int = 34) -> str:
    return words if len(words) <= limit else words[: limit - 1] + "…"
