"""Options of the charts, for ECharts drawing as SVG: colours are the style sheet's variables and follow the theme.

Every chart keeps its number of series, so that an update changes data and rebuilds nothing, and is sent a bounded
number of points however long the run is. Tooltips are drawn, not HTML: no text of a task or a model is ever parsed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from clients.dashboard.projection.curve import Point, best_line, marks, spread
from clients.dashboard.projection.moments import Moment

Options = dict[str, Any]

_CROSS = "path://M1.5,0 L5,3.5 L8.5,0 L10,1.5 L6.5,5 L10,8.5 L8.5,10 L5,6.5 L1.5,10 L0,8.5 L3.5,5 L0,1.5 Z"
_SYMBOLS: dict[str, tuple[str, int]] = {
    "discarded": ("circle", 6),
    "kept": ("circle", 8),
    "baseline": ("rect", 8),
    "failed": (_CROSS, 8),
    "refused": ("diamond", 8),
}
"""Symbol and size in pixels of each kind of mark, in the order in which they are drawn."""
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
_FOOT, _HEAD = 0.14, 0.05
"""Shares of the range of metrics."""
_LABELLED = 6
"""With more mechanisms than this, only the newest ones' lines carry a name."""
_FONT = "Roboto, sans-serif"
SERIES = 6
"""Colours for runs that are compared; further runs begin again."""

_DIVISORS = ((2 * 86400, 86400, "days"), (2 * 3600, 3600, "hours"), (120, 60, "minutes"))


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
    divisor, unit = _time_unit(points[-1].seconds if points else 0.0)

    def x(number: float, at: float) -> float:
        return float(f"{at / divisor:.6g}") if seconds else number

    low, high = spread(points, baseline, maximize=maximize) or (0.0, 1.0)
    line = [(x(p.number, p.seconds), p.best) for p in best_line(points) if p.best is not None]
    series = [_line(_forward(line), baseline, moments, x)]
    sample = marks(points)
    for kind, (symbol, size) in _SYMBOLS.items():
        rows: list[list[float | None]] = []
        for point in sample:
            if point.kind == kind:
                shown = None if point.metric is None else _rounded(min(max(point.metric, low), high))
                rows.append([x(point.number, point.seconds), shown, point.number, _rounded(point.metric)])
        series.append(_marks(kind, symbol, size, rows, metric))
    series += [_ticks(kind, moments, x) for kind in _MOMENTS]
    # Room at the foot for what has no metric, at the head for the handles of the moments.
    foot = _FOOT if any(point.metric is None for point in points) else 0.0
    options = _frame(unit if seconds else "trial", low - foot * (high - low), high + _HEAD * (high - low))
    if not seconds:
        options["xAxis"]["max"] = max(
            (_SHORTEST, *(point.number + 1 for point in points), *(moment.after + 1 for moment in moments))
        )
    options["series"] = series
    return options


def training(
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    reference: tuple[str, Sequence[tuple[float, float]]],
    room: int,
) -> Options:
    """Training curves over the share of the budget.

    Args:
        curves: Title and samples (share, value) of each trial that runs.
        reference: The incumbent's, drawn quietly.
        room: Number of series for ``curves``, which must not change while the chart is shown.
    """
    everything = [value for _, samples in (*curves, reference) for _, value in samples]
    values = sorted(everything)
    cut = len(values) // 20
    values = values[: len(values) - cut] if cut else values
    margin = 0.06 * (values[-1] - values[0]) if values else 0.0
    low, high = (values[0] - margin, values[-1] + margin) if values else (0.0, 1.0)
    series = [_curve(reference[0], reference[1], "var(--faint)", 1.25, low, high)]
    for place in range(room):
        title, samples = curves[place] if place < len(curves) else ("", ())
        series.append(_curve(title, samples, f"var(--series-{place % SERIES + 1})", 1.75, low, high))
    options = _frame("% of the budget", low, high)
    options["xAxis"] |= {"min": 0, "max": 100}
    options["series"] = series
    return options


def comparison(runs: Sequence[tuple[str, Sequence[Point], bool]], *, seconds: bool, relative: bool) -> Options:
    """The best metric so far of several runs, each a line with its title.

    Args:
        runs: Title and points of each, and whether larger is better in it.
        seconds: Whether the x axis is time, and not trials.
        relative: Whether the gain over each run's own first metric is drawn, and not the metric.
    """
    divisor, unit = _time_unit(max((points[-1].seconds for _, points, _ in runs if points), default=0.0))
    series: list[Options] = []
    for place, (title, points, maximize) in enumerate(runs):
        line = [(point, point.best) for point in best_line(points) if point.best is not None]
        first = line[0][1] if line else 0.0
        sign = 1 if maximize else -1
        data = [
            (point.seconds / divisor if seconds else point.number, sign * (best - first) if relative else best)
            for point, best in line
        ]
        series.append(_best(title, _forward(data), f"var(--series-{place % SERIES + 1})"))
    values = [value for one in series for _, value in one["data"]]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.01 * (abs(high) or 1.0)
    options = _frame(unit if seconds else "trial", low - margin, high + margin)
    options["series"] = series
    options["tooltip"]["trigger"] = "axis"
    return options


