"""What all charts share: axes, tooltip, colours by place, and the line of the best so far."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

Options = dict[str, Any]
"""As ECharts takes them, see https://echarts.apache.org/en/option.html."""

SERIES = 6
"""Colours for things side by side; what comes after them begins again with the first."""

_FONT = "Roboto, sans-serif"
_DIVISORS = ((2 * 86400, 86400, "days"), (2 * 3600, 3600, "hours"), (120, 60, "minutes"))
"""From so many seconds on, the seconds of the unit, and its name."""


def frame(x_name: str, low: float, high: float) -> Options:
    """A chart without series: metrics from ``low`` to ``high``, and a second y axis from 0 to 1 for what has none."""
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
            axis | {"axisLabel": label | edges, "min": rounded(low), "max": rounded(high)},
            {"type": "value", "show": False, "min": 0, "max": 1},
        ],
    }


def best_line_series(name: str, data: list[list[float | None]], colour: str) -> Options:
    """A line that stays where it is until the next corner."""
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


def forward(line: Sequence[tuple[float, float]]) -> list[list[float | None]]:
    """The corners of a line that never goes back: trials that run at the same time are decided in any order."""
    furthest = accumulate((x for x, _ in line), max)
    return [[rounded(x), rounded(y)] for x, (_, y) in zip(furthest, line, strict=True)]


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit in which so many seconds are easiest to read: how many seconds it has, and its name."""
    return next(((size, name) for least, size, name in _DIVISORS if seconds >= least), (1, "seconds"))


def rounded(value: float | None) -> float | None:
    """Six significant digits: what can be seen, in fewer bytes."""
    return None if value is None else float(f"{value:.6g}")
