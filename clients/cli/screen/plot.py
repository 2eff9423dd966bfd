"""The best so far over the trials, in characters: a line, a mark for each trial, and what changed the search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text

from clients import wording
from clients.dashboard.projection.curve import Point, spread
from clients.dashboard.projection.moments import Moment

MARKS = {
    "kept": ("●", "bold green"),
    "baseline": ("◆", "bold cyan"),
    "failed": ("✗", "red"),
    "discarded": ("·", ""),
    "refused": ("○", "yellow"),
}
"""Glyph and style by what became of a trial, the most important first: they differ without colours too."""
MOMENTS = {"mechanism": ("▲", "yellow"), "configuration": ("△", "magenta"), "person": ("◇", "bold")}
"""Glyph and style of what changed the search, below the trial after which it did."""
_LINE = ("─", "green")
_LABEL = 9
_BLOCKS = "▁▂▃▄▅▆▇█"
_Cell = tuple[str, str]
_RowOf = Callable[[float], int]


def plot(
    points: Sequence[Point],
    moments: Sequence[Moment],
    baseline: float | None,
    *,
    maximize: bool,
    width: int,
    height: int,
) -> Text:
    """A text of ``height`` lines and at most ``width`` columns; the last line is for the moments.

    More trials than columns share one, in which the most important mark is shown.
    """
    limits = spread(points, baseline, maximize=maximize)
    if limits is None:
        return Text("no trial has been measured yet", style="dim")
    low, high = limits
    rows, columns = height - 1, width - _LABEL - 1
    grid: list[list[_Cell]] = [[(" ", "")] * columns for _ in range(rows)]
    place = _places([point.number for point in points], columns)

    def row_of(metric: float) -> int:
        share = (metric - low) / (high - low)
        return min(rows - 1, max(0, round((1 - share) * (rows - 1))))

    _draw_line(grid, points, place, row_of)
    for kind in reversed(MARKS):
        for point in points:
            if point.kind == kind:
                row = row_of(point.metric) if point.metric is not None else rows - 1
                grid[row][place[point.number]] = MARKS[kind]
    acts: list[_Cell] = [(" ", "")] * columns
    for moment in moments:
        acts[place.get(moment.after, columns - 1 if moment.after > 0 else 0)] = MOMENTS[moment.kind]
    labels = {0: wording.metric(high), rows - 1: wording.metric(low)}
    lines = [_line(labels.get(number, ""), cells) for number, cells in enumerate(grid)]
    return Text("\n", no_wrap=True).join([*lines, _line("", acts)])


def blocks(values: Sequence[float], width: int) -> str:
    """The newest ``width`` values, one block each: lower is lower."""
    values = values[-width:]
    if not values:
        return ""
    low, span = min(values), (max(values) - min(values)) or 1.0
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1))] for value in values)


def _places(numbers: Sequence[int], columns: int) -> dict[int, int]:
    """Column by trial: one each, two apart while there is room, and shared where there are more trials than columns."""
    count = max(1, len(numbers))
    if count * 2 <= columns:
        return {number: 2 * index for index, number in enumerate(numbers)}
    if count <= columns:
        return {number: index for index, number in enumerate(numbers)}
    return {number: index * columns // count for index, number in enumerate(numbers)}


def _draw_line(grid: list[list[_Cell]], points: Sequence[Point], place: dict[int, int], row_of: _RowOf) -> None:
    best: dict[int, float] = {place[point.number]: point.best for point in points if point.best is not None}
    row = None
    for column in range(max(best, default=-1) + 1):
        if column in best:
            row = row_of(best[column])
        if row is not None:
            grid[row][column] = _LINE


def _line(label: str, cells: Sequence[_Cell]) -> Text:
    text = Text(f"{label[:_LABEL]:>{_LABEL}} ", style="", no_wrap=True)
    for glyph, style in cells:
        text.append(glyph, style)
    text.rstrip()
    return text
