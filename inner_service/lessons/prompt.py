"""What a model is shown when it is to draw lessons from a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inner_service.lessons.draft import MOST_WRITTEN
from inner_service.lessons.lesson import Lesson
from inner_service.run import Search, Trial
from inner_service.search_state import Briefing, render, search_state
from service_kit.llm.failures import Message
from service_kit.parameters import Value


def lessons_prompt(search: Search, known: Sequence[Lesson]) -> tuple[Message, ...]:
    """The messages that ask for lessons; ``known`` ones are shown so that they are not written again."""
    state = search_state(search, Briefing({}, (), 0))
    trials = {trial.number: trial for trial in search.trials}
    for shown in state["trials"]:
        shown["directions"] = directions(search, trials[shown["number"]])
    text = json.dumps(state, ensure_ascii=False, separators=(",", ":"))
    values = {"run": search.run, "task": search.run.task, "known": known, "most": MOST_WRITTEN, "state": text}
    return Message("system", render("lessons_system.j2", values)), Message("user", render("lessons.j2", values))


def directions(search: Search, trial: Trial) -> dict[str, str]:
    """Which way each changed parameter was moved from the incumbent of that time: increase, decrease or change."""
    before = [
        search.trials[number]
        for number in search.decisions
        if search.trials[number].metric == trial.incumbent_metric and number < trial.number
    ]
    base: dict[str, Any] = dict(before[-1].configuration) if before else search.start
    return {name: _direction(base.get(name), value) for name, value in trial.changes.items()}


def _direction(old: Value | None, new: Value) -> str:
    before, after = _size(old), _size(new)
    if before is None or after is None or before == after:
        return "change"
    return "increase" if after > before else "decrease"


def _size(value: Value | None) -> float | None:
    """A number to compare by, the sum of a list; None for what has no order."""
    if isinstance(value, tuple):
        return sum(element for element in value if isinstance(element, int | float))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