def _frame(x_name: str, low: float, high: float) -> Options:
    label = {"color": "var(--quiet)", "fontSize": 11}
    axis = {
        "type": "value",
        "nameLocation": "end",
        "nameTextStyle": {"color": "var(--quiet)", "fontSize": 11},
        "axisLine": {"show": False},
        "axisTick": {"show": False},
        "splitLine": {"lineStyle": {"color": "var(--line)", "width": 1}},
    }
    edges = {"showMinLabel": False, "showMaxLabel": False}
    return {
        "animation": False,
        "textStyle": {"fontFamily": _FONT},
        "grid": {"left": 52, "right": 16, "top": 20, "bottom": 42},
        "tooltip": {
            "trigger": "item",
            "renderMode": "richText",
            "confine": True,
            "backgroundColor": "var(--surface)",
            "borderColor": "var(--line-strong)",
            "textStyle": {"color": "var(--ink)", "fontSize": 12, "fontFamily": _FONT},
        },
        "xAxis": axis
        | {
            "name": x_name,
            "nameLocation": "middle",
            "nameGap": 24,
            "axisLabel": label,
            "splitLine": {"show": False},
            "axisLine": {"show": True, "onZero": False, "lineStyle": {"color": "var(--line-strong)"}},
            "min": 0,
            "max": "dataMax",
            "minInterval": 1 if x_name == "trial" else 0,
        },
        "yAxis": [
            axis | {"axisLabel": label | edges, "min": _rounded(low), "max": _rounded(high)},
            {"type": "value", "show": False, "min": 0, "max": 1},
        ],
    }


def _best(name: str, data: list[list[float | None]], colour: str) -> Options:
    return {
        "type": "line",
        "name": name,
        "step": "end",
        "showSymbol": False,
        "data": data,
        "lineStyle": {"color": colour, "width": 2},
        "itemStyle": {"color": colour},
        "emphasis": {"disabled": True},
        "z": 3,
    }


def _forward(line: Sequence[tuple[float, float]]) -> list[list[float | None]]:
    """The corners of a line that never goes back: trials that run at the same time are decided in any order."""
    furthest = itertools.accumulate((x for x, _ in line), max)
    return [[_rounded(x), _rounded(y)] for x, (_, y) in zip(furthest, line, strict=True)]


def _line(line: list[list[float | None]], baseline: float | None, moments: Sequence[Moment], x: Any) -> Options:
    series = _best("best so far", line, "var(--accent)")
    lines: list[Options] = []
    if baseline is not None:
        lines.append(
            {
                "yAxis": _rounded(baseline),
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
            "color": "var(--surface)" if kind == "discarded" else colour,
            "borderColor": colour,
            "borderWidth": 1.5 if kind == "discarded" else 0,
        },
        "emphasis": {"disabled": True},
        "cursor": "pointer",
        "z": 4,
    }


def _ticks(kind: str, moments: Sequence[Moment], x: Any) -> Options:
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


def _curve(
    title: str, samples: Sequence[tuple[float, float]], colour: str, width: float, low: float, high: float
) -> Options:
    data = [[_rounded(100 * share), _rounded(min(max(value, low), high))] for share, value in samples]
    return {
        "type": "line",
        "name": title,
        "showSymbol": False,
        "data": data,
        "lineStyle": {"color": colour, "width": width},
        "itemStyle": {"color": colour},
        "emphasis": {"disabled": True},
    }


def _bounded(moments: Sequence[Moment], limit: int = MOMENT_LIMIT) -> list[Moment]:
    """The newest ``limit`` moments of each kind, in order; of several at one place the last."""
    chosen: list[Moment] = []
    for kind in _MOMENTS:
        own = [moment for moment in moments if moment.kind == kind]
        own = [
            one
            for one, following in itertools.pairwise([*own, None])
            if one and not (following and one.after == following.after)
        ]
        chosen += own[-limit:]
    return sorted(chosen, key=lambda moment: moment.after)


def _time_unit(seconds: float) -> tuple[float, str]:
    return next(((size, name) for least, size, name in _DIVISORS if seconds >= least), (1, "seconds"))


def _rounded(value: float | None) -> float | None:
    """Six significant digits: what can be seen, in fewer bytes."""
    return None if value is None else float(f"{value:.6g}")


def _short(words: str, limit: int = 34) -> str:
    return words if len(words) <= limit else words[: limit - 1] + "…"
