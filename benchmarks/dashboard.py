"""What a run's length costs the dashboard: folding its trace, and one update of the pages that show it.

    python benchmarks/dashboard.py --rounds 5

Traces of 100, 1,000 and 10,000 trials are folded and drawn by the code that the pages use, in turns, so that a busy
machine slows all of them alike. Absolute times are this machine's; the ratios are what is looked at: a fold should cost
each event the same however long the trace is, and an update of an open page should send no more for a longer run.
The traces are made up: no training runs, and nothing here is evidence for the method.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from bilevel.v1 import common_pb2, task_pb2, trace_pb2

from clients.dashboard import charts
from clients.dashboard.projection.run import RunView
from clients.dashboard.projection.trials import Filter, matching, row
from service_kit.translate import configuration_to_proto

LENGTHS = (100, 1_000, 10_000)
PAGE = 50
EVERYTHING = Filter()
REPORTS = 8
"""Progress reports of each trial."""
TARGET_RATIO, TARGET_KIB = 1.5, 48
"""An update at 10,000 trials may be so many times as large as one at 1,000, and no larger than this."""


@dataclass(frozen=True, slots=True)
class Work:
    """One thing that is measured: what it does with a view, and whether it is divided by the number of events."""

    name: str
    do: Callable[[RunView], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is measured; medians are shown")
    rounds = parser.parse_args().rounds
    traces = {length: trace(length) for length in LENGTHS}
    views = {length: RunView.of(events) for length, events in traces.items()}
    folding: dict[int, list[float]] = {length: [] for length in LENGTHS}
    drawing: dict[str, dict[int, list[float]]] = {work.name: {length: [] for length in LENGTHS} for work in WORKS}
    for _ in range(rounds):
        for length, events in traces.items():
            folding[length].append(timed(lambda events=events: RunView.of(events)) / len(events))
            for work in WORKS:
                drawing[work.name][length].append(timed(lambda do=work.do, view=views[length]: do(view)))
    heads = "".join(f"{f'{length:,} trials':>16}" for length in LENGTHS)
    print(f"{'':34}{heads}{'10,000 : 1,000':>16}")
    show("fold, microseconds an event", {length: 1e6 * statistics.median(folding[length]) for length in LENGTHS})
    for work in WORKS:
        show(f"{work.name}, ms", {length: 1e3 * statistics.median(drawing[work.name][length]) for length in LENGTHS})
    sizes = {name: {length: size(views[length]) for length in LENGTHS} for name, size in SIZES.items()}
    for name, of in sizes.items():
        show(f"{name}, KiB sent", {length: of[length] / 1024 for length in LENGTHS})
    if any(of[10_000] > min(TARGET_RATIO * of[1_000], 1024 * TARGET_KIB) for of in sizes.values()):
        sys.exit("a page is sent more for a longer run")


def trace(trials: int) -> list[trace_pb2.TraceEvent]:
    """The events of a run: some trials fail or are refused, level 1.5 acts often and level 2 now and then."""
    rng, events, best = random.Random(trials), [], 2.0

    def say(**event: object) -> None:
        message = trace_pb2.TraceEvent(run="runs/long", sequence=len(events) + 1, **event)
        message.time.FromSeconds(1_760_000_000 + len(events))
        events.append(message)

    objective = common_pb2.Objective(metric="val_bpb", direction=common_pb2.DIRECTION_MINIMIZE)
    say(
        run_created=trace_pb2.RunCreated(
            spec=trace_pb2.RunSpec(max_trials=trials), task=task_pb2.TaskDescription(objective=objective)
        )
    )
    for number in range(trials):
        changes = configuration_to_proto({f"PARAMETER_{rng.randrange(14)}": rng.random()})
        proposed = trace_pb2.Trial(number=number, origin=2 if number else 1, changes=changes, configuration=changes)
        proposed.hypothesis = "a somewhat larger value may help because the gradient is noisy there"
        say(trial_proposed=trace_pb2.TrialProposed(trial=proposed))
        if number % 11 == 5:
            say(trial_rejected=trace_pb2.TrialRejected(number=number, reason="tried already"))
            continue
        say(trial_started=trace_pb2.TrialStarted(number=number, attempt=1))
        for report in range(REPORTS):
            progress = task_pb2.EvaluationProgress(fraction=report / REPORTS, step=report)
            progress.metrics["train_loss"] = 7.0 - report * rng.random()
            say(trial_progressed=trace_pb2.TrialProgressed(number=number, progress=progress))
        metric = best + rng.gauss(0.01, 0.01)
        failed = number % 13 == 7
        result = task_pb2.EvaluationResult(outcome=2 if failed else 1)
        if not failed:
            result.metric = metric
        say(trial_evaluated=trace_pb2.TrialEvaluated(number=number, result=result))
        kept = not failed and (number == 0 or metric < best)
        best = metric if kept else best
        say(trial_decided=trace_pb2.TrialDecided(number=number, kept=kept, new_best=kept))
        if number % 5 == 0:
            say(search_config_updated=trace_pb2.SearchConfigUpdated(author="level 1.5 (a model)"))
        if number % 200 == 100:
            mechanism = trace_pb2.Mechanism(name=f"runs/long/mechanisms/m{number}", source="class Mechanism: ...")
            say(mechanism_installed=trace_pb2.MechanismInstalled(mechanism=mechanism))
    return events


def chart(view: RunView) -> str:
    """One update of the best-so-far chart, as it is sent."""
    options = charts.best_so_far(
        view.points, view.moments, view.baseline_metric, maximize=False, metric="val_bpb", seconds=True
    )
    return json.dumps(options)


def page(view: RunView, wanted: Filter = EVERYTHING, by: str = "number") -> str:
    """One page of the trial table, as it is sent."""
    return json.dumps([asdict(row(view, number)) for number in matching(view, wanted, by=by)[:PAGE]])


WORKS = (
    Work("chart, drawn and encoded", chart),
    Work("table, newest trials", page),
    Work("table, sorted by metric", lambda view: page(view, by="metric")),
    Work("table, filtered by words", lambda view: page(view, Filter(text="parameter_3 noisy"))),
)
SIZES: dict[str, Callable[[RunView], int]] = {
    "chart": lambda view: len(chart(view)),
    "table": lambda view: len(page(view)),
}


def timed(work: Callable[[], object]) -> float:
    """Seconds of processor time: other programs do not count."""
    before = time.process_time()
    work()
    return time.process_time() - before


def show(name: str, values: dict[int, float]) -> None:
    columns = "".join(f"{values[length]:16.2f}" for length in LENGTHS)
    print(f"{name:34}{columns}{values[10_000] / values[1_000]:16.2f}")


if __name__ == "__main__":
    main()
