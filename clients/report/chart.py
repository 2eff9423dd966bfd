"""The best-so-far curve as geometry: the page's template draws it as SVG, so that every text in it is escaped there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bilevel.v1 import common_pb2, trace_pb2

from clients import wording
from clients.report.record import RunRecord

WIDTH, HEIGHT = 960.0, 360.0
LEFT, RIGHT, TOP, BOTTOM = 72.0, 26.0, 52.0, 40.0


@dataclass(frozen=True, slots=True)
class Mark:
    """One trial on the chart."""

    x: float
    y: float
    kind: str
    """kept, discarded, failed or refused."""
    beyond: bool
    """Whether its metric lies outside the drawn range, so that it stands on the edge."""
    title: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A vertical line: the outer loop acted between two trials."""

    x: float
    kind: str
    """configuration (level 1.5) or mechanism (level 2)."""
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """The best metric so far, as an SVG path."""

    path: str
    label: str
    end_x: float
    end_y: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A complete chart in a box of WIDTH x HEIGHT."""

    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]
    moments: tuple[Moment, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    baseline_y: float | None
    label: str
    """What the vertical axis shows."""
    description: str
    """For readers who do not see it."""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    last: int
    maximize: bool

    def x(self, trial: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * trial / max(1, self.last), 2)

    def y(self, metric: float) -> float:
        share = (min(max(metric, self.low), self.high) - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 2)

    def beyond(self, metric: float) -> bool:
        return not self.low <= metric <= self.high


def run_chart(record: RunRecord) -> Chart | None:
    """One run: every trial, the best so far, and the moments of levels 1.5 and 2. None before anything was measured."""
    scale = _scale([record])
    if scale is None:
        return None
    history = record.history
    lines = [line for line in (_line(record, scale),) if line is not None]
    summary = record.summary()
    return Chart(
        tuple(lines),
        tuple(_marks(record, scale)),
        tuple(_moments(record, scale)),
        _x_ticks(scale),
        _y_ticks(scale),
        scale.y(history.baseline_metric) if history.baseline_metric is not None else None,
        _label(record),
        f"{_label(record)} by trial: from {wording.metric(summary.baseline)} to {wording.metric(summary.best)}",
    )


def comparison_chart(records: Sequence[RunRecord]) -> Chart | None:
    """The best so far of several runs in one chart."""
    scale = _scale(records)
    if scale is None:
        return None
    lines = [line for record in records if (line := _line(record, scale)) is not None]
    moments = [moment for record in records for moment in _moments(record, scale) if moment.kind == "mechanism"]
    text = "; ".join(f"{record.title}: {wording.metric(record.history.best_metric)}" for record in records)
    return Chart(
        *(tuple(lines), (), tuple(moments), _x_ticks(scale), _y_ticks(scale), None),
        *(_label(records[0]), f"Best so far by trial. {text}"),
    )


def best_so_far(record: RunRecord) -> list[tuple[int, float]]:
    """(trial, best metric so far) at the start and wherever it improves, and at the last trial."""
    history = record.history
    points: list[tuple[int, float]] = []
    for number in sorted(history.trials):
        metric = history.metric(number)
        trial = history.trials[number]
        if metric is None or trial.state in _OPEN or trial.budget_fraction not in (0.0, 1.0):
            continue
        if not points or (metric > points[-1][1] if history.maximize else metric < points[-1][1]):
            points.append((number, metric))
    if points:
        points.append((max(n for n, t in history.trials.items() if t.state not in _OPEN), points[-1][1]))
    return points


_OPEN = {trace_pb2.TRIAL_STATE_PROPOSED, trace_pb2.TRIAL_STATE_RUNNING, trace_pb2.TRIAL_STATE_UNSPECIFIED}


def metric_range(records: Sequence[RunRecord]) -> tuple[float, float] | None:
    """The part of the metric's axis worth drawing; trials beyond it stand on its edge. None without measurements.

    It holds every run's curve and the typical trial: far excursions must not flatten the curve that matters.
    """
    metrics = sorted(m for r in records for n in r.history.trials if (m := r.history.metric(n)) is not None)
    if not metrics:
        return None
    maximize = records[0].history.maximize
    starts = [m for r in records if (m := r.history.baseline_metric) is not None] or metrics
    ordered = metrics[::-1] if maximize else metrics
    best, start, typical = ordered[0], (min if maximize else max)(starts), ordered[int(0.6 * (len(ordered) - 1))]
    span = abs(start - best) or abs(best) * 0.01 or 1.0
    if maximize:
        return min(start - 0.3 * span, typical - 0.1 * span), best + 0.08 * span
    return best - 0.08 * span, max(start + 0.3 * span, typical + 0.1 * span)


def _scale(records: Sequence[RunRecord]) -> _Scale | None:
    drawn = metric_range(records)
    if drawn is None:
        return None
    return _Scale(*drawn, max(n for r in records for n in r.history.trials), records[0].history.maximize)


def _line(record: RunRecord, scale: _Scale) -> Line | None:
    points = best_so_far(record)
    if not points:
        return None
    path = f"M{scale.x(points[0][0])} {scale.y(points[0][1])}"
    for number, metric in points[1:]:
        path += f"H{scale.x(number)}V{scale.y(metric)}"
    return Line(path, record.title, scale.x(points[-1][0]), scale.y(points[-1][1]))


def _marks(record: RunRecord, scale: _Scale) -> list[Mark]:
    history, marks = record.history, []
    edge = scale.low if scale.maximize else scale.high
    for number, trial in sorted(history.trials.items()):
        metric = history.metric(number)
        title = f"trial {number}: {wording.status(trial)}"
        if metric is not None:
            title += f", {wording.metric(metric)}"
        if trial.state == trace_pb2.TRIAL_STATE_REJECTED:
            continue
        if metric is None and trial.outcome in (common_pb2.OUTCOME_UNSPECIFIED, common_pb2.OUTCOME_STOPPED_EARLY):
            continue  # nothing to draw: it is under way, or ended before it had a metric to stand at
        kind = "failed" if metric is None else "kept" if trial.state == trace_pb2.TRIAL_STATE_KEPT else "discarded"
        what = ", ".join(wording.changes(trial, history.trials.get(history.bases.get(number, -1))))
        marks.append(
            Mark(
                scale.x(number),
                scale.y(edge if metric is None else metric),
                kind,
                metric is not None and scale.beyond(metric),
                f"{title}{' · ' + what if what else ''}",
            )
        )
    return marks


def _moments(record: RunRecord, scale: _Scale) -> list[Moment]:
    moments = [
        Moment(scale.x(decided + 0.5), "configuration", f"level 1.5 after trial {decided}")
        for decided, _ in record.history.updates
    ]
    for mechanism in record.history.mechanisms.values():
        after = mechanism.mechanism.installed_after_trial
        moments.append(Moment(scale.x(after + 0.5), "mechanism", f"{mechanism.name} installed after trial {after}"))
    # One label where both levels acted at the same time: the mechanism is the larger step.
    installed = {moment.x for moment in moments if moment.kind == "mechanism"}
    return [moment for moment in moments if moment.kind == "mechanism" or moment.x not in installed]


def _x_ticks(scale: _Scale) -> tuple[tuple[float, str], ...]:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if scale.last / s <= 10)
    return tuple((scale.x(trial), str(trial)) for trial in range(0, scale.last + 1, step))


def _y_ticks(scale: _Scale) -> tuple[tuple[float, str], ...]:
    rough = (scale.high - scale.low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * m for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - rough))
    digits = max(0, -math.floor(math.log10(step)) + (1 if step / power == 2.5 else 0))
    first = math.ceil(scale.low / step)
    ticks = [i * step for i in range(first, math.floor(scale.high / step) + 1)]
    return tuple((scale.y(tick), f"{tick:.{digits}f}") for tick in ticks)


def _label(record: RunRecord) -> str:
    objective = record.history.task.objective
    better = "higher is better" if record.history.maximize else "lower is better"
    unit = f", {objective.unit}" if objective.unit else ""
    return f"{objective.metric}{unit} ({better})"
