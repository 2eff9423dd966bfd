"""Training curves of the trials that are being evaluated, above the incumbent's."""

from __future__ import annotations

from collections.abc import Sequence

from clients.dashboard.charts.axes import SERIES, Options, frame, rounded


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
    options = frame("% of the budget", low, high)
    options["xAxis"] |= {"min": 0, "max": 100}
    options["series"] = series
    return options


def _curve(
    title: str, samples: Sequence[tuple[float, float]], colour: str, width: float, low: float, high: float
) -> Options:
    data = [[rounded(100 * share), rounded(min(max(value, low), high))] for share, value in samples]
    return {
        "type": "line",
        "name": title,
        "showSymbol": False,
        "data": data,
        "lineStyle": {"color": colour, "width": width},
        "itemStyle": {"color": colour},
        "emphasis": {"disabled": True},
    }
