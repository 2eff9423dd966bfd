"""Which answer a purpose gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clients.scripted_researcher import analyst, lessons, prior, procedures, research, writing
from clients.scripted_researcher.state import BadRequest, SearchState

_FOR_TASKS: Mapping[str, Callable[[Sequence[Mapping[str, str]]], dict[str, Any]]] = {
    "write": writing.write,
    "judge": writing.judge,
}
"""Questions of tasks, which know nothing of a search."""

_ANSWERS: Mapping[str, Callable[[SearchState, Sequence[Mapping[str, str]]], dict[str, Any]]] = {
    "propose": lambda state, _: prior.propose(state),
    "lessons": lambda state, _: lessons.lessons(state),
    "analyse": lambda state, _: analyst.analyse(state),
    "explore": research.explore,
    "critique": research.critique,
    "specify": research.specify,
    "generate": research.generate,
    "repair": research.repair,
    "procedure": lambda state, messages: procedures.propose(messages),
}

PURPOSES = (*_ANSWERS, *_FOR_TASKS)
"""Values of the X-Bilevel-Purpose header that are answered."""


def answer(purpose: str, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The answer to ``messages``, computed from nothing else. Raises :class:`BadRequest`."""
    if purpose in _FOR_TASKS:
        return _FOR_TASKS[purpose](messages)
    if purpose not in _ANSWERS:
        wanted = f"the header X-Bilevel-Purpose must be one of {', '.join(PURPOSES)}; got {purpose or 'none'!r}"
        raise BadRequest(wanted, "X-Bilevel-Purpose")
    return _ANSWERS[purpose](SearchState.read(messages), messages)
