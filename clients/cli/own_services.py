"""What a command starts on this machine by itself: the services, a trainer or tasks that run already, a budget."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from clients.local_stack import StackSettings
from clients.searching import SearchPlan
from service_kit.errors import InvalidArgument


def check_budget(text: str) -> None:
    """Raise InvalidArgument for what no preset of the trainer takes; which seconds are too many only it knows."""
    number = re.fullmatch(r"\d+(\.\d*)?|\.\d+", text) is not None
    if text not in ("short", "full", "long") and not (number and float(text) > 0):
        raise InvalidArgument.of("--budget", f"must be short, full, long or a number of seconds above 0; got {text!r}")


def stack_settings(plan: SearchPlan, tasks: list[str], budget: str, out: Path | None) -> StackSettings:
    """What --local starts: the trainer only where the plan's task is the trainer's."""
    served = served_tasks(tasks)
    if plan.task not in {"gpt", *served} and ":" not in plan.task:
        raise InvalidArgument.of(
            "--task",
            f"must be gpt, localhost:PORT of a task that runs, or one given with --serve-task; got {plan.task!r}",
        )
    folder = out or Path("bilevel-results") / f"run-{datetime.now():%Y%m%d-%H%M%S}"
    trainer = ["--budget", budget or "full"] if plan.task == "gpt" and "gpt" not in served else None
    if budget and trainer is None:
        raise InvalidArgument.of("--budget", "has no effect: it is the trainer's, and another task is searched")
    return StackSettings(folder, served, trainer, outer=bool(plan.levels))


def served_tasks(tasks: list[str]) -> dict[str, str]:
    """Addresses by name from what --serve-task was given. Raises InvalidArgument."""
    served: dict[str, str] = {}
    for text in tasks:
        name, equals, address = text.partition("=")
        if not (name and equals and address):
            raise InvalidArgument.of("--serve-task", f"must be NAME=HOST:PORT; got {text!r}")
        served[name] = address
    return served
