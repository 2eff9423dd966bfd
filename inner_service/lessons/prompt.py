"""What a model is shown when it is to draw lessons from a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inner_service.lessons.draft import MOST_WRITTEN
from inner_service.lessons.lesson import Lesson
from inner_service.run import Search
from inner_service.search_state import Briefing, render, search_state
from mechanisms.tallies import Incumbents, directions, tallies
from service_kit.llm.failures import Message
from service_kit.llm.prompts import Detail, fitting, shortened


def lessons_prompt(search: Search, known: Sequence[Lesson], limit: int = 0) -> tuple[Message, ...]:
    """The messages that ask for lessons; ``known`` ones are shown so that they are not written again.

    At most ``limit`` estimated tokens, 0 is no limit; what is left out is named. Raises :class:`ModelError` when even
    the shortest prompt is longer.
    """
    state = search_state(search, Briefing({}, (), 0))
    decided = search.decided()
    incumbents, counts = Incumbents(decided), tallies(decided, search.run.task.objective)
    moved = {trial.number: directions(trial, incumbents) for trial in (trial.record for trial in search.trials)}
    complete = [{**shown, "directions": moved[shown["number"]]} for shown in state["trials"]]

    def build(detail: Detail) -> tuple[Message, ...]:
        trials, left_out = shortened(complete, detail)
        values: dict[str, Any] = {
            "run": search.run,
            "task": search.run.task,
            "known": known,
            "most": MOST_WRITTEN,
            "state": json.dumps({**state, "trials": trials}, ensure_ascii=False, separators=(",", ":")),
            "left_out": left_out,
            "tallies": counts,
        }
        return Message("system", render("lessons_system.j2", values)), Message("user", render("lessons.j2", values))

    return fitting(build, limit)
