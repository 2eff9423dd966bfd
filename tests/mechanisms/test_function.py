"""A plain function in the sandbox: refused with a reason, called with a deadline, every answer judged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

from mechanisms.sandbox.failures import FailureKind, SourceRejected
from mechanisms.sandbox.function import FunctionFailure, SandboxedFunction, Signature, check_function
from mechanisms.sandbox.limits import SandboxLimits

PRIORITY = Signature("priority", ("item", "bins"))
BEST_FIT = '''
import math

def _slack(space, item):
    return space - item

def priority(item, bins):
    """Best fit: the fullest bin that the item fits into."""
    return [-_slack(space, item) for space in bins]
'''


def numbers(answer: Any) -> list[float]:
    if type(answer) is not list:
        raise TypeError("must return a list of numbers")
    return answer


async def called(source: str, *arguments: Any, limits: SandboxLimits | None = None) -> Any:
    async with await SandboxedFunction.start(source, PRIORITY, limits=limits or SandboxLimits()) as function:
        return await function.call(*arguments, judge=numbers)


async def test_a_function_is_called_with_the_arguments_it_is_given() -> None:
    async with await SandboxedFunction.start(BEST_FIT, PRIORITY) as function:
        assert function.summary == "Best fit: the fullest bin that the item fits into."
        assert await function.call(3, [5, 4], judge=numbers) == [-2, -1]
        assert await function.call(1, [1], judge=numbers) == [0]
        assert "rlimits" in function.layers
        assert function.seconds > 0


REJECTED = {
    "empty": ("  ", "the source is empty"),
    "no function": ("def prioritise(item, bins):\n    return bins", "rename prioritise to priority"),
    "wrong arguments": ("def priority(bins, item):\n    return bins", "write def priority(item, bins)"),
    "one argument too many": ("def priority(item, bins, more):\n    return bins", "write def priority(item, bins)"),
    "async": ("async def priority(item, bins):\n    return bins", "async"),
    "twice": ("def priority(item, bins):\n    return 1\n" * 2, "a second function priority"),
    "no Python": ("def priority(item bins)", "not valid Python"),
    "imports what it must not": ("import os\ndef priority(item, bins):\n    return os.getcwd()", "os"),
    "walks to the interpreter": ("def priority(item, bins):\n    return item.__class__.__mro__", "__class__"),
    "too long": ("#" + "x" * 70_000, "bytes; at most"),
}


@pytest.mark.parametrize(("source", "says"), REJECTED.values(), ids=REJECTED)
async def test_a_source_that_is_no_such_function_is_refused_with_a_reason(source: str, says: str) -> None:
    findings = await check_function(source, PRIORITY)
    assert says in " ".join(finding.render() for finding in findings)
    with pytest.raises((SourceRejected, FunctionFailure)):
        await SandboxedFunction.start(source, PRIORITY)


async def test_arguments_of_its_own_with_defaults_are_its_own_business() -> None:
    source = "def priority(item, bins, weight=2, *, power=1):\n    return [weight * item ** power for _ in bins]"
    assert await check_function(source, PRIORITY) == ()
    assert await called(source, 3, [1, 1]) == [6, 6]


FAILING = {
    "raises": ("return [1 / 0]", FailureKind.RAISED, "ZeroDivisionError"),
    "returns the wrong type": ("return 'first'", FailureKind.WRONG_TYPE, "a list of numbers"),
    "returns NaN": ("return [float('nan')]", FailureKind.OUT_OF_RANGE, "finite"),
    "returns a function": ("return [len]", FailureKind.WRONG_TYPE, "use None, bool"),
    "returns itself": ("bins.append(bins)\n    return bins", FailureKind.WRONG_TYPE, "contains itself"),
    "never ends": ("while True:\n        pass", FailureKind.TIMED_OUT, "no answer within 0.5 s"),
    "takes all memory": ("return [0] * 10**10", FailureKind.RAISED, "MemoryError"),
}


@pytest.mark.parametrize(("body", "kind", "says"), FAILING.values(), ids=FAILING)
async def test_a_call_that_fails_has_a_kind_and_leaves_no_process(body: str, kind: FailureKind, says: str) -> None:
    source, before = f"def priority(item, bins):\n    {body}", len(psutil.Process().children())
    limits = SandboxLimits(call_seconds=0.5)
    with pytest.raises(FunctionFailure) as caught:
        await called(source, 1, [1], limits=limits)
    assert caught.value.kind is kind
    assert says in str(caught.value)
    assert len(psutil.Process().children()) == before
    if kind is FailureKind.RAISED:
        assert caught.value.line == 2


async def test_a_body_that_fails_is_its_own_failure() -> None:
    with pytest.raises(FunctionFailure, match="IndexError"):
        await SandboxedFunction.start("x = [][1]\ndef priority(item, bins):\n    return bins", PRIORITY)


async def test_all_calls_together_have_a_budget() -> None:
    source = "def priority(item, bins):\n    return [sum(range(3_000_000))]"
    limits = SandboxLimits(budget_seconds=0.2, call_seconds=30.0)
    async with await SandboxedFunction.start(source, PRIORITY, limits=limits) as function:

        async def many() -> None:
            for _ in range(1000):
                await function.call(1, [1], judge=numbers)

        with pytest.raises(FunctionFailure) as caught:
            await many()
    assert caught.value.kind is FailureKind.BUDGET_EXHAUSTED


async def seeded(seed: int) -> AsyncIterator[float]:
    source = "import random\ndef priority(item, bins):\n    return [random.random() for _ in bins]"
    async with await SandboxedFunction.start(source, PRIORITY, seed=seed) as function:
        for _ in range(3):
            yield (await function.call(1, [1], judge=numbers))[0]


async def test_its_random_numbers_follow_the_seed() -> None:
    first, again, other = [[number async for number in seeded(seed)] for seed in (1, 1, 2)]
    assert first == again != other
