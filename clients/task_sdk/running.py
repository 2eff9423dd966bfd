"""Call the author's function in this process and give every way it can end its outcome."""

from __future__ import annotations

import inspect
import math
import random
import traceback
from numbers import Real as RealNumber
from pathlib import Path
from typing import Any

from clients.task_sdk.definition import Task
from clients.task_sdk.evaluation import Cancelled, Context, Ending, Infeasible, Request, Result, finite
from service_kit.parameters import Outcome

_LONGEST_MESSAGE = 2_000


class WrongReturn(TypeError):
    """The function returned something that is no metric."""


def run(task: Task, request: Request, context: Context) -> Ending:
    """Evaluate ``request``. Whatever the function does short of ending the process, there is an ending."""
    random.seed(request.seed)
    takes_context = "context" in inspect.signature(task.function).parameters
    arguments = {**request.configuration, **({"context": context} if takes_context else {})}
    try:
        returned = task.function(**arguments)
        if inspect.iscoroutine(returned):
            import asyncio  # a quarter of a process's start that only async functions pay for

            returned = asyncio.run(returned)
        return measured(task, returned)
    except Cancelled:
        raise
    except Infeasible as refusal:
        return Ending(Outcome.INFEASIBLE, message=str(refusal) or "the task gives no reason")
    except MemoryError as error:
        return Ending(Outcome.OUT_OF_MEMORY, message=where("the system refused memory", error, task.file))
    except WrongReturn as error:
        return Ending(Outcome.CRASHED, message=str(error))
    except BaseException as error:  # noqa: BLE001 (the boundary: sys.exit and Ctrl-C in author code are endings too)
        traceback.print_exc()
        return crashed(error, task.file)


def measured(task: Task, returned: object) -> Ending:
    """The ending that a returned value means. Raises :class:`WrongReturn` with what to return instead."""
    result = returned if isinstance(returned, Result) else Result(_number(task, returned))
    metric = _number(task, result.metric)
    if wrong := [name for name, number in result.side_metrics.items() if not _is_real(number)]:
        text = f"{task.name} returned a side metric {wrong[0]!r} that is no number: put it into Result.identity"
        raise WrongReturn(text)
    identity = {str(name): str(fact) for name, fact in result.identity.items()}
    if not math.isfinite(metric):
        told = result.message or (
            f"{task.name} returned {metric} as {task.objective.metric}: a configuration that cannot be measured should "
            "raise Infeasible with the reason"
        )
        return Ending(Outcome.DIVERGED, None, finite(result.side_metrics), told[:_LONGEST_MESSAGE], identity)
    message = result.message[:_LONGEST_MESSAGE]
    return Ending(Outcome.SUCCEEDED, metric, finite(result.side_metrics), message, identity)


def crashed(error: BaseException, file: Path) -> Ending:
    """The ending for an exception of the author's code in ``file``."""
    return Ending(Outcome.CRASHED, message=where(_in_a_line(error), error, file))


def where(text: str, error: BaseException, file: Path) -> str:
    """``text`` with the deepest line of the author's own file that ``error`` came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).resolve() == file]
    # An exception at import is raised below our own frames; one in a library is best shown by the author's call.
    frame = own[-1] if own else frames[-1] if frames else None
    place = f" ({Path(frame.filename).name}, line {frame.lineno}, in {frame.name})" if frame is not None else ""
    return text[: _LONGEST_MESSAGE - len(place)] + place


def _in_a_line(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the function called sys.exit({error.code!r})"
    return " ".join("".join(traceback.format_exception_only(error)).split())


def _number(task: Task, value: Any) -> float:
    """The metric as a float: Python's and NumPy's real numbers, and arrays of no dimension."""
    if _is_real(value):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if hasattr(value, "item") and getattr(value, "shape", None) == () and str(value.dtype) != "bool":
        return float(value.item())
    shown = "nothing" if value is None else f"{type(value).__name__} {value!r:.60}"
    raise WrongReturn(
        f"{task.name} returned {shown}: return the metric {task.objective.metric} as one number, or "
        "Result(metric, side_metrics={…})"
    )


def _is_real(value: object) -> bool:
    return type(value) is not bool and isinstance(value, RealNumber)
