"""What the screen says about a run and its campaign: pure functions from what was folded to text."""

from __future__ import annotations

from collections.abc import Sequence

from bilevel.v1 import outer_pb2, trace_pb2
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clients import wording
from clients.campaign_history import CampaignHistory
from clients.campaign_story import sentences
from clients.cli.screen.plot import blocks
from clients.dashboard.projection.run import RunView
from clients.dashboard.projection.training import Training, curve_metric
from clients.history import TERMINAL, MechanismHistory, RunHistory
from clients.report.record import answered_by

STYLES = {"kept": "green", "baseline": "cyan", "discarded": "dim", "rejected": "yellow"}
_CURVE = 16
"""Columns of a training curve."""


def state(trace: RunHistory) -> str:
    """The run's state in words; a checkpoint is not a pause that somebody must end."""
    if trace.state == trace_pb2.RUN_STATE_PAUSED and trace.at_checkpoint:
        return "at a checkpoint"
    return wording.run_state(trace.state)


def headline(view: RunView, elapsed: float) -> Text:
    """Which run it is, how it stands, and since when."""
    title = view.spec.display_name or view.name.rpartition("/")[2]
    said = "pausing" if view.pausing else state(view)
    since = f"  {wording.duration(elapsed)}" if elapsed > 0 else ""
    reason = f"  {view.state_reason}" if view.state_reason and view.state in TERMINAL else ""
    task = view.task.name or view.spec.task
    return Text.assemble((title, "bold"), f"  {task}  ", (said, "bold"), since, (reason, "dim"), no_wrap=True)


def numbers(view: RunView) -> Text:
    """Trials, the best, the gain."""
    return Text.assemble(
        f"trial {view.decided}/{view.spec.max_trials}  {view.task.objective.metric or 'metric'} best ",
        (wording.metric(view.best_metric), "bold green"),
        f"  baseline {wording.metric(view.baseline_metric)}  gain {wording.gain(view.search_gain)}",
        no_wrap=True,
    )


def budgets(view: RunView, campaign: CampaignHistory | None, elapsed: float) -> Text:
    """What was spent by both loops, and what is left of each of the run's budgets that was set."""
    spending = view.spending if campaign is None else view.spending + campaign.spending
    tokens = spending.prompt_tokens + spending.completion_tokens
    parts = [f"{tokens:,} tokens", f"cost {wording.cost(spending.cost_usd, scripted=bool(spending.scripted_calls))}"]
    if not spending.calls:
        parts = ["no call of a model yet"]
    spec, own = view.spec, view.spending.prompt_tokens + view.spending.completion_tokens
    left = []
    if spec.max_tokens:
        left.append(f"{max(0, spec.max_tokens - own):,} tokens")
    if spec.max_cost_usd and view.spending.cost_usd is not None:
        left.append(f"${max(0.0, spec.max_cost_usd - view.spending.cost_usd):.4f}")
    if spec.HasField("max_duration"):
        left.append(wording.duration(max(0.0, wording.seconds(spec.max_duration) - elapsed)))
    if spec.HasField("max_evaluation_time"):
        used = sum(wording.seconds(trial.elapsed) for trial in view.trials.values())
        remains = max(0.0, wording.seconds(spec.max_evaluation_time) - used)
        left.append(f"{wording.duration(remains)} of evaluation")
    return Text("  ".join([*parts, *([f"left: {', '.join(left)}"] if left else [])]), no_wrap=True)


def answered(view: RunView, campaign: CampaignHistory | None, connection: str) -> Text:
    """How the services can be reached, and who answers both loops."""
    text = Text.assemble((connection, "bold"), no_wrap=True)
    spending = view.spending if campaign is None else view.spending + campaign.spending
    if spending.models:
        text.append(f"  {answered_by(spending)}", "yellow" if spending.scripted_calls else "dim")
    return text


