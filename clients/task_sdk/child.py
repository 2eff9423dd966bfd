"""The process in which an evaluation runs. Its parent sends one request a line and reads one event a line:

    {"event": "progress", ...fields of evaluation.Progress}
    {"event": "ended", "ending": {...fields of evaluation.Ending}, "reusable": true}

It owns nothing worth saving: its parent kills it to cancel an evaluation. Standard output of the author's code goes to
standard error; standard input is empty.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from clients.task_sdk.definition import Task
from clients.task_sdk.evaluation import Cancelled, Context, Ending, Progress, Request
from clients.task_sdk.location import Location
from clients.task_sdk.problems import InvalidTask
from clients.task_sdk.running import crashed, run
from service_kit.memory import limit_memory
from service_kit.parameters import Outcome

_REUSABLE = (Outcome.SUCCEEDED, Outcome.INFEASIBLE, Outcome.DIVERGED)


def main(location: Location) -> None:
    """Answer requests until standard input ends, or SIGTERM."""
    faulthandler.enable()
    signal.signal(signal.SIGTERM, _end)
    requests, events = _private_streams()
    sys.argv[:] = [location.file]
    with contextlib.suppress(Cancelled):
        _serve(location, requests, events)


def _serve(location: Location, requests: TextIO, events: TextIO) -> None:
    loaded: Task | Ending | None = None
    for line in requests:
        request = Request.from_json(json.loads(line))
        if loaded is None:  # not before: whatever goes wrong in the import is then part of an evaluation
            loaded = _load(location)
        ending = loaded if isinstance(loaded, Ending) else _evaluate(loaded, request, events)
        reusable = ending.outcome in _REUSABLE
        _send(events, {"event": "ended", "ending": asdict(ending), "reusable": reusable})


def _evaluate(task: Task, request: Request, events: TextIO) -> Ending:
    with tempfile.TemporaryDirectory(prefix="evaluation-") as folder:
        context = Context(
            request.seed,
            split=request.split,
            budget_fraction=request.budget_fraction,
            budget_seconds=task.conduct.budget * request.budget_fraction,
            label=request.label,
            folder=Path(folder),
            listener=lambda progress: _tell(events, progress),
        )
        return run(task, request, context)


def _load(location: Location) -> Task | Ending:
    """The author's task, or the ending that its import means."""
    try:
        task = location.load()
        if task.conduct.memory_mb is not None:
            limit_memory(task.conduct.memory_mb)
        return task
    except Cancelled:
        raise
    except InvalidTask as error:
        return Ending(Outcome.CRASHED, message=" ".join(error.problems))
    except MemoryError:
        return Ending(Outcome.OUT_OF_MEMORY, message="the system refused memory while the task was imported")
    except BaseException as error:  # noqa: BLE001 (the boundary to the author's module)
        traceback.print_exc()
        return crashed(error, Path(location.file))


def _private_streams() -> tuple[TextIO, TextIO]:
    """The parent's pipes under descriptors of their own, which processes that the author starts do not inherit."""
    requests, events = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return os.fdopen(requests, encoding="utf-8"), os.fdopen(events, "w", encoding="utf-8")


def _tell(events: TextIO, progress: Progress) -> None:
    _send(events, {"event": "progress", **asdict(progress)})


def _send(events: TextIO, event: Mapping[str, Any]) -> None:
    events.write(json.dumps(event) + "\n")
    events.flush()


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Cancelled
