"""Policies: everything that is wrong at once, and what is accepted comes back as it is kept."""

from typing import Any

from bilevel.v1 import outer_pb2 as pb
from google.protobuf import duration_pb2
from hypothesis import given
from hypothesis import strategies as st

from outer_service.campaign import Level, Mode, Policy
from outer_service.requests import policy_from_proto
from outer_service.translate import policy_to_proto
from service_kit.errors import InvalidArgument

COUNTS = st.integers(-3, 30) | st.integers(-(2**31), 2**31 - 1)
LEVELS = st.lists(st.integers(0, 4), max_size=3)
FIELDS = frozenset(pb.CampaignPolicy.DESCRIPTOR.fields_by_name)


@st.composite
def messages(draw: st.DrawFn) -> pb.CampaignPolicy:
    values: dict[str, Any] = {
        "levels": draw(LEVELS),
        "mode": draw(st.integers(0, 3)),
        "control": draw(st.integers(0, 3)),
        "library": draw(st.integers(0, 3)),
        "after_failures": draw(st.integers(0, 3)),
        "recursion": draw(st.booleans()),
        "max_tokens": draw(st.integers(-1, 10**6)),
    }
    counts = ("configuration_every", "mechanism_every", "probation_trials", "max_failures", "max_mechanisms")
    for name in (*counts, "reexamination_trials", "procedure_probation", "repairs"):
        if draw(st.booleans()):
            values[name] = draw(COUNTS)
    if draw(st.booleans()):
        seconds = draw(st.integers(-5, 10**6))
        values["max_cycle_time"] = duration_pb2.Duration(seconds=seconds)
    return pb.CampaignPolicy(**values)


@given(messages())
def test_a_policy_is_refused_field_by_field_or_complete_and_stable(message: pb.CampaignPolicy) -> None:
    try:
        policy = policy_from_proto(message, priced=False)
    except InvalidArgument as refused:
        names = {violation.field.removeprefix("policy.") for violation in refused.violations}
        assert names <= FIELDS
        return
    kept = policy_to_proto(policy)
    assert policy_from_proto(kept, priced=False) == policy
    assert policy.probation_trials >= 1
    assert policy.reexamination_trials >= 1
    assert 1 <= policy.max_cycle_seconds <= 86_400


@given(
    st.sets(st.sampled_from(Level), min_size=1),
    st.integers(1, 7),
    st.integers(1, 4),
    st.lists(st.integers(1, 9), max_size=20),
)
def test_a_level_acts_once_for_each_of_its_moments_that_is_seen(
    levels: set[Level], every: int, times: int, steps: list[int]
) -> None:
    policy = Policy(tuple(levels), configuration_every=every, mechanism_every=every * times, mode=Mode.CONCURRENT)
    acted: dict[Level, int] = {}
    decided = 0
    for step in steps:
        decided += step
        due = policy.due(acted, decided)
        for level in due:
            crossed = decided // policy.every(level) - acted.get(level, 0) // policy.every(level)
            assert crossed >= 1
            acted[level] = decided
        assert not policy.due(acted, decided)
    for level in levels:
        assert decided // policy.every(level) == acted.get(level, 0) // policy.every(level)
