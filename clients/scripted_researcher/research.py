"""``explore``, ``critique``, ``specify``, ``generate`` and ``repair``: level 2 from templates.

The failure that the trace shows decides which mechanism comes next. Nothing is invented here; every answer says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from clients.scripted_researcher.catalogue import IDEAS, Idea, idea
from clients.scripted_researcher.diagnosis import Observation, observations, since_gain
from clients.scripted_researcher.state import Offered, SearchState

Messages = Sequence[Mapping[str, str]]

INERT = re.compile(r"rejected at stage effect", re.IGNORECASE)
"""What the gate's report says of a mechanism that would have changed nothing."""


def explore(state: SearchState, _: Messages) -> dict[str, Any]:
    """What holds the search back, and mechanisms that answer it."""
    seen = observations(state)
    bottleneck = seen[0].failure.value if seen else "none"
    evidence = "; ".join(o.evidence for o in seen) or f"the newest gain is {since_gain(state)} trials old"
    listed = [
        {"name": one.name, "field": one.borrowed_from, "idea": one.idea, "hooks": list(one.hooks)}
        for one in _fitting(state, seen) or IDEAS[:1]
    ]
    return {"bottleneck": f"scripted: {bottleneck}", "evidence": evidence, "candidates": listed}


def critique(state: SearchState, messages: Messages) -> dict[str, Any]:
    """A choice among the fitting mechanisms that were not installed before, or none.

    Where an earlier search left the fitting one in the library, that one is tried again in place of writing it anew,
    whatever its record: what is hopeless is offered no more. So is, where something is wrong and no template fits, the
    first one of the library that stayed and was not installed in this run.
    """
    chosen = _choose(state)
    named = _answer(messages, "candidates") or []
    names = [entry["name"] for entry in named] or [one.name for one in IDEAS]
    known = [one for name in names if (one := idea(name)) is not None]
    assessments = [{"name": one.name, "merit": one.merit, "risk": one.risk} for one in known]
    if chosen is None and observations(state) and (again := _stayed(state)) is not None:
        reason = f"scripted: no template answers what the trace shows; {again.choice} {again.record}"
        return {"assessments": assessments, "choice": again.choice, "reason": reason}
    if chosen is None:
        used = ", ".join(sorted(_used(state))) or "none"
        reason = f"scripted: no template answers what the trace shows; installed before: {used}"
        return {"assessments": assessments, "choice": "none", "reason": reason}
    seen = {observation.failure: observation.evidence for observation in observations(state)}
    reason = f"scripted: {seen[chosen.answers]}"
    known_one = next((offer for offer in state.library if offer.name == chosen.name and offer.tried_before), None)
    if known_one is not None:
        reason += f"; {known_one.choice} answers it and {known_one.record}"
    choice = chosen.name if known_one is None else known_one.choice
    return {"assessments": assessments, "choice": choice, "reason": reason}


def specify(state: SearchState, messages: Messages) -> dict[str, Any]:
    """The chosen mechanism's exact behaviour."""
    one = _chosen(state, messages)
    numbers = ", ".join(f"{name} = {value}" for name, value in one.settings.items())
    return {
        "name": one.name,
        "summary": f"{one.name} (scripted template): {one.idea}",
        "hooks": list(one.hooks),
        "state": one.state,
        "behaviour": one.idea,
        "parameters": numbers,
    }


def generate(state: SearchState, messages: Messages) -> dict[str, Any]:
    """The chosen mechanism's source."""
    one = _chosen(state, messages)
    return {"mechanism_id": one.name, "source": one.source(state)}


def repair(state: SearchState, messages: Messages) -> dict[str, Any]:
    """Another form of the rejected mechanism: one that acts earlier where the report says inert, else a simpler one.

    When the mechanism has no simpler form left, the next fitting one that this dialogue has not written takes its
    place. When none fits, the same source comes back for the gate to refuse: what this run had already, or what
    answers nothing in its trace, is no repair.
    """
    one = _chosen(state, messages)
    written = [answer.get("mechanism_id") for answer in _answers(messages) if "source" in answer]
    attempts = written.count(one.name)
    report = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    if INERT.search(report) and len(written) == 1:
        return {"mechanism_id": one.name, "source": one.source(state, relaxed=True)}
    if attempts < len(one.templates):
        return {"mechanism_id": one.name, "source": one.source(state, form=attempts, relaxed=True)}
    others = [other for other in _fitting(state, observations(state)) if other.name not in written]
    if not others:
        return {"mechanism_id": one.name, "source": one.source(state, form=-1, relaxed=True)}
    return {"mechanism_id": others[0].name, "source": others[0].source(state, relaxed=True)}


def _fitting(state: SearchState, seen: Sequence[Observation]) -> list[Idea]:
    """Ideas that answer what was observed, the most telling first, without what was installed before."""
    failures = [observation.failure for observation in seen]
    used = _used(state)
    fitting = [one for one in IDEAS if one.answers in failures and one.name not in used]
    return sorted(fitting, key=lambda one: failures.index(one.answers))


def _used(state: SearchState) -> set[str]:
    """Ideas that were installed in this run, whatever became of them; names may carry a number."""
    return {one.name for one in IDEAS if one.name in _names(state)}


def _stayed(state: SearchState) -> Offered | None:
    """What the library offers that stayed in an earlier search and was not installed in this run."""
    names = _names(state)
    return next((offer for offer in state.library if offer.kept and offer.name not in names), None)


def _names(state: SearchState) -> set[str]:
    return {re.sub(r"-\d+$", "", mechanism.name.rsplit("/", 1)[-1]) for mechanism in state.mechanisms}


def _choose(state: SearchState) -> Idea | None:
    fitting = _fitting(state, observations(state))
    return fitting[0] if fitting else None


def _chosen(state: SearchState, messages: Messages) -> Idea:
    """What the dialogue has settled on; without a dialogue, what the trace suggests."""
    for key in ("mechanism_id", "choice"):
        said = str(_answer(messages, key))
        one = idea(next((offer.name for offer in state.library if offer.choice == said), said))
        if one is not None:
            return one
    return _choose(state) or IDEAS[0]


def _answer(messages: Messages, key: str) -> Any:
    """The newest value of ``key`` in the dialogue's own answers, or None."""
    return next((answer[key] for answer in reversed(_answers(messages)) if key in answer), None)


def _answers(messages: Messages) -> list[dict[str, Any]]:
    """The dialogue's own answers that are JSON objects, in their order."""
    found = []
    for message in messages:
        if message["role"] != "assistant":
            continue
        try:
            answer = json.loads(message["content"])
        except ValueError:
            continue
        if isinstance(answer, dict):
            found.append(answer)
    return found
