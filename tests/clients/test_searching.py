"""From what a person asks for to the run's spec and the campaign's policy."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from bilevel.v1 import outer_pb2 as pb
from bilevel.v1 import trace_pb2

from clients.report.record import RunRecord
from clients.searching import Search, SearchPlan, catch_up, read_control
from service_kit.errors import InvalidArgument


def test_a_concurrent_plan_never_pauses_its_run() -> None:
    plan = SearchPlan("t", concurrent=True)
    assert plan.spec().checkpoint_every == 0
    assert plan.policy().mode == pb.CAMPAIGN_MODE_CONCURRENT
    assert SearchPlan("t").spec().checkpoint_every == 5


def test_a_plan_says_what_level_two_may_do() -> None:
    policy = SearchPlan("t", levels=("2",), library=False, control="restart", recursion=True).policy()
    assert (policy.library, policy.control, policy.recursion) == (pb.LIBRARY_USE_NONE, pb.CONTROL_RESTART, True)


@pytest.mark.parametrize(
    ("text", "levels", "said"),
    [("nop", ("2",), "must be noop or restart; got 'nop'"), ("noop", ("1.5",), "--levels must hold 2")],
)
def test_a_wrong_control_says_what_is_allowed(text: str, levels: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        read_control(text, levels)
    assert read_control("noop", ("1.5", "2")) == "noop"


def test_a_run_that_a_person_paused_is_waited_for() -> None:
    states = trace_pb2.RunState
    running = trace_pb2.TraceEvent(
        sequence=1, run_state_changed={"from_state": states.RUN_STATE_CREATED, "to_state": states.RUN_STATE_RUNNING}
    )
    asked = trace_pb2.TraceEvent(sequence=2, pause_requested={"reason": "to look"})
    paused = trace_pb2.TraceEvent(
        sequence=3, run_state_changed={"from_state": states.RUN_STATE_RUNNING, "to_state": states.RUN_STATE_PAUSED}
    )
    by_a_person, by_itself = Search("runs/r1"), Search("runs/r2")
    for event in (running, asked, paused):
        by_a_person.trace.apply(event)
    for event in (running, paused):
        by_itself.trace.apply(event)
    assert (by_a_person.stuck, by_itself.stuck) == (False, True)


class Recorded:
    """A client of a service that has said all it will ever say."""

    def __init__(self, events: Sequence[Any]) -> None:
        self._events = events

    async def watch_trace(self, name: str, after: int, *, follow: bool) -> AsyncIterator[Any]:
        assert not follow
        for event in self._events[after:]:
            yield event

    watch_campaign = watch_trace


async def test_what_happened_is_told_in_the_order_of_time_across_both_streams(bilevel: RunRecord) -> None:
    search = Search("runs/bi1", "campaigns/c1")
    told: list[Any] = []
    inner, outer = Recorded(bilevel.events), Recorded(bilevel.campaign_events)
    await catch_up(search, inner, outer, lambda _, event: told.append(event))  # type: ignore[arg-type]
    times = [event.time.seconds for event in told]
    assert times == sorted(times)
    assert len(told) == len(bilevel.events) + len(bilevel.campaign_events)
    assert search.trace.last_sequence == len(bilevel.events)
    assert search.outer.last_sequence == len(bilevel.campaign_events)
