"""The process that carries out trials, one after the other: ``python -m gpt_trainer.worker SETTINGS``.

It is started once, imports torch and opens the data, then reads one request a line from standard input and answers with
events, one JSON object a line:

    {"event": "ready", "hardware": ..., "precision": ..., "on_cpu": true}
    {"event": "progress", ...fields of trial.Progress}
    {"event": "result", "result": {...fields of trial.TrialResult}, "retire": false, "span": [...], "pid": ...}

A request's ``context`` names what the trial belongs to, on every line of the log; ``span`` is when its work began and
ended, in nanoseconds since 1970, for the parent's trace. ``retire`` asks the parent for a fresh process: after refused
memory, a bug or growth. The parent kills the process to cancel a trial; there is nothing to clean up.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import structlog

from gpt_trainer.dataset import Dataset, prepare
from gpt_trainer.device import Device, Precision, open_device
from gpt_trainer.execution import execute
from gpt_trainer.presets import Preset, find_preset
from gpt_trainer.trial import Progress, TrialRequest, TrialResult
from service_kit import context, logs
from service_kit.memory import limit_memory
from service_kit.parameters import Outcome

_STATUS = Path("/proc/self/status")

log = structlog.get_logger("gpt_trainer.worker")


def main(argument: str) -> None:
    """Serve requests until standard input ends."""
    settings = json.loads(argument)
    logs.configure("gpt_trainer.worker")
    events = _private_stdout()
    preset, cache = find_preset(settings["preset"]), Path(settings["cache"])
    dataset = Dataset.open(Path(settings["dataset"])) if settings["dataset"] else prepare(preset, cache)
    device = open_device(settings["device"], settings["threads"], Precision(settings["precision"]), cache)
    if settings["memory_limit_mb"] is not None:
        limit_memory(settings["memory_limit_mb"])
    threads = f", {settings['threads']} thread{'s' if settings['threads'] > 1 else ''}" if device.is_cpu else ""
    precision = str(device.compute).removeprefix("torch.")
    ready = {"hardware": f"{device.name}{threads}", "precision": precision, "on_cpu": device.is_cpu}
    gc.collect()
    gc.freeze()  # torch is half a million objects: looking through them before every trial would take 0.1 s
    _send(events, {"event": "ready", **ready})
    held_after_first: float | None = None
    for line in sys.stdin:
        data, began = json.loads(line), time.time_ns()
        with context.bound(**data["context"]):
            result, broken = _attempt(preset, dataset, device, TrialRequest.from_json(data), events)
        held = _resident_mb()
        held_after_first = held if held_after_first is None else held_after_first
        retire = broken or result.outcome is Outcome.OUT_OF_MEMORY or held > held_after_first + settings["growth_mb"]
        took = {"span": [began, time.time_ns()], "pid": os.getpid()}
        _send(events, {"event": "result", "result": asdict(result), "retire": retire, **took})


def _attempt(
    preset: Preset, dataset: Dataset, device: Device, request: TrialRequest, events: TextIO
) -> tuple[TrialResult, bool]:
    """The result of one request, and whether a bug was met on the way."""

    def report(progress: Progress) -> None:
        _send(events, {"event": "progress", **asdict(progress)})

    log.debug("training", seed=request.seed, split=request.split.value)
    try:
        result = execute(preset, dataset, device, request, report)
    except Exception as error:
        # The boundary: a bug ends the trial and this process, not the server.
        log.exception("the training failed")
        return TrialResult(Outcome.CRASHED, message=f"{type(error).__name__}: {error}"), True
    log.info("trained", outcome=result.outcome.value)
    return result, False


def _private_stdout() -> TextIO:
    """The pipe to the parent, under a descriptor of its own: whatever prints to standard output goes to the log."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "w", encoding="utf-8")


def _send(events: TextIO, event: Mapping[str, Any]) -> None:
    events.write(json.dumps(event) + "\n")
    events.flush()


def _resident_mb() -> float:
    if not _STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    status = _STATUS.read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 2**10


if __name__ == "__main__":
    main(sys.argv[1])
