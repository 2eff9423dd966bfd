"""The demonstration fails when it does not show what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
from bilevel.v1 import trace_pb2

from clients.demo import DemoSettings, judge
from clients.report.record import RunRecord
from clients.searching import read_levels
from service_kit.errors import InvalidArgument


def without(record: RunRecord, kind: str, *, scripted: bool = True) -> RunRecord:
    """The record without one kind of event, and as a real model's where it is not scripted."""
    events = []
    for event in record.events:
        copy = trace_pb2.TraceEvent()
        copy.CopyFrom(event)
        if copy.WhichOneof("event") == "model_called":
            copy.model_called.scripted = scripted
        if copy.WhichOneof("event") != kind:
            events.append(copy)
    return RunRecord(events, record.campaign_events if scripted else [])


def test_a_mechanism_that_changed_decisions_is_success(bare: RunRecord, bilevel: RunRecord) -> None:
    problems, remarks = judge((bare, bilevel))
    assert problems == ()
    assert remarks[0].startswith("1 generated mechanism installed while the run went on; 7 changed decisions")


@pytest.mark.parametrize(
    ("missing", "finding"),
    [
        ("mechanism_installed", "no generated mechanism was installed in the bilevel run"),
        ("decision_changed", "no generated mechanism changed a decision in the bilevel run"),
    ],
)
def test_scripted_it_fails_without_an_effect(bare: RunRecord, bilevel: RunRecord, missing: str, finding: str) -> None:
    assert judge((bare, without(bilevel, missing))) == ((finding,), ())


def test_with_a_real_model_the_same_is_a_finding(bare: RunRecord, bilevel: RunRecord) -> None:
    problems, remarks = judge((bare, without(bilevel, "mechanism_installed", scripted=False)))
    assert problems == ()
    assert remarks == ("no generated mechanism was installed in the bilevel run",)


def test_a_run_that_did_not_finish_is_a_problem(bare: RunRecord, bilevel: RunRecord) -> None:
    problems, _ = judge((RunRecord(bare.events[:-1]), bilevel))
    assert problems[0].startswith("the run 'level 1' is running, not finished")


def test_both_runs_differ_in_their_levels_only() -> None:
    bare, bilevel = DemoSettings(Path("out"), trials=30, seed=4).plans()
    assert (bare.task, bare.trials, bare.seed) == (bilevel.task, bilevel.trials, bilevel.seed) == ("gpt", 30, 4)
    assert (bare.levels, bilevel.levels) == ((), ("1.5", "2"))
    assert bare.spec().checkpoint_every == 0
    assert bilevel.spec().checkpoint_every == 5
    assert not bare.spec().use_lessons


@pytest.mark.parametrize(
    ("text", "levels"), [("1", ()), ("1,1.5", ("1.5",)), ("2,1", ("2",)), ("1, 1.5, 2", ("1.5", "2"))]
)
def test_levels_are_read(text: str, levels: tuple[str, ...]) -> None:
    assert read_levels(text) == levels


@pytest.mark.parametrize("text", ["", "2", "1,3", "all"])
def test_other_levels_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"must be 1, 1,1\.5, 1,2 or 1,1\.5,2"):
        read_levels(text)
