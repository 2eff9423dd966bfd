"""From what a person asks for to the run's spec and the campaign's policy."""

import pytest
from bilevel.v1 import outer_pb2 as pb

from clients.searching import SearchPlan, read_control
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
