"""The machine-readable search state that every prompt carries, and the prompts themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inner_service.lessons.lesson import Lesson
from inner_service.run import REMEMBERED, Search, Trial, TrialState
from inner_service.task import TaskDescription
from mechanisms.fence import fenced
from mechanisms.interface import Candidate
from mechanisms.tallies import Tallying
from service_kit.llm.failures import Message
from service_kit.llm.prompts import Detail, Templates, divided, first, fitting, outline
from service_kit.llm.tokens import at_least
from service_kit.once import once_each
from service_kit.parameters import Kind, Parameter, ParameterSpace, Value, brief, configuration_to_json, value_to_json

TEMPLATES = Templates(Path(__file__).with_name("prompts"))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A candidate of the model that may not run, and why."""

    changes: Mapping[str, Any]
    reason: str


@dataclass(frozen=True, slots=True)
class Briefing:
    """What the proposer knows beside the search itself."""

    texts: Mapping[str, str]
    """What mechanisms say, by name."""
    lessons: Sequence[Lesson]
    count: int
    """Candidates that are wanted."""
    refused: Sequence[Refusal] = ()
    """What was refused in this very proposal."""


def search_state(search: Search, briefing: Briefing) -> dict[str, Any]:
    """The search as JSON-ready built-in types, complete; after a restart, what came since."""
    return {**_around_trials(search, briefing), "trials": [shown.data for shown in _all_shown(search)]}


def _around_trials(search: Search, briefing: Briefing) -> dict[str, Any]:
    """The search state with none of its trials."""
    search = search.shown
    run, objective = search.run, search.run.task.objective
    active = set(run.active)
    parameters = [{**parameter, "active": parameter["name"] in active} for parameter in _parameters(run.task.space)]
    state: dict[str, Any] = {
        "task": run.task.name,
        "objective": {
            "metric": objective.metric,
            "direction": objective.direction.value,
            "unit": objective.unit,
        },
        "parameters": parameters,
        "constraints": list(run.task.space.constraints),
        "incumbent": _point(search.incumbent),
        "best": _point(search.best),
        "baseline_metric": run.baseline_metric,
        "trials": [],
        "frozen": list(run.search_config.frozen),
        "strategy": run.search_config.strategy,
        "guidance": run.search_config.guidance,
        "mechanisms": [
            {
                "name": mechanism.name,
                "summary": mechanism.summary,
                "state": mechanism.state.value,
                "hooks": [hook.value for hook in mechanism.hooks],
                "changed_decisions": mechanism.effect.changed_decisions,
                "prompt": briefing.texts.get(mechanism.name, ""),
            }
            for mechanism in search.mechanisms
        ],
        **({"lessons": [_lesson(lesson) for lesson in briefing.lessons]} if briefing.lessons else {}),
        "trials_left": run.trials_left,
        "count": briefing.count,
        "refused": [
            {
                "changes": [{"parameter": name, "value": _json(value)} for name, value in refusal.changes.items()],
                "reason": refusal.reason,
            }
            for refusal in briefing.refused
        ],
    }
    if search.open:
        state["under_way"] = [_under_way(search, trial) for trial in search.open_trials]
    return state


def proposer_prompt(search: Search, briefing: Briefing, limit: int = 0) -> tuple[Message, ...]:
    """The messages that ask the language model for candidates: at most ``limit`` estimated tokens, 0 is no limit.

    What is left out is named in the prompt. Raises :class:`ModelError` when even the shortest prompt is longer.
    """
    values = {"search": search, "run": search.run, "task": search.run.task, "briefing": briefing}
    parts = {key: _text(value) for key, value in _around_trials(search, briefing).items()}
    of_trials = {shown.data["number"]: shown for shown in _all_shown(search)}
    complete = [shown.data for shown in of_trials.values()]

    def trials(detail: Detail) -> tuple[list[str], list[str]]:
        """What is shown of the trials, and sentences on what is not."""
        old, new, left_out = divided(complete, detail)
        return [*(of_trials[t["number"]].outline for t in old), *(of_trials[t["number"]].whole for t in new)], left_out

    def least(detail: Detail) -> int:
        return at_least(sum(map(len, trials(detail)[0])))

    def build(detail: Detail) -> tuple[Message, ...]:
        texts, left_out = trials(detail)
        files, other_files = first(search.run.task.sources, detail.sources, "files of the task's source")
        whole = {**parts, "trials": f"[{','.join(texts)}]"}
        state = ",".join(f'"{key}":{text}' for key, text in whole.items())
        known = {
            **values,
            "state": f"{{{state}}}",
            "sources": _sources(search),
            "files": files,
            "left_out": left_out + other_files,
            "tallies": _tallying(search.run.task).of(search.decided()) if left_out else (),
        }
        return (
            Message("system", render("propose_system.j2", known)),
            Message("user", render("propose.j2", known)),
        )

    return fitting(build, limit, least=least)


