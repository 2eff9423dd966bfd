"""The space as mechanisms see it: every move leads to a value that the real space takes."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechanisms.language.space import Space
from service_kit.parameters import Kind, Parameter, ParameterSpace, Scale

BOUNDS = st.tuples(st.floats(0, 100), st.floats(0.5, 1000)).map(lambda b: (b[0], b[0] + b[1]))


@st.composite
def numbers(draw: Any) -> Parameter:
    kind = draw(st.sampled_from([Kind.INTEGER, Kind.REAL]))
    low, high = draw(BOUNDS)
    if kind is Kind.INTEGER:
        low, high = int(low), int(high) + 2
    scale = draw(st.sampled_from(list(Scale)))
    step = draw(st.sampled_from([None, 1, 2])) if scale is Scale.LINEAR and high - low > 2 else None
    return Parameter("X", kind, low, minimum=low, maximum=high, scale=scale, step=step)


@given(numbers(), st.floats(-0.5, 1.5), st.floats(-1e6, 1e6), st.integers(0, 99))
def test_every_move_of_a_number_is_allowed(parameter: Parameter, unit: float, value: float, seed: int) -> None:
    space = Space(ParameterSpace((parameter,)).to_json())
    for moved in (
        space.clip("X", value),
        space.from_unit("X", unit),
        space.sample("X", random.Random(seed)),
        *space.neighbours("X", space.from_unit("X", unit)),
    ):
        assert parameter.check(moved) == moved


@given(numbers(), st.floats(0, 1))
def test_units_come_back(parameter: Parameter, unit: float) -> None:
    space = Space(ParameterSpace((parameter,)).to_json())
    value = space.from_unit("X", unit)
    assert space.from_unit("X", space.to_unit("X", value)) == pytest.approx(value, rel=1e-6)


def test_neighbours_are_one_step_on_the_parameters_own_scale(space: ParameterSpace) -> None:
    moves = Space(space.to_json())
    assert moves.neighbours("BATCH", 4096) == [2048, 8192]
    assert moves.neighbours("LR", 0.01) == pytest.approx([0.01 / 10**0.5, 0.01 * 10**0.5])
    assert moves.neighbours("HEADS", 2) == [4]
    assert moves.neighbours("ACTIVATION", "gelu") == ["relu", "swiglu"]
    assert moves.neighbours("TIED", True) == [False]
    assert len(moves.neighbours("BETAS", (0.8, 0.95))) == 4
    assert moves.neighbours("PATTERN", "SSSL") == []


def test_every_choice_has_its_unit(space: ParameterSpace) -> None:
    moves = Space(space.to_json())
    for choice in ("relu", "gelu", "swiglu"):
        assert moves.from_unit("ACTIVATION", moves.to_unit("ACTIVATION", choice)) == choice
    assert [moves.has_unit(name) for name in ("BETAS", "PATTERN")] == [False, False]
    with pytest.raises(ValueError, match="no unit scale"):
        moves.to_unit("PATTERN", "S")


def test_an_unknown_parameter_is_named_with_the_nearest(space: ParameterSpace) -> None:
    with pytest.raises(KeyError, match="did you mean 'DEPTH'"):
        Space(space.to_json())["DEPHT"]


def test_the_space_cannot_be_changed(space: ParameterSpace) -> None:
    moves = Space(space.to_json())
    with pytest.raises(AttributeError):
        moves["DEPTH"].maximum = 10**9
    with pytest.raises(AttributeError):
        moves.clip = None
