"""What the model is shown of a search: its machine-readable state, counts by parameter and direction, the prompts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from mechanisms.interface import TrialRecord
from outer_service.campaign import Offer, OpenSession
from outer_service.observed import Observation, ObservedMechanism
from service_kit.llm.failures import Message
from service_kit.parameters import Objective, Value, configuration_to_json

PROMPTS = Path(__file__).with_name("prompts")

INCREASE, DECREASE, CHANGE = "increase", "decrease", "change"


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of one parameter moved in one direction."""

    parameter: str
    direction: str
    tries: int
    kept: int
    without_metric: int
    """Tries that failed before they had a metric."""
    best_gain: float | None
    """The largest gain over the incumbent of its time, in the objective's unit; negative when every try was worse."""


def incumbent_of(trial: TrialRecord, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial that ``trial`` was a change of: the newest kept one before it with the metric that it had to beat."""
    before = [other for other in trials if other.kept and other.number < trial.number]
    exact = [other for other in before if other.metric is not None and other.metric == trial.incumbent_metric]
    candidates = exact or before
    return candidates[-1] if candidates else None


def directions(trial: TrialRecord, trials: Sequence[TrialRecord]) -> dict[str, str]:
    """Which way each changed parameter was moved."""
    incumbent = incumbent_of(trial, trials)
    base = incumbent.configuration if incumbent is not None else {}
    return {name: _direction(base.get(name), value) for name, value in trial.changes.items()}


def _direction(old: Value | None, new: Value) -> str:
    before, after = _size(old), _size(new)
    if before is None or after is None or before == after:
        return CHANGE
    return INCREASE if after > before else DECREASE


def _size(value: Value | None) -> float | None:
    """A number to compare by, the sum of a list; None for what has no order."""
    if isinstance(value, tuple):
        return sum(element for element in value if isinstance(element, int | float))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def tallies(trials: Sequence[TrialRecord], objective: Objective) -> tuple[Tally, ...]:
    """Every parameter and direction among the decided trials, the most tried first."""
    found: defaultdict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        if trial.kept is not None:
            for name, direction in directions(trial, trials).items():
                found[name, direction].append(trial)
    rows = [_tally(name, direction, members, objective) for (name, direction), members in found.items()]
    return tuple(sorted(rows, key=lambda row: (-row.tries, row.parameter, row.direction)))


def _tally(name: str, direction: str, members: Sequence[TrialRecord], objective: Objective) -> Tally:
    gains = [
        objective.gain(trial.incumbent_metric, trial.metric)
        for trial in members
        if trial.metric is not None and trial.incumbent_metric is not None
    ]
    kept = sum(trial.kept is True for trial in members)
    lost = sum(trial.metric is None for trial in members)
    return Tally(name, direction, len(members), kept, lost, max(gains, default=None))


def search_state(observation: Observation, offered: Sequence[Offer] = ()) -> dict[str, Any]:
    """The search as JSON-ready built-in types, complete, with what the library offers."""
    run, space, objective = observation.run, observation.run.task.space, observation.run.task.objective
    return {
        "task": run.task.name,
        "objective": {"metric": objective.metric, "direction": objective.direction.value, "unit": objective.unit},
        "parameters": [{**p, "active": p["name"] in run.active} for p in space.to_json()["parameters"]],
        "constraints": list(space.constraints),
        "incumbent": _point(observation.trial(run.incumbent)),
        "best": _point(observation.trial(run.best)),
        "baseline_metric": run.baseline_metric,
        "trials": [_trial(trial, observation.trials) for trial in observation.trials],
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


def prompt(purpose: str, observation: Observation, **more: Any) -> tuple[Message, Message]:
    """The system message, and the user message that shows the search and asks for ``purpose``."""
    run = observation.run
    session: OpenSession | None = more.get("session")
    offered = session.offered if session is not None else ()
    values: Mapping[str, Any] = {
        "observation": observation,
        "run": run,
        "task": run.task,
        "state": json.dumps(search_state(observation, offered), ensure_ascii=False, separators=(",", ":")),
        "tallies": tallies(observation.trials, run.task.objective),
        **more,
    }
    return (
        Message("system", _template("system.j2").render(values).strip()),
        Message("user", _template(f"{purpose}.j2").render(values).strip()),
    )


def _point(trial: TrialRecord | None) -> dict[str, Any] | None:
    if trial is None:
        return None
    configuration = configuration_to_json(trial.configuration)
    return {"number": trial.number, "metric": trial.metric, "configuration": configuration}


def _trial(trial: TrialRecord, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    data = trial.to_json()
    del data["configuration"]
    return {**data, "directions": directions(trial, trials)}


def _mechanism(mechanism: ObservedMechanism) -> dict[str, Any]:
    return {
        "name": mechanism.id,
        "summary": mechanism.summary,
        "state": mechanism.state.value,
        "hooks": [hook.value for hook in mechanism.hooks],
        "changed_decisions": mechanism.effect.changed_decisions,
        "proposed_trials": mechanism.effect.proposed_trials,
        "kept_trials": mechanism.effect.kept_trials,
    }


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PROMPTS),
        autoescape=False,  # noqa: S701 (text for a model, not HTML)
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
