"""The ablation's files: results.md, results.json, runs.csv, trials.csv, best_so_far.png; each says who answered."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clients import wording
from clients.ablation.figure import write_figure
from clients.ablation.results import Results, Row
from clients.ablation.running import Finished
from service_kit.given_files import unwritable
from service_kit.parameters import configuration_to_json
from service_kit.translate import configuration_from_proto

SMALL = 10
"""Runs a group below which the table warns."""


def write_results(results: Results, folder: Path) -> list[Path]:
    """Write everything; returns the files. Raises InvalidArgument when the folder cannot be written."""
    names = ("results.md", "results.json", "runs.csv", "trials.csv", "best_so_far.png")
    files = [folder / name for name in names]
    try:
        files[0].write_text(markdown(results), encoding="utf-8")
        files[1].write_text(json.dumps(results.to_json(), indent=2) + "\n", encoding="utf-8")
        _write_csv(files[2], [_run_row(results, finished) for finished in results.finished])
        _write_csv(files[3], [row for finished in results.finished for row in _trial_rows(results, finished)])
        write_figure(results, files[4])
    except OSError as error:
        hint = "Mend that and give the same command again: the runs are kept."
        raise unwritable(folder, "--out", error, hint=hint) from None
    return files


def markdown(results: Results) -> str:
    """The tables with what must be known to read them."""
    design = results.plan.design
    lines = [
        "# Ablation",
        "",
        f"**{results.label}**",
        "",
        f"Task {design.task} ({results.finished[0].record.history.task.hardware or 'hardware unknown'}), "
        f"{design.trials} trials a run, {design.repeats} repeats, ablation {results.plan.id}, seed {design.seed}. "
        f"Gains in {results.metric}; positive is better. Level 1.5 looks every {design.configuration_every} trials, "
        f"level 2 every {design.mechanism_every}."
        + (f" The trainer's options: `{' '.join(design.trainer)}`." if design.trainer else ""),
    ]
    for measure in results.measures:
        lines += ["", f"## {measure.value.capitalize()}", "", *_table(results.rows(measure))]
    lines += ["", *_notes(results)]
    return "\n".join(lines) + "\n"


HEADER = (
    "group",
    "searches on",
    "n",
    "mean",
    "sd",
    "95 % interval",
    "against A",
    "95 % interval",
    "p paired",
    "p Welch",
)


def cells(row: Row) -> tuple[str, ...]:
    """A table's row as text."""
    e, c = row.estimate, row.against_reference
    own = (
        (str(e.n), wording.signed(e.mean), wording.metric(e.sd), _interval(e.low, e.high))
        if e is not None
        else ("0", wording.NOTHING, wording.NOTHING, wording.NOTHING)
    )
    other = (
        (wording.signed(c.mean), _interval(c.low, c.high), _p(c.paired_p), _p(c.welch_p))
        if c is not None
        else (wording.NOTHING,) * 4
    )
    return (row.group, row.words, *own, *other)


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| " + " | ".join(HEADER) + " |"
    yield "|" + "|".join("---" if i < 2 else "---:" for i in range(len(HEADER))) + "|"
    for row in rows:
        yield "| " + " | ".join(cells(row)) + " |"


def _notes(results: Results) -> Iterator[str]:
    yield (
        "Intervals of means are percentile bootstraps over runs; differences to A are paired by seed, with the "
        "interval and p of a paired t test; Welch's test ignores the pairing. No correction for several comparisons."
    )
    if results.plan.design.repeats < SMALL:
        yield f"\nWith fewer than {SMALL} runs a group, intervals and tests say little."
    for finished in results.finished:
        if errors := _failed_cycles(finished):
            count = wording.count(len(errors), "cycle")
            yield f"\n{finished.cell.title}: {count} of its outer loop failed: {errors[0]}"
    ended = [f for f in results.finished if f.record.summary().state != "finished"]
    for finished in ended:
        history = finished.record.history
        how = f"{wording.run_state(history.state)}: {history.state_reason}"
        yield f"\nNot counted: {finished.cell.title} ({history.name}) {how}"


def _failed_cycles(finished: Finished) -> list[str]:
    """Why cycles of the outer loop failed: such a run did not search as its group says."""
    campaign = finished.record.campaign
    return [cycle.error for cycle in campaign.errors] if campaign is not None else []


def _run_row(results: Results, finished: Finished) -> dict[str, Any]:
    cell, summary = finished.cell, finished.record.summary()
    return {
        "ablation": results.plan.id,
        "group": cell.group.name,
        "repeat": cell.repeat,
        "seed": cell.seed,
        "run": summary.run,
        "levels": summary.levels,
        "state": summary.state,
        "metric": summary.metric,
        "baseline": summary.baseline,
        "best": summary.best,
        "search_gain": summary.search_gain,
        "confirmed_gain": summary.confirmed_gain,
        "trials": summary.trials,
        "kept": summary.kept,
        "failed": summary.failed,
        "refused": summary.refused,
        "failed_cycles": len(_failed_cycles(finished)),
        "mechanisms_installed": summary.mechanisms_installed,
        "changed_decisions": summary.changed_decisions,
        "model_calls": summary.model_calls,
        "tokens": summary.prompt_tokens + summary.completion_tokens,
        "cost_usd": wording.dollars(summary.cost_usd, scripted=summary.scripted),
        "answered_by": summary.answered_by,
        "scripted": summary.scripted,
    }


def _trial_rows(results: Results, finished: Finished) -> Iterator[dict[str, Any]]:
    cell, record = finished.cell, finished.record
    history, who = record.history, record.answered_by
    for number, trial in sorted(history.trials.items()):
        changes = configuration_to_json(configuration_from_proto(trial.changes, "changes"))
        yield {
            "ablation": results.plan.id,
            "group": cell.group.name,
            "repeat": cell.repeat,
            "run": history.name,
            "trial": number,
            "status": wording.status(trial),
            "metric": history.metric(number),
            "gain_over_baseline": history.gain(history.baseline_metric, history.metric(number)),
            "proposed_by": wording.origin(trial),
            "changes": json.dumps(changes, sort_keys=True),
            "changed_by": " ".join(trial.changed_by),
            "budget_fraction": trial.budget_fraction,
            "seconds": wording.seconds(trial.elapsed),
            "answered_by": who,
            "scripted": record.scripted,
        }


def _write_csv(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _interval(low: float | None, high: float | None) -> str:
    return wording.NOTHING if low is None else f"[{wording.signed(low)}, {wording.signed(high)}]"


def _p(value: float | None) -> str:
    return wording.NOTHING if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"
