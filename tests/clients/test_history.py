"""What a trace adds up to."""

from __future__ import annotations

import pytest
from bilevel.v1 import outer_pb2, trace_pb2

from clients.campaign_history import CampaignHistory
from clients.history import RunHistory
from clients.report.record import RunRecord
from tests.clients.conftest import usage


def test_a_history_counts_decided_trials_without_the_baseline(bare: RunRecord) -> None:
    assert len(bare.history.trials) == 31
    assert bare.history.decided == 30


def test_the_best_is_what_the_trace_called_the_best(bilevel: RunRecord) -> None:
    history = bilevel.history
    assert history.best_metric == min(m for n in history.trials if (m := history.metric(n)) is not None)
    assert history.search_gain == pytest.approx(history.baseline_metric - history.best_metric)


def test_a_failed_trial_has_no_metric(bare: RunRecord) -> None:
    assert bare.history.metric(8) is None
    assert bare.history.trials[8].message == "the training loss exploded at step 9"


def test_changed_decisions_are_counted_from_their_own_events(bilevel: RunRecord) -> None:
    counted = sum(1 for event in bilevel.events if event.WhichOneof("event") == "decision_changed")
    assert counted > 0
    assert bilevel.history.changed_decisions == counted
    assert bilevel.summary().changed_decisions == counted


def test_a_standard_mechanism_is_not_counted_as_generated(bilevel: RunRecord) -> None:
    events = []
    for event in bilevel.events:
        copy = trace_pb2.TraceEvent()
        copy.CopyFrom(event)
        if copy.WhichOneof("event") == "mechanism_installed":
            copy.mechanism_installed.mechanism.author = "standard"
        events.append(copy)
    summary = RunRecord(events, bilevel.campaign_events).summary()
    assert summary.mechanisms_installed == 0
    assert summary.changed_decisions == 0


def test_an_unknown_cost_makes_the_sum_unknown(bilevel: RunRecord) -> None:
    assert bilevel.spending.cost_usd is None
    assert bilevel.spending.calls == 31 + 6 + 4


def test_requests_for_a_better_answer_are_counted_too() -> None:
    asked = trace_pb2.ModelCalled(purpose="propose", model="m", usage=usage(cost=0.5))
    asked.usage.calls = 2
    events = [trace_pb2.TraceEvent(run="runs/r", sequence=n, model_called=asked) for n in (1, 2)]
    record = RunRecord(events)
    assert record.spending.calls == record.summary().to_json()["model_calls"] == 4
    assert record.history.by_purpose["propose"].calls == 4
    assert record.spending.models == {"m": 2}


def test_scripted_answers_are_found_by_their_own_flags(bilevel: RunRecord) -> None:
    assert bilevel.scripted
    assert "scripted, no language model" in bilevel.answered_by


def test_a_trial_remembers_what_it_started_from(bilevel: RunRecord) -> None:
    base = bilevel.history.bases[13]
    assert bilevel.history.trials[base].state == trace_pb2.TRIAL_STATE_KEPT
    assert base < 13


def test_unknown_event_kinds_are_ignored(bare: RunRecord) -> None:
    history = RunHistory.of([*bare.events, trace_pb2.TraceEvent(run=bare.history.name, sequence=len(bare.events) + 1)])
    assert history.decided == 30
    assert history.events["unknown"] == 1


def test_a_campaign_says_what_it_is_doing(bilevel: RunRecord) -> None:
    seen = []
    history = CampaignHistory()
    for event in bilevel.campaign_events:
        history.apply(event)
        seen.append(history.activity)
    assert "level 2 writes the mechanism" in seen
    assert "level 2 installed turn-round" in seen
    assert history.research[0].finished is not None
    assert history.research[0].finished.outcome == outer_pb2.RESEARCH_OUTCOME_INSTALLED