def current(view: RunView) -> RenderableType:
    """Every trial that is being evaluated: its progress, its newest loss, its curve."""
    if view.lost is not None:
        return Text(wording.availability(view.lost), style="yellow")
    running = [view.training[number] for number in view.open if number in view.training]
    if not running:
        return Text(_idle(view), style="dim")
    metric = curve_metric(running, view.task.intermediate_metric)
    table = Table.grid(padding=(0, 2))
    for one in running:
        table.add_row(*_progress(one, metric))
    return table


def _progress(one: Training, metric: str) -> tuple[RenderableType, ...]:
    newest = one.newest.get(metric)
    return (
        f"trial {one.number} {one.phase or 'starting'}",
        ProgressBar(total=1.0, completed=one.fraction, width=20),
        f"{one.fraction:4.0%}  step {one.step}" + (f"  {metric} {newest:.3f}" if newest is not None else ""),
        Text(blocks([value for _, value in one.curve(metric)], _CURVE), style="cyan"),
    )


def _idle(view: RunView) -> str:
    match view.state:
        case trace_pb2.RUN_STATE_CONFIRMING:
            return "measuring the best configuration again on fresh seeds"
        case trace_pb2.RUN_STATE_PAUSED if view.at_checkpoint:
            return "waiting for the outer loop"
        case trace_pb2.RUN_STATE_PAUSED:
            return "paused; p goes on"
        case number if number in TERMINAL:
            return "over; q leaves" if view.confirmation is None else (
                f"over, confirmed gain {wording.interval(view.confirmation)}; q leaves"
            )  # fmt: skip
    return "between trials"


def mechanisms(view: RunView) -> RenderableType:
    """Each mechanism with what it did, by the trace's own events."""
    if not view.mechanisms:
        return Text("none installed", style="dim")
    table = _grid(3)
    for mechanism in view.mechanisms.values():
        calls = sum(count.calls for count in mechanism.hooks.values())
        changed = [view.trials[change.trial] for change in mechanism.changes if change.trial in view.trials]
        kept = sum(trial.state == trace_pb2.TRIAL_STATE_KEPT for trial in changed)
        counted = f"{wording.count(calls, 'call')}, {len(mechanism.changes)} changed, {kept} kept"
        name = Text(mechanism.name, style="yellow")
        table.add_row(name, mechanism_state(mechanism), counted, Text(mechanism.mechanism.summary))
    return table


def mechanism_state(mechanism: MechanismHistory) -> str:
    """Active, suspended or removed."""
    return "suspended" if mechanism.suspended else "removed" if mechanism.uninstalled else "active"


def outer_loop(campaign: CampaignHistory, events: Sequence[outer_pb2.CampaignEvent], most: int) -> RenderableType:
    """What it is doing, and its newest acts, newest last."""
    lines = [line.strip() for event in events[-3 * most :] for line in sentences(event) if line.strip()]
    told = [Text(line, no_wrap=True, overflow="ellipsis", style="dim") for line in lines[-most:]]
    return Group(Text(campaign.activity, style="magenta", no_wrap=True, overflow="ellipsis"), *told)


def trials(trace: RunHistory, most: int) -> RenderableType:
    """The newest decided trials, newest first: what became of each, its metric, what it changed, and who changed it."""
    table, shown = _grid(3), 0
    table.add_column(no_wrap=True, overflow="ellipsis")
    for number in reversed(trace.trials):
        trial = trace.trials[number]
        if not trial.HasField("decide_time"):
            continue
        status = wording.status(trial)
        what = ", ".join(wording.changes(trial, trace.trials.get(trace.bases.get(number, -1)))) or "baseline"
        complaint = trace.complaints.get(number)
        table.add_row(
            Text(str(number), style="dim"),
            Text(status, style=STYLES.get(status, "red")),
            wording.metric(trial.metric if trial.HasField("metric") else None),
            Text(f"{what}: {complaint}" if complaint else what),
            Text(", ".join(trial.changed_by), style="yellow"),
        )
        shown += 1
        if shown == most:
            break
    return table if shown else Text("none yet", style="dim")


def _grid(fixed: int) -> Table:
    """A table without lines: so many columns as wide as they need to be, and one that takes the rest."""
    table = Table.grid(padding=(0, 2))
    table.expand = True
    for _ in range(fixed):
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    return table
