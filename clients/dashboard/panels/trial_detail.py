"""One trial: its outcome, hypothesis, difference from the incumbent, measurements and training curve."""

from __future__ import annotations

from bilevel.v1 import common_pb2, trace_pb2
from nicegui import ui

from clients import wording
from clients.dashboard import charts
from clients.dashboard.elements import box, empty, facts, link, mark, text
from clients.dashboard.projection.run import RunView, kind_of
from clients.dashboard.projection.training import Training, curve_metric
from clients.dashboard.projection.trials import differences


def trial_detail(run_id: str, view: RunView, number: int) -> None:
    """Everything that the trace says about the trial ``number``, as it is now."""
    trial = view.trials.get(number)
    if trial is None:
        empty(f"No trial {number}", f"The newest trial of this run is {view.newest_trial}.")
        return
    base = view.base_of(number)
    with box("div", "trial-head"):
        text("h2", f"Trial {number}")
        mark(kind_of(trial), wording.status(trial))
    facts(_numbers(view, trial, base), "big")
    if trial.hypothesis:
        _section("Hypothesis")
        text("p", trial.hypothesis, "prose")
    if trial.message:
        failed = trial.outcome not in (common_pb2.OUTCOME_UNSPECIFIED, common_pb2.OUTCOME_SUCCEEDED)
        refused = trial.state == trace_pb2.TRIAL_STATE_REJECTED
        _section("Why it failed" if failed else "Why it was refused" if refused else "Decision")
        text("pre" if failed else "p", trial.message, "prose")
        if failed and (said := view.complaints.get(number, "")) and said not in trial.message:
            text("pre", said, "prose")
    if base is not None:
        _difference(run_id, trial, view.trials[base])
    _mechanisms(view, trial)
    _curves(view, number, base)
    if trial.side_metrics:
        _section("Side metrics")
        facts((name, f"{trial.side_metrics[name]:.6g}") for name in sorted(trial.side_metrics))
    _section("Record")
    facts(_record(trial))


def _numbers(view: RunView, trial: trace_pb2.Trial, base: int | None) -> list[tuple[str, str]]:
    metric = view.task.objective.metric or "metric"
    numbers = [(metric, wording.metric(view.metric(trial.number)))]
    if base is not None:
        numbers.append((f"incumbent, trial {base}", wording.metric(view.metric(base))))
        numbers.append(("gain", wording.gain(view.gains.get(trial.number))))
    return numbers


def _difference(run_id: str, trial: trace_pb2.Trial, base: trace_pb2.Trial) -> None:
    _section("Difference from the incumbent")
    found = differences(trial, base)
    if not found:
        text("p", f"None: the configuration of trial {base.number} again.", "quiet")
        return
    with box("table", "plain diff"):
        with box("thead"), box("tr"):
            text("th", "Parameter")
            with box("th"):
                link(f"Trial {base.number}", f"/runs/{run_id}/trials/{base.number}")
            text("th", f"Trial {trial.number}")
        with box("tbody"):
            for difference in found:
                with box("tr"):
                    text("td", difference.parameter, "mono")
                    text("td", difference.old, "old mono")
                    text("td", difference.new, "new mono")


def _mechanisms(view: RunView, trial: trace_pb2.Trial) -> None:
    changes = [
        (name, change)
        for name in trial.changed_by
        if name in view.mechanisms
        for change in view.mechanisms[name].changes
        if change.trial == trial.number
    ]
    if not changes:
        return
    _section("Changed by mechanisms")
    for name, change in changes:
        with box("div", "change-made"):
            text("strong", f"{name}, {wording.hook(change.hook)}")
            text("p", f"would have been: {change.before}", "quiet")
            text("p", f"became: {change.after}")


def _curves(view: RunView, number: int, base: int | None) -> None:
    own = view.training.get(number)
    if own is None or not own.samples:
        return
    others = view.training.get(base) if base is not None else None
    metric = curve_metric([own], view.task.intermediate_metric)
    _section(f"Training: {metric}")
    reference = (f"incumbent, trial {base}", (others or Training(-1)).curve(metric))
    options = charts.training([(f"trial {number}", own.curve(metric))], reference, 1)
    ui.echart(options, renderer="svg").classes("chart small")
    text("p", f"The grey line is the incumbent, trial {base}." if reference[1] else "", "sub")


def _record(trial: trace_pb2.Trial) -> list[tuple[str, str]]:
    record = [("proposed by", wording.origin(trial))]
    if trial.HasField("elapsed"):
        record.append(("evaluation", wording.duration(wording.seconds(trial.elapsed))))
    if trial.attempt > 1:
        record.append(("attempt", str(trial.attempt)))
    if 0 < trial.budget_fraction < 1:
        record.append(("share of the budget", f"{trial.budget_fraction:.0%}"))
    if trial.HasField("decide_time"):
        record.append(("decided", wording.moment(trial.decide_time)))
    if trial.cited_lessons:
        record.append(("lessons named as reasons", ", ".join(trial.cited_lessons)))
    return record


def _section(title: str) -> None:
    text("h3", title, "section")
