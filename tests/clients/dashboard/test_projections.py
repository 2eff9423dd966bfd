"""What pages show is what the trace says, and it stays bounded however long the trace is."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import pytest
from bilevel.v1 import common_pb2, outer_pb2, task_pb2, trace_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.dashboard import charts
from clients.dashboard.panels.code import markup
from clients.dashboard.projection import comparison
from clients.dashboard.projection.controls import ACTIONS, refusals
from clients.dashboard.projection.curve import Point, best_line, marks, spread
from clients.dashboard.projection.moments import PERSON
from clients.dashboard.projection.overview import Overview
from clients.dashboard.projection.run import RunView, kind_of
from clients.dashboard.projection.training import LIMIT, Training, curve_metric
from clients.dashboard.projection.trials import Filter, differences, matching, proposers, row
from clients.history import RunHistory
from clients.report.record import RunRecord
from clients.wording import NOTHING, visible
from service_kit.errors import ServiceError
from service_kit.translate import configuration_to_proto
from tests.clients.conftest import Script, task, tell_run

KINDS = ("kept", "discarded", "failed", "refused")


@pytest.fixture(scope="module")
def view(bilevel: RunRecord) -> RunView:
    return RunView.of(bilevel.events)


# The fold


def test_the_view_agrees_with_the_history_that_all_clients_fold(bilevel: RunRecord, view: RunView) -> None:
    history = RunHistory.of(bilevel.events)
    assert view.trials == history.trials
    assert (view.decided, view.best, view.incumbent) == (history.decided, history.best, history.incumbent)
    assert view.spending == history.spending
    assert view.calls == []


def test_every_decided_trial_is_a_point_with_the_best_of_then(view: RunView) -> None:
    assert [point.number for point in view.points] == list(range(31))
    metrics = [point.metric for point in view.points]
    for place, point in enumerate(view.points):
        assert point.best == min(metric for metric in metrics[: place + 1] if metric is not None)
    assert view.points[0].kind == "baseline"
    assert view.points[8] == Point(8, view.points[8].seconds, "failed", None, view.points[7].best)
    assert [point.seconds for point in view.points] == sorted(point.seconds for point in view.points)


def test_a_trial_is_compared_with_the_incumbent_of_its_decision() -> None:
    script = Script("runs/parallel")
    script.say(run_created=trace_pb2.RunCreated(spec=trace_pb2.RunSpec(max_trials=2), task=task()))
    for number in range(3):
        script.say(trial_proposed=trace_pb2.TrialProposed(trial=trace_pb2.Trial(number=number, origin=2)))
        if number == 0:
            _measure(script, 0, 2.0, kept=True)
    _measure(script, 1, 1.9, kept=True)
    _measure(script, 2, 1.95, kept=False)
    view = RunView.of(script.events)
    assert (view.bases[2], view.compared[2], view.base_of(2)) == (0, 1, 1)


def test_moments_say_who_acted_and_after_which_trial(bilevel: RunRecord) -> None:
    view = RunView.of(bilevel.events)
    kinds = {moment.kind for moment in view.moments}
    assert {"configuration", "mechanism"} <= kinds
    installed = next(moment for moment in view.moments if moment.title == "installed turn-round")
    assert installed.after == view.mechanisms["turn-round"].mechanism.installed_after_trial
    before = len(view.moments)
    person = trace_pb2.SearchConfigUpdated(
        search_config=trace_pb2.SearchConfig(guidance="look at the batch size"), author=f"{PERSON}, on the dashboard"
    )
    view.apply(trace_pb2.TraceEvent(run=view.name, sequence=view.last_sequence + 1, search_config_updated=person))
    assert len(view.moments) == before + 1
    assert view.moments[-1].kind == "person"
    assert view.moments[-1].detail == "look at the batch size"
    assert view.config.guidance == "look at the batch size"


def test_a_trial_that_runs_shows_its_progress_and_leaves_when_it_ends(bare: RunRecord) -> None:
    view = RunView()
    for event in bare.events:
        view.apply(event)
        if event.WhichOneof("event") == "trial_progressed":
            number = event.trial_progressed.number
            assert list(view.open) == [number]
            assert kind_of(view.trials[number]) == "running"
            assert view.training[number].fraction == 0.5
            assert view.training[number].curve("train_loss") == [(0.5, 4.2)]
    assert not view.open


# Samples


@st.composite
def traces(draw: st.DrawFn) -> list[Point]:
    """Points as a run could have them."""
    points: list[Point] = []
    best: float | None = None
    for number in range(draw(st.integers(0, 150))):
        kind = draw(st.sampled_from(KINDS))
        metric = draw(st.floats(-100, 100)) if kind in ("kept", "discarded") else None
        if metric is not None and (best is None or metric < best):
            best = metric
        points.append(Point(number, float(number), kind, metric, best))
    return points


@settings(max_examples=40, deadline=None)
@given(traces(), st.integers(16, 64))
def test_marks_are_bounded_in_order_and_of_the_run(points: list[Point], limit: int) -> None:
    chosen = marks(points, limit)
    assert len(chosen) <= limit
    assert [point.number for point in chosen] == sorted({point.number for point in chosen})
    assert set(chosen) <= set(points)
    for kind in KINDS:
        assert any(point.kind == kind for point in chosen) == any(point.kind == kind for point in points)
    discarded = [point.metric for point in points if point.kind == "discarded"]
    if discarded:
        shown = [point.metric for point in chosen if point.kind == "discarded"]
        assert (min(shown), max(shown)) == (min(discarded), max(discarded))


@settings(max_examples=40, deadline=None)
@given(traces(), st.integers(2, 40))
def test_the_line_keeps_its_first_and_last_point_and_never_gets_worse(points: list[Point], limit: int) -> None:
    line = best_line(points, limit)
    measured = [point for point in points if point.best is not None]
    assert len(line) <= limit
    assert bool(line) == bool(measured)
    if measured:
        assert line[0] == measured[0]
        assert line[-1].best == measured[-1].best
        assert line[-1] == points[-1]
    assert all(a.best >= b.best for a, b in pairwise(line))


@settings(max_examples=40, deadline=None)
@given(traces(), st.booleans())
def test_the_drawn_range_holds_the_whole_line_and_the_baseline(points: list[Point], maximize: bool) -> None:
    if maximize:
        points = [Point(p.number, p.seconds, p.kind, _minus(p.metric), _minus(p.best)) for p in points]
    baseline = next((point.metric for point in points if point.metric is not None), None)
    drawn = spread(points, baseline, maximize=maximize)
    if drawn is None:
        assert baseline is None
        return
    assert drawn[0] < drawn[1]
    values = [point.best for point in points if point.best is not None]
    assert all(drawn[0] <= value <= drawn[1] for value in values)
    assert drawn[0] <= baseline <= drawn[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000))
def test_a_training_curve_is_thinned_evenly_as_it_grows(count: int) -> None:
    training = Training(1)
    for step in range(count):
        progress = task_pb2.EvaluationProgress(fraction=step / count, step=step, metrics={"loss": float(step)})
        training.add(trace_pb2.TrialProgressed(number=1, progress=progress))
    curve = training.curve("loss")
    assert len(curve) < LIMIT
    assert curve[0][1] == 0.0
    gaps = {round(b[1] - a[1]) for a, b in pairwise(curve)}
    assert len(gaps) <= 1
    assert training.newest == {"loss": float(count - 1)}


def test_the_loss_is_drawn_before_any_other_measurement() -> None:
    training = Training(1)
    measured = {"tokens": 4096.0, "train_loss": 5.0, "val_bpb_estimate": 2.0}
    training.add(trace_pb2.TrialProgressed(progress=task_pb2.EvaluationProgress(fraction=0.1, metrics=measured)))
    assert curve_metric([training], "val_bpb_estimate") == "train_loss"
    assert curve_metric([], "val_bpb_estimate") == ""


# Bounded updates


def long_run(trials: int) -> RunView:
    """A run of many trials: some fail, some are refused, level 1.5 acts after every fifth."""
    script, rng, best = Script("runs/long"), random.Random(trials), 2.0
    script.say(run_created=trace_pb2.RunCreated(spec=trace_pb2.RunSpec(max_trials=trials), task=task()))
    for number in range(trials):
        proposed = trace_pb2.Trial(
            number=number, origin=2 if number else 1, changes=configuration_to_proto({"WEIGHT_DECAY": rng.random()})
        )
        script.say(trial_proposed=trace_pb2.TrialProposed(trial=proposed))
        if number % 11 == 5:
            script.say(trial_rejected=trace_pb2.TrialRejected(number=number, reason="tried already"))
            continue
        script.say(trial_started=trace_pb2.TrialStarted(number=number, attempt=1))
        metric = best + rng.gauss(0.01, 0.01)
        kept = number == 0 or metric < best
        best = min(best, metric)
        _measure(script, number, None if number % 13 == 7 else metric, kept=kept and number % 13 != 7)
        if number % 5 == 0:
            script.say(search_config_updated=trace_pb2.SearchConfigUpdated(author="level 1.5 (a model)"))
    return RunView.of(script.events)


def sent(view: RunView) -> tuple[int, int]:
    """Bytes that one update of the chart and of the table costs a page."""
    options = charts.best_so_far(
        view.points, view.moments, view.baseline_metric, maximize=False, metric="val_bpb", seconds=True
    )
    page = [row(view, number).__repr__() for number in matching(view, Filter())[:50]]
    return len(json.dumps(options)), len(json.dumps(page))


def test_ten_thousand_trials_send_a_page_no_more_than_a_thousand() -> None:
    thousand, ten_thousand = long_run(1_000), long_run(10_000)
    assert len(ten_thousand.trials) == 10_000
    (chart_before, table_before), (chart, table) = sent(thousand), sent(ten_thousand)
    assert chart < 1.25 * chart_before
    assert chart < 48_000
    assert table < 1.25 * table_before
    series = charts.best_so_far(ten_thousand.points, ten_thousand.moments, 2.0, maximize=False, metric="val_bpb")[
        "series"
    ]
    assert sum(len(one["data"]) for one in series) < 900


# Charts


def test_a_chart_keeps_its_series_and_draws_tooltips_instead_of_parsing_them(view: RunView) -> None:
    empty = charts.best_so_far([], [], None, maximize=False, metric="")
    full = charts.best_so_far(view.points, view.moments, 2.0, maximize=False, metric="val_bpb")
    assert [one["name"] for one in empty["series"]] == [one["name"] for one in full["series"]]
    assert full["tooltip"]["renderMode"] == "richText"
    by_name = {one["name"]: one["data"] for one in full["series"]}
    assert len(by_name["failed"]) == 1
    assert {point[2] for point in by_name["kept"]} == {p.number for p in view.points if p.kind == "kept"}
    assert len(by_name["level 2"]) >= 1


def test_a_line_never_goes_back_where_trials_are_decided_out_of_order() -> None:
    points = [
        Point(0, 5, "baseline", 2.0, 2.0),
        Point(2, 9, "kept", 1.5, 1.5),
        Point(4, 12, "discarded", 1.8, 1.5),
        Point(3, 12, "discarded", 1.9, 1.5),
    ]
    options = charts.best_so_far(points, [], 2.0, maximize=False, metric="loss")
    assert options["series"][0]["data"] == [[0, 2.0], [2, 1.5], [4, 1.5]]
    compared = charts.comparison([("run", points, False)], seconds=False, relative=False)
    assert compared["series"][0]["data"] == [[0, 2.0], [2, 1.5], [4, 1.5]]
    assert options["series"][0]["markLine"]["data"][0]["yAxis"] == 2.0


def test_a_hopeless_trial_is_drawn_on_the_edge_with_its_real_metric() -> None:
    points = [Point(n, n, "discarded", 2.0 + 0.01 * (n % 5), 2.0) for n in range(40)]
    points.append(Point(40, 40, "discarded", 9000.0, 2.0))
    options = charts.best_so_far(points, [], 2.0, maximize=False, metric="loss")
    worst = next(one for one in options["series"] if one["name"] == "discarded")["data"][-1]
    assert worst[1] < 3.0
    assert worst[3] == 9000.0


def test_gains_are_positive_where_they_are_gains() -> None:
    falls = [Point(0, 0, "baseline", 2.0, 2.0), Point(1, 60, "kept", 1.5, 1.5)]
    rises = [Point(0, 0, "baseline", 2.0, 2.0), Point(1, 60, "kept", 2.5, 2.5)]
    options = charts.comparison([("a", falls, False), ("b", rises, True)], seconds=False, relative=True)
    assert [one["data"] for one in options["series"]] == [[[0, 0], [1, 0.5]], [[0, 0], [1, 0.5]]]


# The table


def test_the_table_is_filtered_by_outcome_proposer_and_words(view: RunView) -> None:
    assert list(matching(view, Filter(kind="failed"))) == [8]
    assert list(matching(view, Filter(text="loss EXPLODED"))) == [8]
    assert list(matching(view, Filter(text="no such words"))) == []
    assert list(matching(view, Filter(proposer="baseline"))) == [0]
    assert set(proposers(view)) == {"baseline", "model"}
    batch = matching(view, Filter(text="total_batch_size"))
    assert batch
    assert all("TOTAL_BATCH_SIZE" in view.trials[number].changes.values for number in batch)


@pytest.mark.parametrize("descending", [True, False])
def test_the_table_is_sorted_and_what_has_no_metric_comes_last(view: RunView, descending: bool) -> None:
    numbers = matching(view, Filter(), by="metric", descending=descending)
    metrics = [view.metric(number) for number in numbers]
    assert metrics[-1] is None
    assert metrics[:-1] == sorted(metrics[:-1], reverse=descending)
    assert sorted(numbers) == sorted(view.trials)


def test_a_difference_names_every_parameter_that_is_not_the_same() -> None:
    old = trace_pb2.Trial(configuration=configuration_to_proto({"a": 1, "b": (0.8, 0.95), "gone": "x", "same": 2}))
    new = trace_pb2.Trial(configuration=configuration_to_proto({"a": 2, "b": (0.9, 0.95), "new": True, "same": 2}))
    assert [(one.parameter, one.old, one.new) for one in differences(new, old)] == [
        ("a", "1", "2"),
        ("b", "(0.8, 0.95)", "(0.9, 0.95)"),
        ("gone", "x", NOTHING),
        ("new", NOTHING, "true"),
    ]


# Controls, overview, comparison


@pytest.mark.parametrize(
    ("state", "possible"),
    [
        (trace_pb2.RUN_STATE_UNSPECIFIED, set()),
        (trace_pb2.RUN_STATE_CREATED, {"start", "cancel", "guide"}),
        (trace_pb2.RUN_STATE_RUNNING, {"pause", "cancel", "guide"}),
        (trace_pb2.RUN_STATE_PAUSED, {"resume", "cancel", "guide"}),
        (trace_pb2.RUN_STATE_CONFIRMING, {"cancel", "guide"}),
        (trace_pb2.RUN_STATE_FINISHED, set()),
        (trace_pb2.RUN_STATE_CANCELLED, set()),
        (trace_pb2.RUN_STATE_FAILED, set()),
    ],
)
def test_what_a_state_forbids_is_refused_with_a_reason(state: trace_pb2.RunState.ValueType, possible: set[str]) -> None:
    reasons = refusals(RunView(state=state))
    assert {action for action in ACTIONS if not reasons[action]} == possible


def test_a_run_that_pauses_already_is_not_asked_again() -> None:
    reasons = refusals(RunView(state=trace_pb2.RUN_STATE_RUNNING, pausing="a person wants it"))
    assert "as soon as" in reasons["pause"]


def test_the_overview_says_what_is_different() -> None:
    run = trace_pb2.Run(name="runs/a", spec=trace_pb2.RunSpec(task="gpt", max_trials=30, display_name="first"))
    run.task.CopyFrom(task())
    run.baseline_metric, run.best_metric, run.decided_trials = 2.0, 1.75, 7
    campaign = outer_pb2.Campaign(name="campaigns/c", run="runs/a", state=outer_pb2.CAMPAIGN_STATE_ACTIVE)
    overview = Overview()
    assert overview.update([run], [campaign], None)
    assert not overview.update([run], [campaign], None)
    shown = overview.rows[0]
    assert (shown.gain, shown.campaign, shown.campaign_id) == (0.25, "active, 0 mechanisms", "c")
    assert shown.mentions("FIRST gpt")
    assert not shown.mentions("first other")
    assert overview.update([run], [], ServiceError("the outer service cannot be reached"))
    run.task.objective.direction = common_pb2.DIRECTION_MAXIMIZE
    assert overview.update([run], [], None)
    assert overview.rows[0].gain == -0.25


def test_a_comparison_takes_each_run_once_and_says_what_it_leaves_out() -> None:
    ids, beyond = comparison.chosen("a, b,,a," + ",".join(f"r{n}" for n in range(10)))
    assert ids[:3] == ["a", "b", "r0"]
    assert len(ids) == comparison.LIMIT
    assert len(beyond) == 4


def test_runs_with_different_metrics_do_not_share_an_axis(view: RunView) -> None:
    other = RunView.of(tell_run("other", "another task", False, trials=3).events)
    assert comparison.one_scale([view, other]) == ""
    other.task.objective.metric = "accuracy"
    said = comparison.one_scale([view, other])
    assert "(accuracy" in said
    assert "smaller is better; val_bpb" in said
    shown = comparison.row("other", other)
    assert (shown.trials, shown.kept) == ("3 / 3", f"{sum(p.kind == 'kept' for p in other.points)} of 3")


def _measure(script: Script, number: int, metric: float | None, *, kept: bool) -> None:
    result = task_pb2.EvaluationResult(outcome=1 if metric is not None else 2)
    if metric is not None:
        result.metric = metric
    script.say(trial_evaluated=trace_pb2.TrialEvaluated(number=number, result=result))
    script.say(trial_decided=trace_pb2.TrialDecided(number=number, kept=kept, new_best=kept))


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def test_what_would_hide_or_turn_round_other_text_is_spelled_out() -> None:
    assert visible("plain, \u00e9\u4e2d\n\tindented") == "plain, \u00e9\u4e2d\n\tindented"
    for hidden in "\u202a\u202e\u2066\u2069\u200b\ufeff\u2028\x00\x1b\x7f":
        assert visible(f"a{hidden}b") == f"a⟨U+{ord(hidden):04X}⟩b"
    assert "⟨U+202E⟩" in markup("x = 1  # \u202eevil\u2066")
    assert "\u202e" not in markup("x = 1  # \u202eevil\u2066")
