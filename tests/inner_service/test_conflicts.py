"""Mechanisms that work against each other: seen from their answers, resolved by a stated rule, loud on the trace."""

import pytest
from bilevel.v1 import trace_pb2
from hypothesis import given
from hypothesis import strategies as st

from inner_service.conflicts import REVERSED_PAIRS, VETOED_PROPOSALS, ConflictKind, Conflicts

NAMES = st.sampled_from(["", "a", "b", "c"])
WISHFUL = '''
class Mechanism:
    """Wishful: propose what was not tried."""

    def propose(self, view, count):
        return [Candidate(changes={"x": 0.01 * len(view.history)}, hypothesis="wish")]
'''
JEALOUS = '''
class Mechanism:
    """Jealous: refuse wishes, and what the gate replays now and then."""

    def veto(self, view, candidate):
        return "no wishes" if candidate.hypothesis == "wish" or len(view.history) % 7 == 6 else None
'''
HALF = '''
class Mechanism:
    """Halves: refuse every second candidate."""

    def veto(self, view, candidate):
        mine = "x" in candidate.changes and round(candidate.changes["x"] * 1000) % 2 == PARITY
        return "my half" if mine else None
'''
RANKING = '''
class Mechanism:
    """Ranking by one parameter."""

    def rank(self, view, candidates):
        return [SIGN * float(c.changes.get("x", 0.0)) for c in candidates]
'''


def test_two_vetoes_that_leave_nothing_twice_in_a_row_are_a_conflict() -> None:
    conflicts = Conflicts()
    assert conflicts.left_nothing(["a", "b", "a"]) is None
    found = conflicts.left_nothing(["a", "b", "a"])
    assert found is not None
    assert (found.kind, set(found.mechanisms)) == (ConflictKind.VETOES, {"a", "b"})


@pytest.mark.parametrize("between", [["a", "a"], ["a", "b", ""], []])
def test_one_veto_or_another_refusal_breaks_the_streak(between: list[str]) -> None:
    conflicts = Conflicts()
    conflicts.left_nothing(["a", "b"])
    assert conflicts.left_nothing(between) is None
    assert conflicts.left_nothing(["a", "b"]) is None
    conflicts.left_something()
    assert conflicts.left_nothing(["a", "b"]) is None


def test_a_mechanism_that_vetoes_itself_is_no_conflict() -> None:
    conflicts = Conflicts()
    assert not any(conflicts.proposed("a", "a") for _ in range(3 * VETOED_PROPOSALS))


@given(st.lists(NAMES, max_size=40))
def test_only_a_whole_streak_by_one_other_mechanism_blames_it(vetoers: list[str]) -> None:
    conflicts, streak = Conflicts(), list[str]()
    for vetoer in vetoers:
        other = vetoer not in ("", "a")
        streak = [*streak, vetoer] if other and (not streak or streak[-1] == vetoer) else [vetoer] if other else []
        found = conflicts.proposed("a", vetoer)
        assert (found is not None) == (len(streak) == VETOED_PROPOSALS)
        if found is not None:
            assert found.mechanisms == ("a", vetoer)
            streak = []


@given(st.lists(st.permutations(range(3)), min_size=1, max_size=12), st.booleans())
def test_only_rankings_that_reverse_each_other_throughout_are_a_conflict(
    rounds: list[list[int]], reverse: bool
) -> None:
    conflicts, pairs = Conflicts(), 0
    for scores in rounds:
        first = [float(s) for s in scores]
        second = [-s for s in first] if reverse else [first[0], *sorted(first[1:])]
        opposite = sorted(zip(first, second, strict=True)) == sorted(
            zip(sorted(first), sorted(second, reverse=True), strict=True)
        )
        pairs = pairs + 3 if opposite else 0
        found = conflicts.ranked({"a": first, "b": second})
        assert (found is not None) == (pairs >= REVERSED_PAIRS)
        if found is not None:
            pairs = 0


async def test_two_vetoes_that_leave_nothing_end_with_the_newer_one_going_and_the_trial_going_on(
    inner, endpoint
) -> None:
    endpoint.answer = lambda state: [({"x": (len(state["refused"]) + 2 * len(state["trials"]) + 2) / 1000}, "")]
    name = await inner.create(max_trials=2)
    for parity in (0, 1):
        await inner.install(name, HALF.replace("PARITY", str(parity)), f"half-{parity}")
    await inner.start(name)
    events = await inner.finished(name)
    run = await inner.run(name)
    assert (run.state, run.decided_trials) == (trace_pb2.RUN_STATE_FINISHED, 2)
    [conflicted] = inner.of(events, "mechanisms_conflicted")
    assert (conflicted.kind, list(conflicted.mechanisms)) == (trace_pb2.CONFLICT_KIND_VETOES, ["half-0", "half-1"])
    assert conflicted.suspended == "half-1"
    assert conflicted.evidence == "vetoed 2 and 1 of the last 3 candidates; nothing was left in 2 proposals in a row"
    [suspended] = inner.of(events, "mechanism_suspended")
    assert (suspended.mechanism, suspended.kind) == ("half-1", "conflicted")
    assert suspended.message.startswith("with half-0: ")
    assert len(inner.of(events, "proposal_failed")) == 1


async def test_what_is_always_vetoed_by_another_ends_in_a_loud_conflict_and_the_run_goes_on(inner) -> None:
    name = await inner.create(max_trials=8)
    await inner.one_trial(name)
    await inner.install(name, WISHFUL, "wishful")
    await inner.install(name, JEALOUS, "jealous")
    await inner.start(name)
    events = await inner.finished(name)
    run = await inner.run(name)
    assert (run.state, run.decided_trials) == (trace_pb2.RUN_STATE_FINISHED, 8)
    [conflicted] = inner.of(events, "mechanisms_conflicted")
    assert conflicted.kind == trace_pb2.CONFLICT_KIND_VETOED_PROPOSALS
    assert list(conflicted.mechanisms) == ["wishful", "jealous"]
    assert conflicted.suspended == "jealous"  # neither kept a trial, so the newer one goes
    assert conflicted.evidence == "jealous vetoed the last 5 candidates of wishful"
    [suspended] = inner.of(events, "mechanism_suspended")
    assert (suspended.mechanism, suspended.kind) == ("jealous", "conflicted")
    wishes = [p.trial for p in inner.of(events, "trial_proposed") if p.trial.proposer == "wishful"]
    refused = {rejected.number for rejected in inner.of(events, "trial_rejected")}
    # The fifth runs: what vetoed it is gone.
    assert [wish.number in refused for wish in wishes[:5]] == [True] * 4 + [False]


async def test_rankings_that_cancel_each_other_out_are_resolved(inner, endpoint) -> None:
    endpoint.answer = lambda state: [
        ({"x": round(0.1 + 0.2 * n + 0.01 * len(state["trials"]), 4)}, "") for n in range(state["count"])
    ]
    name = await inner.create(max_trials=6)
    await inner.one_trial(name)
    await inner.install(name, RANKING.replace("SIGN", "1"), "up")
    await inner.install(name, RANKING.replace("SIGN", "-1"), "down")
    await inner.start(name)
    events = await inner.finished(name)
    [conflicted] = inner.of(events, "mechanisms_conflicted")
    assert (conflicted.kind, conflicted.suspended) == (trace_pb2.CONFLICT_KIND_RANKINGS, "down")
    assert conflicted.evidence == "ranked the last 12 pairs of candidates in opposite orders"
    assert (await inner.run(name)).decided_trials == 6
