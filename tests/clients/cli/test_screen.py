"""What the screen draws, without a screen."""

from __future__ import annotations

import io

from bilevel.v1 import trace_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from clients.cli.screen import sections
from clients.cli.screen.plot import blocks, plot
from clients.dashboard.projection.curve import Point
from clients.dashboard.projection.run import RunView
from clients.report.record import RunRecord


def rendered(content: RenderableType, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(content)
    return console.file.getvalue().splitlines()


def view_of(record: RunRecord, kind: str = "", count: int = 0) -> RunView:
    """The run up to and with the ``count``-th event of a kind; the whole of it without one."""
    view, seen = RunView(), 0
    for event in record.events:
        view.apply(event)
        seen += event.WhichOneof("event") == kind
        if kind and seen > count:
            break
    return view


def drawn(view: RunView, width: int = 78, height: int = 8) -> list[str]:
    return rendered(
        plot(view.points, view.moments, view.baseline_metric, maximize=view.maximize, width=width, height=height), width
    )


def test_the_curve_falls_and_marks_every_kind_of_trial_and_moment(bilevel: RunRecord) -> None:
    lines = drawn(view_of(bilevel))
    assert len(lines) == 8
    first, last = (next(row for row, line in enumerate(lines) if mark in line) for mark in ("◆", "●"))
    assert first <= last, "lower is better"
    assert all(any(mark in line for line in lines) for mark in "◆●·✗─")
    assert "✗" in lines[6], "what has no metric lies at the bottom"
    assert "▲" in lines[7]
    assert "△" in lines[7]


@settings(max_examples=25)
@given(count=st.integers(1, 400), width=st.integers(24, 160), height=st.integers(3, 20), data=st.data())
def test_the_curve_fits_whatever_the_size(count: int, width: int, height: int, data: st.DataObject) -> None:
    metrics = data.draw(st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=count, max_size=count))
    best: float | None = None
    points = []
    for number, metric in enumerate(metrics):
        kept = metric is not None and (best is None or metric < best)
        best = metric if kept else best
        points.append(
            Point(number, number, "kept" if kept else "failed" if metric is None else "discarded", metric, best)
        )
    text = plot(points, [], metrics[0], maximize=False, width=width, height=height)
    lines = text.plain.split("\n")
    assert max(map(len, lines)) <= width
    assert len(lines) == (height if any(metric is not None for metric in metrics) else 1)


def test_a_curve_without_a_measurement_says_so() -> None:
    assert drawn(RunView()) == ["no trial has been measured yet"]


def test_blocks_show_the_newest_values() -> None:
    assert blocks([9, 3, 2, 1], 3) == "█▅▁"
    assert blocks([], 3) == ""
    assert blocks([2.0], 3) == "▁"


def test_the_head_names_run_state_trials_spending_and_who_answers(bilevel: RunRecord) -> None:
    view = view_of(bilevel, "trial_progressed", 15)
    assert rendered(sections.headline(view, 75)) == ["bilevel  gpt-laptop  running  75.0 s"]
    [line] = rendered(sections.numbers(view))
    assert line.startswith("trial 14/30  val_bpb best ")
    view.spec.max_tokens, view.spec.max_cost_usd = 100_000, 3.0
    view.spec.max_duration.FromSeconds(100)
    view.spec.max_evaluation_time.FromSeconds(60)
    [line] = rendered(sections.budgets(view, None, 75.0))
    used = view.spending.prompt_tokens + view.spending.completion_tokens
    assert f"left: {100_000 - used:,} tokens, 25.0 s, 0 ms of evaluation" in line.replace("0 µs", "0 ms")
    assert rendered(sections.answered(view, None, "connected")) == [
        "connected  scripted-researcher (scripted, no language model)"
    ]


def test_every_running_trial_has_its_progress(bilevel: RunRecord) -> None:
    view = view_of(bilevel, "trial_progressed", 15)
    view.apply(
        trace_pb2.TraceEvent(run=view.name, sequence=view.last_sequence + 1,
                             trial_started=trace_pb2.TrialStarted(number=16, attempt=1))
    )  # fmt: skip
    first, second = rendered(sections.current(view))
    assert "trial 15 training" in first
    assert "50%  step 11  train_loss 4.200" in first
    assert "trial 16 starting" in second


def test_mechanisms_show_what_they_did_by_the_trace(bilevel: RunRecord) -> None:
    view = view_of(bilevel)
    [line] = rendered(sections.mechanisms(view))
    mechanism = view.mechanisms["turn-round"]
    assert line.startswith("turn-round  active")
    assert f"{len(mechanism.changes)} changed" in line
    assert rendered(sections.mechanisms(RunView())) == ["none installed"]


def test_trials_are_listed_newest_first_and_no_more_than_asked_for(bilevel: RunRecord) -> None:
    lines = rendered(sections.trials(view_of(bilevel), 3))
    assert [line.split()[0] for line in lines] == ["30", "29", "28"]
