"""What the model is shown of a search: its machine-readable state, counts by parameter and direction, the prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mechanisms.fence import fenced
from mechanisms.interface import TrialRecord
from mechanisms.tallies import Incumbents, directions, tallies
from outer_service.campaign import Offer, OpenSession
from outer_service.observed import Observation, ObservedMechanism, SearchDescription
from service_kit.llm.failures import Message
from service_kit.llm.prompts import Detail, Templates, first, fitting, shortened
from service_kit.parameters import configuration_to_json

TEMPLATES = Templates(Path(__file__).with_name("prompts"))
LESSONS_IN = ("explore", "critique")
"""Rounds that are shown what earlier runs learnt: there it is decided what to try."""


def search_state(
    observation: Observation, trials: Sequence[dict[str, Any]], offered: Sequence[Offer]
) -> dict[str, Any]:
    """The search as JSON-ready built-in types, with the ``trials`` to show and what the library offers."""
    run, space, objective = observation.run, observation.run.task.space, observation.run.task.objective
    return {
        "task": run.task.name,
        "objective": {"metric": objective.metric, "direction": objective.direction.value, "unit": objective.unit},
        "parameters": [{**p, "active": p["name"] in run.active} for p in space.to_json()["parameters"]],
        "constraints": list(space.constraints),
        "incumbent": _point(observation.trial(run.incumbent)),
        "best": _point(observation.trial(run.best)),
        "baseline_metric": run.baseline_metric,
        "trials": list(trials),
        "frozen": list(run.config.frozen),
        "strategy": run.config.strategy,
        "guidance": run.config.guidance,
        "mechanisms": [_mechanism(mechanism) for mechanism in observation.mechanisms],
        "library": [
            {"choice": o.choice, "summary": o.summary, "judged": o.judged, "kept": o.kept, "standard": o.standard}
            for o in offered
        ],
        "trials_left": run.trials_left,
    }


def prompt(
    purpose: str,
    observation: Observation,
    *,
    description: SearchDescription | None = None,
    limit: int = 0,
    said: Sequence[Message] = (),
    **more: Any,
) -> tuple[Message, ...]:
    """The system message, what was ``said`` before, and a message that shows the search and asks for ``purpose``.

    At most ``limit`` estimated tokens in all: what is left out is named in the prompt. Raises :class:`ModelError`.
    """
    session: OpenSession | None = more.get("session")
    offered = session.offered if session is not None else ()
    incumbents = Incumbents(observation.trials)
    complete = [_trial(trial, incumbents) for trial in observation.trials]
    values: Mapping[str, Any] = {
        "observation": observation,
        "run": observation.run,
        "task": observation.run.task,
        "tallies": tallies(observation.trials, observation.run.task.objective),
        "fenced": fenced,
        **more,
    }

    def build(detail: Detail) -> tuple[Message, ...]:
        trials, left_out = shortened(complete, detail)
        shown = SearchDescription()
        if description is not None:
            sources, other_sources = first(description.loop_sources, detail.sources, "files of the loop's source")
            examples, other_examples = first(description.examples, detail.examples, "examples of mechanisms")
            lessons = description.lessons[: detail.lessons]
            shown = replace(description, loop_sources=tuple(sources), examples=tuple(examples), lessons=lessons)
            left_out += other_sources + (other_examples if purpose == "generate" else [])
            known = len(description.lessons)
            if purpose in LESSONS_IN and len(lessons) < known:
                left_out.append(f"{known - len(lessons)} of {known} lessons of earlier runs: the less relevant ones")
        state = json.dumps(search_state(observation, trials, offered), ensure_ascii=False, separators=(",", ":"))
        filled = {**values, "description": shown, "state": state, "left_out": left_out}
        system, user = (TEMPLATES.render(name, filled) for name in ("system.j2", f"{purpose}.j2"))
        return (Message("system", system), *said, Message("user", user))

    return fitting(build, limit)


def _point(trial: TrialRecord | None) -> dict[str, Any] | None:
    if trial is None:
        return None
    configuration = configuration_to_json(trial.configuration)
    return {"number": trial.number, "metric": trial.metric, "configuration": configuration}


def _trial(trial: TrialRecord, incumbents: Incumbents) -> dict[str, Any]:
    data = trial.to_json()
    del data["configuration"]
    return {**data, "directions": directions(trial, incumbents)}


def _mechanism(mechanism: ObservedMechanism) -> dict[str, Any]:
    return {
        "name": mechanism.id,
        "summary": mechanism.summary,
        "state": mechanism.state.value,
        "hooks": [hook.value for hook in mechanism.hooks],
        "changed_decisions": mechanism.effect.changed_decisions,
        "proposed_trials": mechanism.effect.proposed_trials,
        "kept_trials": mechanism.effect.kept_trials,
        "hook_calls": {
            effect.hook.value: {"calls": effect.calls, "changed": effect.changed} for effect in mechanism.effect.hooks
        },
    }
