"""Source code as a parameter: what it must define, whether it does, and calling it in the sandbox of mechanisms.

The same language, gate and jail as for generated search mechanisms (docs/security.md); it needs the extra
``mechanisms``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from clients.task_sdk.evaluation import Infeasible
from clients.task_sdk.problems import Problem
from service_kit.parameters import Violation

if TYPE_CHECKING:
    from mechanisms.sandbox.function import SandboxedFunction, Signature

_SIGNATURE = re.compile(r"([A-Za-z]\w*)\(([A-Za-z]\w*(?:, *[A-Za-z]\w*)*)?\)", re.ASCII)


def parts_of(defines: str) -> tuple[str, tuple[str, ...]]:
    """Name and arguments of ``name(first, second)``. Raises :class:`Problem`."""
    found = _SIGNATURE.fullmatch(defines)
    if found is None:
        raise Problem(f"defines must be a function with its arguments, as in 'priority(item, bins)'; got {defines!r}")
    return found[1], tuple(argument.strip() for argument in (found[2] or "").split(",") if argument.strip())


def source_violations(parameter: str, source: str, defines: str) -> list[Violation]:
    """What keeps ``source`` from being called as ``defines``; each says what to write instead.

    Runs a jailed process, so it must not be called on an event loop's own thread.
    """
    from mechanisms.sandbox.function import check_function

    findings = asyncio.run(check_function(source, _signature(defines)))
    return [Violation(parameter, finding.render()) for finding in findings]


@asynccontextmanager
async def sandboxed(
    source: str, defines: str, *, seed: int = 0, call_seconds: float = 1.0, budget_seconds: float = 60.0
) -> AsyncIterator[SandboxedFunction]:
    """The function that ``source`` defines, in a jailed process for the length of the block.

    ``await function.call(*arguments, judge=…)`` calls it with JSON's types; ``judge`` reads the answer, or raises
    TypeError or ValueError with what it must be. Whatever the function does wrong is :class:`Infeasible` with the
    reason.

    Args:
        source: The parameter's value.
        defines: The function that it must define, as in ``priority(item, bins)``.
        seed: Seeds ``random`` in there.
        call_seconds: Time for one call.
        budget_seconds: Time for all calls together.
    """
    from mechanisms.sandbox.failures import SourceRejected
    from mechanisms.sandbox.function import FunctionFailure, SandboxedFunction
    from mechanisms.sandbox.limits import SandboxLimits

    limits = SandboxLimits(call_seconds=call_seconds, budget_seconds=budget_seconds)
    try:
        async with await SandboxedFunction.start(source, _signature(defines), seed=seed, limits=limits) as function:
            yield function
    except SourceRejected as rejected:
        raise Infeasible(str(rejected)) from None
    except FunctionFailure as failure:
        raise Infeasible(str(failure)) from None


def _signature(defines: str) -> Signature:
    from mechanisms.sandbox.function import Signature

    return Signature(*parts_of(defines))