def _sources(search: Search) -> list[tuple[Parameter, Value]]:
    """The incumbent's source texts: readable here, where the search state has them as JSON."""
    base = search.incumbent.configuration if search.incumbent is not None else search.start
    active = set(search.run.active)
    return [(p, base[p.name]) for p in search.run.task.space.parameters if p.kind is Kind.SOURCE and p.name in active]


def render(name: str, values: Mapping[str, Any]) -> str:
    """A prompt of this service; :func:`fenced` is at hand in it for what others wrote."""
    return TEMPLATES.render(name, {**values, "fenced": fenced})


def described(search: Search, candidate: Candidate) -> str:
    """A candidate in words: what changes from what to what, who says so, and why."""
    base = search.incumbent.configuration if search.incumbent is not None else search.start
    changes = ", ".join(f"{name} {_show(base[name])} → {_show(value)}" for name, value in candidate.changes.items())
    who = candidate.proposer or candidate.origin.value
    return f"{changes or 'no change'} ({who}: {candidate.hypothesis})" if candidate.hypothesis else f"{changes} ({who})"


def _point(trial: Trial | None) -> dict[str, Any] | None:
    if trial is None:
        return None
    configuration = configuration_to_json(trial.configuration)
    return {"number": trial.number, "metric": trial.metric, "configuration": configuration}


def _under_way(search: Search, trial: Trial) -> dict[str, Any]:
    """A trial that has no result yet, by its difference from the incumbent of this moment."""
    base = search.incumbent.configuration if search.incumbent is not None else search.start
    changes = search.run.task.space.changes(base, trial.configuration)
    return {"number": trial.number, "changes": configuration_to_json(changes), "hypothesis": trial.hypothesis}


@dataclass(frozen=True, slots=True)
class _Shown:
    """A trial that is not under way, as prompts show it."""

    data: dict[str, Any]
    whole: str
    outline: str


def _all_shown(search: Search) -> list[_Shown]:
    """Every trial since the last restart that is not under way."""
    under_way = set(search.open)
    since = search.trials[search.run.search_config.visible_from_trial :]
    return [_shown(trial) for trial in since if trial.number not in under_way]


@once_each(REMEMBERED)
def _shown(trial: Trial) -> _Shown:
    # Of the thousand trials of a long search only the newest are new to a prompt.
    data = trial.record.to_json()
    del data["configuration"]
    data["rejected"] = trial.state is TrialState.REJECTED
    return _Shown(data, _text(data), _text(outline(data)))


@once_each(64)
def _tallying(task: TaskDescription) -> Tallying:
    """The counts of a run, which has its task to itself."""
    return Tallying(task.objective)


@once_each(64)
def _parameters(space: ParameterSpace) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = space.to_json()["parameters"]
    return parameters


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _lesson(lesson: Lesson) -> dict[str, Any]:
    return {
        "id": lesson.id,
        "statement": lesson.statement,
        "kind": lesson.kind.value,
        "failure": lesson.failure.value if lesson.failure is not None else None,
        "hardware": lesson.hardware,
        "evidence_trials": len(lesson.evidence),
    }


def _json(value: Any) -> Any:
    return value_to_json(value) if isinstance(value, tuple) else value


def _show(value: Any) -> str:
    """A value for people: six digits say enough."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(_show(element) for element in value)}]"
    if isinstance(value, str) and "\n" in value:
        return brief(value)
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
