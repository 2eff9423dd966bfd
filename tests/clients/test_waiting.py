"""The share of the wall clock in which no evaluation ran, from a trace alone."""

from typing import Any

import pytest
from bilevel.v1 import trace_pb2 as pb

from clients.waiting import Waiting


def trace(*steps: tuple[float, str, Any]) -> list[pb.TraceEvent]:
    """Events at seconds: a state to go to, or a trial that starts or ends."""
    events = []
    for at, kind, what in steps:
        event = pb.TraceEvent()
        event.time.FromMilliseconds(int(at * 1000))
        if kind == "state":
            event.run_state_changed.to_state = pb.RunState.Value(f"RUN_STATE_{what}")
        else:
            getattr(event, kind).number = what
        events.append(event)
    return events


def test_waiting_is_told_apart_from_evaluating_also_where_evaluations_overlap() -> None:
    waiting = Waiting.of(
        trace(
            (0, "trial_rejected", 9),
            (10, "state", "RUNNING"),
            (12, "trial_started", 0),
            (13, "trial_started", 1),
            (15, "trial_evaluated", 0),
            (17, "trial_evaluated", 1),
            (18, "state", "PAUSED"),
            (28, "state", "RUNNING"),
            (29, "state", "CONFIRMING"),
            (30, "state", "FINISHED"),
            (99, "trial_rejected", 9),
        )
    )
    assert (waiting.wall, waiting.evaluating, waiting.paused, waiting.proposing) == (20, 6, 10, 4)
    assert waiting.share == pytest.approx(0.7)


def test_a_run_that_never_started_has_waited_for_nothing() -> None:
    assert Waiting.of(trace((1, "trial_rejected", 1))).share == 0.0
