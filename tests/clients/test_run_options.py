"""Budgets, early stopping and noise as a person asks for them and reads of them."""

from typing import Any

import pytest
from bilevel.v1 import common_pb2, task_pb2, trace_pb2

from clients.history import RunHistory
from clients.report.export import results_tsv
from clients.report.page import render_page
from clients.report.record import RunRecord
from clients.run_options import RunOptions
from clients.searching import SearchPlan
from service_kit.errors import InvalidArgument


def test_a_bare_plan_asks_for_nothing_special() -> None:
    spec = SearchPlan("gpt", levels=()).spec()
    assert not spec.HasField("early_stopping")
    assert not spec.HasField("noise")
    assert not spec.HasField("max_duration")
    assert (spec.parallel_mode, spec.max_cost_usd) == (trace_pb2.PARALLEL_MODE_UNSPECIFIED, 0.0)


def test_every_option_reaches_the_run_and_money_the_campaign_too() -> None:
    options = RunOptions(True, 60.0, 30.5, 1.5, "curve", 0.5, 4)
    plan = SearchPlan("gpt", options=options)
    spec = plan.spec()
    assert spec.parallel_mode == trace_pb2.PARALLEL_MODE_ASYNCHRONOUS
    assert (spec.max_duration.seconds, spec.max_evaluation_time.seconds) == (60, 30)
    assert (spec.max_cost_usd, plan.policy().max_cost_usd) == (1.5, 1.5)
    assert spec.early_stopping.rule == trace_pb2.EARLY_STOPPING_RULE_LEARNING_CURVE
    assert (spec.early_stopping.audit_fraction, spec.noise.baseline_repeats) == (0.5, 4)


@pytest.mark.parametrize(("options", "field"), [(("mean", None), "--early-stopping"), (("", 0.5), "--audit")])
def test_what_makes_no_sense_is_said_before_anything_starts(options: tuple[str, float | None], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        RunOptions(early_stopping=options[0], audit_fraction=options[1])
    assert [violation.field for violation in caught.value.violations] == [field]


def test_one_repeat_shows_no_noise() -> None:
    with pytest.raises(InvalidArgument, match="--noise-repeats: must be 0 for off, or from 2 to 1000; got 1"):
        RunOptions(noise_repeats=1)


def events() -> list[trace_pb2.TraceEvent]:
    """A run in which one trial was stopped and two were audited, one of them wrongly judged."""
    spec = trace_pb2.RunSpec(task="t", max_trials=3)
    spec.early_stopping.rule = trace_pb2.EARLY_STOPPING_RULE_MEDIAN
    bodies: list[dict[str, Any]] = [
        {"run_created": trace_pb2.RunCreated(spec=spec, task=task_pb2.TaskDescription(name="t"))}
    ]
    floor = trace_pb2.NoiseFloor(seeds=[0, 1], metrics=[1.0, 1.2], standard_deviation=0.14, small_gain=0.4)
    for number in range(4):
        origin = trace_pb2.TRIAL_ORIGIN_MODEL if number else trace_pb2.TRIAL_ORIGIN_BASELINE
        bodies.append({"trial_proposed": trace_pb2.TrialProposed(trial=trace_pb2.Trial(number=number, origin=origin))})
        if number:
            judged = trace_pb2.EarlyStopJudged(number=number, stopped=number == 1, fraction=0.5)
            bodies.append({"early_stop_judged": judged})
        result = task_pb2.EvaluationResult(outcome=common_pb2.OUTCOME_STOPPED_EARLY)
        decided = trace_pb2.TrialDecided(number=number, kept=number == 0)
        if number != 1:
            result = task_pb2.EvaluationResult(outcome=common_pb2.OUTCOME_SUCCEEDED, metric=5.0 - number)
            decided.gain = 1.0 if number == 2 else -1.0
        bodies.append({"trial_evaluated": trace_pb2.TrialEvaluated(number=number, result=result)})
        bodies.append({"trial_decided": decided})
    bodies.append({"noise_estimated": trace_pb2.NoiseEstimated(floor=floor)})
    bodies += [{"gain_checked": trace_pb2.GainChecked(number=2, held=held)} for held in (True, False)]
    return [trace_pb2.TraceEvent(run="runs/r", sequence=i, **body) for i, body in enumerate(bodies, start=1)]


def test_a_report_says_how_often_the_stopping_rule_erred_and_what_became_of_small_gains() -> None:
    history = RunHistory.of(events())
    assert history.stopping.sentence() == "1 stopped early; the rule erred in 1 of 2 audited trials (50%)"
    record = RunRecord(events())
    summary = record.summary()
    assert (summary.stopped_early, summary.audited_stops, summary.wrong_stops, summary.failed) == (1, 2, 1, 0)
    assert (summary.noise, summary.gains_checked, summary.gains_held) == (0.14, 2, 1)
    page = render_page([record])
    assert "the rule erred in 1 of 2 audited trials" in page
    assert "1 of 2 small gains held on a second one" in page
    assert "\tdiscard\t" in results_tsv(record)
    assert "\tcrash\t" not in results_tsv(record)
