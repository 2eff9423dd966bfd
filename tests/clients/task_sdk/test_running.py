"""What the author's function returns or raises, and the ending that it means."""

from __future__ import annotations

from fractions import Fraction
from types import ModuleType

import numpy
import pytest

from clients.task_sdk import Context, Result
from clients.task_sdk.evaluation import Ending, Progress, Request
from clients.task_sdk.running import WrongReturn, measured, run
from service_kit.parameters import Outcome


def ending(samples: ModuleType, how: str) -> Ending:
    configuration = samples.endings.space.validate({"how": how})
    return run(samples.endings, Request(configuration), Context())


@pytest.mark.parametrize(
    ("how", "outcome", "words"),
    [
        (
            "text",
            Outcome.CRASHED,
            "endings returned str '12 ms': return the metric latency_ms as one number, or ",
        ),
        ("truth", Outcome.CRASHED, "endings returned bool True"),
        ("noted", Outcome.CRASHED, "a side metric 'name' that is no number: put it into Result.identity"),
        ("infinity", Outcome.DIVERGED, "the loss exploded at step 7"),
        (
            "huge",
            Outcome.DIVERGED,
            "endings returned inf as latency_ms: a configuration that cannot be measured should",
        ),
        ("library", Outcome.CRASHED, "ValueError: invalid literal for int() with base 10: '1twelve2' (sample_tasks.py"),
        ("exit", Outcome.CRASHED, "called sys.exit(3) (sample_tasks.py, line"),
        ("backwards", Outcome.CRASHED, "fraction must be from 0 to 1; got 1.5 (sample_tasks.py, line"),
    ],
)
def test_a_mistake_is_an_outcome_with_a_message_for_its_author(
    samples: ModuleType, how: str, outcome: Outcome, words: str
) -> None:
    ended = ending(samples, how)
    assert (ended.outcome, ended.metric) == (outcome, None)
    assert words in ended.message


def test_the_line_that_is_named_is_the_authors_own(samples: ModuleType) -> None:
    lines = samples.endings.file.read_text().splitlines()
    number = 1 + next(i for i, line in enumerate(lines) if "threads do not fit" in line)
    assert ending(samples, "raise").message == (
        f"ValueError: threads do not fit the socket (sample_tasks.py, line {number}, in endings)"
    )


@pytest.mark.parametrize("value", [2, 2.0, Fraction(2), numpy.float32(2), numpy.int64(2), numpy.array(2.0)], ids=repr)
def test_every_kind_of_real_number_is_a_metric(samples: ModuleType, value: object) -> None:
    assert measured(samples.endings, value) == Ending(Outcome.SUCCEEDED, 2.0)
    assert measured(samples.endings, Result(value)).metric == 2.0  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [numpy.bool_(True), numpy.array([2.0]), (2.0, {}), {"metric": 2.0}, 2j], ids=repr)
def test_what_is_no_single_number_is_refused(samples: ModuleType, value: object) -> None:
    with pytest.raises(WrongReturn, match="return the metric latency_ms as one number"):
        measured(samples.endings, value)


def test_a_result_that_diverged_keeps_its_side_metrics(samples: ModuleType) -> None:
    assert ending(samples, "infinity").side_metrics == {"step": 7.0}


def test_reports_between_two_that_are_passed_on_are_left_out() -> None:
    heard: list[Progress] = []
    context = Context(listener=heard.append)
    for step in range(1000):
        context.report(step / 1000, step=step, loss=float("inf"), rate=0.5)
    assert heard[0] == Progress(0.0, 0, "", {"rate": 0.5})
    assert len(heard) <= 1 + 10 * (context.elapsed + 1)
