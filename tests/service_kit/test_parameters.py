"""Parameter spaces type and bound every value, and say what is allowed when they refuse one."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.parameters import (
    Direction,
    InvalidConfiguration,
    Kind,
    Objective,
    Parameter,
    ParameterSpace,
    Scale,
    brief,
    configuration_from_json,
    configuration_to_json,
)
from service_kit.typed_text import parse_value

BATCH = Parameter("TOTAL_BATCH_SIZE", Kind.INTEGER, 8192, minimum=256, maximum=65536, scale=Scale.LOG2)
RATE = Parameter("MATRIX_LR", Kind.REAL, 0.04, minimum=1e-4, maximum=1.0, scale=Scale.LOG10)
BETAS = Parameter("ADAM_BETAS", Kind.LIST, (0.8, 0.95), minimum=0.0, maximum=0.999, length=2)
PATTERN = Parameter("WINDOW_PATTERN", Kind.TEXT, "SSSL", pattern="[SL]+", max_length=16)
PROMPT = Parameter("PROMPT", Kind.TEXT, "Say it.")
CHOICE = Parameter("ACTIVATION", Kind.CATEGORICAL, "relu", choices=("relu", "gelu", 1))
FLAG = Parameter("TIED", Kind.BOOLEAN, False)
DEPTH = Parameter("DEPTH", Kind.INTEGER, 2, minimum=1, maximum=64, locked=True)
SPACE = ParameterSpace((BATCH, RATE, BETAS, PATTERN, CHOICE, FLAG, DEPTH), ("TOTAL_BATCH_SIZE is a multiple of 128",))


def test_a_long_text_is_shown_in_a_line() -> None:
    assert brief("SSSL") == "SSSL"
    assert brief('def f(x):\n    """Best fit: the fullest bin."""\n    return x\n') == (
        "3 lines of source (Best fit: the fullest bin.)"
    )
    assert brief("x = 1\ny = 2") == "2 lines of source"


def test_every_violation_is_reported_at_once() -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        SPACE.validate({"TOTAL_BATCH_SIZE": 1, "MATRIX_LR": "0.1", "nonsense": 3})
    assert [v.field for v in caught.value.violations] == ["TOTAL_BATCH_SIZE", "MATRIX_LR", "nonsense"]
    assert "must be an integer from 256 to 65536; got 1" in str(caught.value)


def test_an_unknown_name_gets_the_nearest_known_one() -> None:
    with pytest.raises(InvalidConfiguration, match="did you mean TOTAL_BATCH_SIZE"):
        SPACE.validate({"total_batch_siz": 512})


def test_a_locked_parameter_may_be_named_at_its_default_but_not_changed() -> None:
    assert SPACE.validate({"DEPTH": 2})["DEPTH"] == 2
    with pytest.raises(InvalidConfiguration, match="DEPTH: is locked at 2"):
        SPACE.validate({"DEPTH": 3})
    with pytest.raises(InvalidConfiguration, match="DEPTH: must be 2, because it is locked; got 1000"):
        parse_value(DEPTH, "1000")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (BATCH, True),
        (BATCH, 512.5),
        (BATCH, "512"),
        (BATCH, 10**400),
        (RATE, math.nan),
        (RATE, math.inf),
        (RATE, 10**400),
        (RATE, False),
        (BETAS, (0.9,)),
        (BETAS, (0.9, 1.0)),
        (BETAS, "0.9,0.9"),
        (PATTERN, "SXL"),
        (PATTERN, ""),
        (PATTERN, "S" * 17),
        (PROMPT, "a\0b"),
        (PROMPT, "a\ud800b"),
        (CHOICE, "tanh"),
        (CHOICE, True),
        (FLAG, 1),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_with_the_allowed_range(
    parameter: Parameter, value: object
) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        parameter.check(value)
    assert parameter.allowed() in str(caught.value)
    assert len(str(caught.value)) < 400


def test_json_numbers_reach_their_exact_type() -> None:
    assert BATCH.check(512.0) == 512
    assert type(BATCH.check(512.0)) is int
    assert type(RATE.check(1)) is float
    assert BETAS.check([0, 0.5]) == (0.0, 0.5)


def test_a_step_restricts_values_to_its_grid() -> None:
    parameter = Parameter("WIDTH", Kind.REAL, 0.5, minimum=0.25, maximum=1.0, step=0.25)
    assert parameter.check(0.75) == 0.75
    with pytest.raises(InvalidConfiguration, match=r"from 0\.25 to 1 in steps of 0\.25"):
        parameter.check(0.6)


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        (BATCH, "2**12", 4096),
        (BATCH, "2^12", 4096),
        (BATCH, "4_096", 4096),
        (RATE, "1e-3", 0.001),
        (BETAS, "(0.9, 0.99)", (0.9, 0.99)),
        (PATTERN, "SL", "SL"),
        (CHOICE, "gelu", "gelu"),
        (CHOICE, "1", 1),
        (FLAG, "True", True),
    ],
)
def test_what_a_person_types_is_read_by_kind(parameter: Parameter, text: str, value: object) -> None:
    assert parse_value(parameter, text) == value


@pytest.mark.parametrize("text", ["__import__('os')", "2**99**99", "9**999", "", "0x10", "1;2"])
def test_typed_text_is_never_evaluated(text: str) -> None:
    with pytest.raises(InvalidConfiguration):
        parse_value(BATCH, text)


@given(st.sampled_from(SPACE.parameters), st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9))
def test_a_checked_value_is_stable(parameter: Parameter, value: object) -> None:
    try:
        checked = parameter.check(value)
    except InvalidConfiguration:
        return
    assert parameter.check(checked) == checked


def test_spaces_and_configurations_survive_json() -> None:
    assert ParameterSpace.from_json(json.loads(json.dumps(SPACE.to_json()))) == SPACE
    defaults = SPACE.defaults()
    assert configuration_from_json(json.loads(json.dumps(configuration_to_json(defaults)))) == defaults


def test_changes_are_what_differs_from_the_base() -> None:
    base = SPACE.defaults()
    changed = SPACE.apply(base, {"MATRIX_LR": 0.08, "TIED": False})
    assert SPACE.changes(base, changed) == {"MATRIX_LR": 0.08}


@pytest.mark.parametrize(("direction", "gain"), [(Direction.MINIMIZE, 1.0), (Direction.MAXIMIZE, -1.0)])
def test_gain_and_better_follow_the_direction(direction: Direction, gain: float) -> None:
    objective = Objective("loss", direction)
    assert objective.gain(3.0, 2.0) == gain
    assert objective.better(2.0, 3.0) is (gain > 0)
    assert not objective.better(2.0, 2.0)


def test_two_parameters_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="unique"):
        ParameterSpace((BATCH, BATCH))
