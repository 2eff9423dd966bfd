"""What an author may write as a space, and what is said about mistakes in it."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.task_sdk import Boolean, Choice, Integer, InvalidTask, Numbers, Real, Source, Text, task
from clients.task_sdk.spaces import read_space
from service_kit.parameters import Kind, Parameter, Scale
from service_kit.typed_text import parse_value


def read(written: object, own: object = None) -> Parameter:
    space, problems = read_space({"x": written}, {"x": own} if own is not None else {})
    assert not problems
    return space["x"]


def problem(written: object, own: object = None, name: str = "x") -> str:
    _, (said,) = read_space({name: written}, {name: own} if own is not None else {})
    return said


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (bool, Parameter("x", Kind.BOOLEAN, False)),
        (Boolean(default=True, doc="On."), Parameter("x", Kind.BOOLEAN, True, "On.")),
        (["b", "a"], Parameter("x", Kind.CATEGORICAL, "b", choices=("b", "a"))),
        (Literal["b", "a"], Parameter("x", Kind.CATEGORICAL, "b", choices=("b", "a"))),
        (Choice((1, "1", True)), Parameter("x", Kind.CATEGORICAL, 1, choices=(1, "1", True))),
        (range(1, 65), Parameter("x", Kind.INTEGER, 32, minimum=1, maximum=64)),
        (range(0, 101, 10), Parameter("x", Kind.INTEGER, 50, minimum=0, maximum=100, step=10)),
        ((1, 9), Parameter("x", Kind.INTEGER, 5, minimum=1, maximum=9)),
        ((0, 1.0), Parameter("x", Kind.REAL, 0.5, minimum=0, maximum=1)),
        (Integer(1, 64, log=True), Parameter("x", Kind.INTEGER, 8, minimum=1, maximum=64, scale=Scale.LOG2)),
        (Real(1e-4, 1.0, log=True), Parameter("x", Kind.REAL, 1e-2, minimum=1e-4, maximum=1, scale=Scale.LOG10)),
        (Real(1.0, 4.0, log=2, locked=True), Parameter("x", Kind.REAL, 2.0, "", True, 1.0, 4.0, Scale.LOG2)),
        (Real(0, 1, step=0.3), Parameter("x", Kind.REAL, 0.3, minimum=0, maximum=1, step=0.3)),
        (Text("[SL]+", default="SSSL"), Parameter("x", Kind.TEXT, "SSSL", pattern="[SL]+")),
        (Numbers(0, 1, length=2), Parameter("x", Kind.LIST, (0.5, 0.5), minimum=0, maximum=1, length=2)),
        (Source(default="def f(): pass"), Parameter("x", Kind.SOURCE, "def f(): pass", max_length=65_536)),
    ],
    ids=str,
)
def test_a_dimension_becomes_a_parameter(written: object, expected: Parameter) -> None:
    assert read(written) == expected


def test_the_functions_own_default_counts() -> None:
    assert read(Integer(1, 64), 4).default == 4
    assert read(["a", "b"], "b").default == "b"
    assert read(Numbers(0.0, 1.0, length=2), [0.8, 0.95]).default == (0.8, 0.95)
    assert read((0.0, 1.0), 1).default == 1.0


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (int, "integer values need a range: write Integer(low, high)"),
        (float, "write Real(low, high)"),
        (str, "write Text(default=…)"),
        ((1, 2, 3), "a tuple is a range (low, high)"),
        ("a", "'a' is no dimension: write Integer"),
        (dict, "dict is no dimension"),
        (Integer(1, 64, default=128), "the default must be an integer from 1 to 64; got 128: change one of them"),
        (Integer(9, 1), "low must be below high"),
        (Integer(0.5, 2), "use Real(…)"),  # type: ignore[arg-type]
        (Integer(0, 8, log=True), "begins above 0; got 0: raise low or drop log"),
        (Real(1, 8, log=True, step=0.5), "drop one of log and step"),
        (Real(1, 8, log=3), "log must be True, False, 2 or 10; got 3"),  # type: ignore[arg-type]
        (Real(0, float("inf")), "must be finite"),
        (Real(0, 1, step=0), "step must be above 0"),
        (range(5, 0, -1), "must count upwards"),
        ([], "list at least one"),
        (["a", "a"], "lists a choice twice"),
        (["a", None], "got None: give it a name"),
        (Text(), "has no default: give default=…"),
        (Text("(", default="x"), "must be a regular expression"),
        (Numbers(0, 1), "has no default"),
        (Source(default="x", defines="def f(x)"), "as in 'priority(item, bins)'; got 'def f(x)'"),
        (Source(default="x", defines="_f(x)"), "got '_f(x)'"),
    ],
    ids=str,
)
def test_a_mistake_is_told_with_what_to_do(written: object, words: str) -> None:
    assert words in problem(written)
    assert problem(written).startswith("space['x']: ")


def test_a_source_that_must_define_a_function_says_so_to_who_proposes() -> None:
    parameter = read(Source(default="x", defines="f(x,  y)", doc="What it is for."))
    assert parameter.documentation.startswith(
        "What it is for. Python source that defines `def f(x,  y)`; it may import"
    )


def test_defaults_that_disagree_and_names_that_cannot_be_arguments_are_mistakes() -> None:
    assert "two defaults, 4 here and 8 in the function" in problem(Integer(1, 64, default=4), 8)
    assert "the default must be true or false; got 3" in problem(bool, 3)
    for name in ("-O3", "class", "2nd", "a" * 64):
        assert "must be a Python identifier" in problem(bool, name=name)
    assert "choose another one" in problem(bool, name="context")
    assert read_space({}, {})[1] == ["the space is empty: name at least one parameter"]


@given(st.integers(-1000, 1000), st.integers(1, 1000), st.integers(1, 50))
def test_every_integer_range_has_a_default_that_it_allows(low: int, width: int, step: int) -> None:
    assert (read(Integer(low, low + width, step=step)).default - low) % step == 0  # type: ignore[operator]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.none() | st.floats(1e-3, 1e3))
def test_every_real_range_has_a_default_that_it_allows(low: float, width: float, step: float | None) -> None:
    assert low <= read(Real(low, low + width, step=step)).default <= low + width  # type: ignore[operator]


def test_optunas_distributions_are_dimensions() -> None:
    distributions = pytest.importorskip("optuna").distributions
    space, problems = read_space(
        {
            "depth": distributions.IntDistribution(2, 32, log=True),
            "width": distributions.IntDistribution(8, 64, step=8),
            "rate": distributions.FloatDistribution(1e-5, 1e-1, log=True),
            "share": distributions.FloatDistribution(0.0, 1.0, step=0.25),
            "solver": distributions.CategoricalDistribution(["lbfgs", "saga"]),
        },
        {"solver": "saga"},
    )
    assert not problems
    assert [p.kind for p in space.parameters] == [Kind.INTEGER] * 2 + [Kind.REAL] * 2 + [Kind.CATEGORICAL]
    assert [p.scale for p in space.parameters[:4]] == [Scale.LOG2, Scale.LINEAR, Scale.LOG10, Scale.LINEAR]
    assert [p.step for p in space.parameters] == [None, 8.0, None, 0.25, None]
    assert space.defaults() == {"depth": 8, "width": 32, "rate": pytest.approx(1e-3), "share": 0.5, "solver": "saga"}
    assert "got None: give it a name" in problem(distributions.CategoricalDistribution(["a", None]))


def test_a_distribution_that_no_parameter_can_express_is_named() -> None:
    strange: Any = type("DiscreteDistribution", (), {"__module__": "optuna.distributions"})()
    assert "DiscreteDistribution is not read: use FloatDistribution" in problem(strange)


def test_every_mistake_of_a_definition_is_told_at_once() -> None:
    with pytest.raises(InvalidTask) as caught:

        @task(
            metric="",
            goal="minimise",
            name="Latency!",
            space={"threads": int, "level": ["a"], "depth": range(4)},
            capacity=0,
            budget=-1,
            hard_limit=float("nan"),
            cleanup_seconds=-1,
            sources=["absent.c"],
        )
        def latency(threads: int, depth: int, /, extra: int) -> float:
            return 0.0

    said = str(caught.value)
    assert said.startswith("task Latency! cannot be served:")
    for words in (
        "space['threads']: integer values need a range",
        "function latency takes threads by position only",
        "function latency has no argument level: add it, or remove level from the space",
        "function latency takes extra, which is not in the space",
        "name must be lower-case letters",
        "metric must not be empty",
        "goal must be minimize or maximize; got 'minimise'",
        "budget must be above 0; got -1",
        "hard_limit must be above 0; got nan",
        "cleanup_seconds must be 0 or more",
        "capacity must be a whole number of at least 1; got 0",
        "absent.c does not exist",
    ):
        assert words in said


def test_a_check_must_look_at_parameters_and_say_what_is_allowed() -> None:
    @task(metric="x", goal="minimize", space={"x": range(3)})
    def quick(x: int) -> float:
        return float(x)

    with pytest.raises(InvalidTask, match="takes y, which is not in the space") as caught:

        @quick.check
        def other(y: int) -> bool:
            return y > 0

    assert "check other has no docstring" in str(caught.value)
    with pytest.raises(InvalidTask, match="at least one"):
        quick.check(lambda **_: True)


def test_a_task_is_still_its_function() -> None:
    @task(metric="x", goal="maximize", space={"x": range(3)}, name="renamed")
    def scaled(x: int, factor: int = 2, **_: object) -> float:
        """Title here.

        More below.
        """
        return float(x * factor)

    assert scaled(3) == 6.0
    assert (scaled.name, scaled.title) == ("renamed", "Title here.")
    assert scaled.documentation == "Title here.\n\nMore below."
    assert parse_value(scaled.space["x"], "2") == 2
