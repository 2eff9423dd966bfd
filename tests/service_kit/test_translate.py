"""What crosses the wire comes back the same, and what comes in wrong is named."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from bilevel.v1 import common_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from service_kit import translate
from service_kit.errors import InvalidArgument, InvalidConfiguration
from service_kit.llm.usage import Usage
from service_kit.parameters import Direction, Kind, Objective, Outcome, Parameter, ParameterSpace, Scale, Split

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(codec="utf-8"), max_size=20)
scalars = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), finite, text)
values = st.one_of(scalars, st.lists(scalars, max_size=4).map(tuple))
names = st.from_regex(r"[A-Z][A-Z_]{0,8}", fullmatch=True)


@st.composite
def parameters(draw: st.DrawFn, name: str) -> Parameter:
    kind = draw(st.sampled_from(Kind))
    optional = {"documentation": draw(text), "locked": draw(st.booleans()), "scale": draw(st.sampled_from(Scale))}
    match kind:
        case Kind.INTEGER | Kind.REAL:
            low, default, high = sorted(draw(st.lists(st.integers(-(2**40), 2**40), min_size=3, max_size=3)))
            start = default if kind is Kind.INTEGER else float(default)
            bounds = draw(st.sampled_from([{}, {"minimum": low}, {"maximum": high}, {"minimum": low, "maximum": high}]))
            step = draw(st.sampled_from([None, 1.0])) if "minimum" in bounds else None
            return Parameter(name, kind, start, step=step, **bounds, **optional)
        case Kind.BOOLEAN:
            return Parameter(name, kind, draw(st.booleans()), **optional)
        case Kind.CATEGORICAL:
            choices = tuple(draw(st.lists(scalars, min_size=1, max_size=4)))
            return Parameter(name, kind, draw(st.sampled_from(choices)), choices=choices, **optional)
        case Kind.LIST:
            default = tuple(draw(st.lists(finite, min_size=1, max_size=3)))
            return Parameter(name, kind, default, length=draw(st.sampled_from([None, len(default)])), **optional)
        case Kind.TEXT | Kind.SOURCE:
            return Parameter(name, kind, draw(st.text("SL", min_size=1)), pattern="[SL]+", max_length=64, **optional)


@st.composite
def spaces(draw: st.DrawFn) -> ParameterSpace:
    chosen = draw(st.lists(names, unique=True, max_size=4))
    return ParameterSpace(tuple(draw(parameters(name)) for name in chosen), tuple(draw(st.lists(text, max_size=2))))


def same(a: object, b: object) -> bool:
    """Equal and of the same types, because 1 == 1.0 == True in Python."""
    return repr(a) == repr(b)


@given(st.dictionaries(names, values, max_size=5))
def test_configurations_come_back_the_same_with_their_types(configuration) -> None:
    wire = translate.configuration_to_proto(configuration).SerializeToString()
    back = translate.configuration_from_proto(pb.Configuration.FromString(wire))
    assert same(dict(sorted(configuration.items())), back)


@given(spaces())
def test_spaces_come_back_the_same(space: ParameterSpace) -> None:
    wire = translate.space_to_proto(space).SerializeToString()
    assert translate.space_from_proto(pb.ParameterSpace.FromString(wire)) == space


@given(st.builds(Objective, text.filter(bool), st.sampled_from(Direction), text, text))
def test_objectives_come_back_the_same(objective: Objective) -> None:
    assert translate.objective_from_proto(translate.objective_to_proto(objective)) == objective


counts = st.integers(0, 2**62)


@given(st.builds(Usage, counts, counts, counts, counts, st.none() | finite))
def test_usage_comes_back_the_same_and_unknown_cost_stays_unknown(usage: Usage) -> None:
    assert translate.usage_from_proto(translate.usage_to_proto(usage)) == usage


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(timezone(timedelta(hours=5)))))
def test_moments_come_back_the_same_in_utc(moment: datetime) -> None:
    back = translate.timestamp_from_proto(translate.timestamp_to_proto(moment))
    assert back == moment
    assert back.tzinfo is UTC


@given(st.integers(-(10**9), 10**9))
def test_durations_come_back_the_same_to_the_microsecond(microseconds: int) -> None:
    seconds = microseconds / 1e6
    assert translate.duration_from_proto(translate.duration_to_proto(seconds)) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("members", "there", "back"),
    [
        (Kind, translate.kind_to_proto, translate.kind_from_proto),
        (Scale, translate.scale_to_proto, translate.scale_from_proto),
        (Direction, translate.direction_to_proto, translate.direction_from_proto),
        (Outcome, translate.outcome_to_proto, translate.outcome_from_proto),
        (Split, translate.split_to_proto, translate.split_from_proto),
    ],
)
def test_every_member_of_an_enum_has_its_counterpart(members, there, back) -> None:
    numbers = [there(member) for member in members]
    assert 0 not in numbers
    assert [back(number) for number in numbers] == list(members)


def test_what_is_unset_reads_as_documented() -> None:
    assert translate.outcome_from_proto(0) is None
    assert translate.outcome_to_proto(None) == 0
    assert translate.split_from_proto(0) is Split.SEARCH


WRONG = [
    (lambda: translate.value_from_proto(pb.Value(), "x"), "x: must have one of int_value"),
    (lambda: translate.value_from_proto(pb.Value(double_value=float("nan")), "x"), "x: must be a finite number"),
    (lambda: translate.value_to_proto(2**63), "int_value: must be a 64-bit integer"),
    (
        lambda: translate.configuration_from_proto(pb.Configuration(values={"LR": pb.Value()})),
        r"configuration\.values\[LR\]: must have one of",
    ),
    (
        lambda: translate.value_from_proto(
            pb.Value(list_value=pb.ValueList(values=[pb.Value(list_value=pb.ValueList())])), "x"
        ),
        r"x\.list_value\[0\]: must be a number, a boolean or a string: lists do not nest",
    ),
    (
        lambda: translate.kind_from_proto(0, "k"),
        "k: must be one of PARAMETER_KIND_INTEGER, ",
    ),
    (lambda: translate.direction_from_proto(9, "d"), "d: must be one of DIRECTION_MINIMIZE, DIRECTION_MAXIMIZE; got 9"),
    (lambda: translate.objective_from_proto(pb.Objective(direction=1)), r"objective\.metric: must not be empty"),
    (
        lambda: translate.parameter_from_proto(pb.Parameter(name="A", pattern="(")),
        r"pattern: must be a regular",
    ),
    (
        lambda: translate.parameter_from_proto(pb.Parameter(name="A", step=0.0)),
        r"step: must be greater than 0",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_a_wrong_message_is_refused_by_the_path_of_its_field(wrong, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        wrong()


def test_a_space_with_a_default_outside_its_range_or_a_repeated_name_is_refused() -> None:
    outside = pb.Parameter(name="A", kind=pb.PARAMETER_KIND_INTEGER, default_value=pb.Value(int_value=5), maximum=4)
    with pytest.raises(InvalidConfiguration, match="A: must be an integer of at most 4; got 5"):
        translate.space_from_proto(pb.ParameterSpace(parameters=[outside]))
    outside.maximum = 9
    with pytest.raises(InvalidArgument, match="must have unique names; A is there twice"):
        translate.space_from_proto(pb.ParameterSpace(parameters=[outside, outside]))


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        translate.timestamp_to_proto(datetime(2020, 1, 1))
    assert translate.timestamp_from_proto(Timestamp(seconds=1)) == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
