"""Mechanisms in the style in which language models write them: they compile, and behave as in plain Python."""

from __future__ import annotations

import builtins
import json
import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mechanisms.gate import check
from mechanisms.interface import Candidate, Hook, SearchView
from mechanisms.language import compiler, linalg
from mechanisms.language.facades import sampling
from mechanisms.language.objects import Candidate as WorkerCandidate
from mechanisms.replay import incumbents
from mechanisms.sandbox import worker
from mechanisms.synthetic import synthetic_history

SOURCES = {path.stem: path.read_text() for path in sorted(Path(__file__).with_name("written_by_models").glob("*.txt"))}
OUTSIDE_THE_LANGUAGE = {"27_lesson_extractor": "NamedTuple", "29_strategy_enum": "enum"}
INSIDE = sorted(set(SOURCES) - set(OUTSIDE_THE_LANGUAGE))


def plain_session(source: str, request: dict[str, Any]) -> worker.Session:
    """The same session with the class defined by Python itself: real imports, no pre-pass, no guards."""

    def define(compiled: Any, generator: random.Random) -> Any:
        modules = {"random": SimpleNamespace(**sampling(generator)), "linalg": linalg}

        def import_module(name: str, *rest: Any) -> Any:
            return modules[name] if name in modules else builtins.__import__(name, *rest)

        offered = {
            **vars(builtins),
            "__import__": import_module,
            "Candidate": WorkerCandidate,
            "print": lambda *a: None,
        }
        namespace: dict[str, Any] = {"__builtins__": offered, "__name__": "mechanism"}
        sys.modules["mechanism"] = ModuleType("mechanism")  # where dataclasses look for the module of a class
        exec(compile(source, "<mechanism>", "exec"), namespace)
        return namespace

    original = worker.define
    worker.define = define
    try:
        return worker.Session(request, None)  # type: ignore[arg-type]
    finally:
        worker.define = original


def answers(session: worker.Session, space: Any, objective: Any, history: Any) -> list[str]:
    """What every hook answers at every moment of ``history``, as JSON."""
    found = []
    moments = incumbents(history, objective)
    active = tuple(parameter.name for parameter in space.editable)
    observe = session.observe if hasattr(session.mechanism, "observe") else session.remember
    observe({"trial": history[0].to_json()})
    for place in range(1, len(history)):
        trial = history[place]
        view = SearchView(objective, history[:place], *moments[place - 1], active, (), "", "", len(history) - place)
        candidate = Candidate(space.changes(view.incumbent.configuration, trial.configuration), "h").to_json()
        common = {"view": view.to_json(), "candidate": candidate, "candidates": [candidate] * 2, "count": 2}
        for hook in (h for h in Hook if h not in (Hook.INIT, Hook.OBSERVE)):
            if hasattr(session.mechanism, hook.value):
                request = {**common, "hook": hook.value, "trial": trial.to_json()}
                found.append(json.dumps([place, hook.value, session.call(request)]))
        observe({"trial": trial.to_json()})
    return found


@pytest.mark.parametrize("name", INSIDE)
def test_it_answers_as_in_plain_python(name: str, space: Any, objective: Any) -> None:
    history = synthetic_history(space, objective, 40, seed=9)
    request = {
        "space": space.to_json(),
        "objective": {"metric": objective.metric, "direction": objective.direction.value},
        "settings": {"z": 1.0},
        "seed": 3,
    }
    compiled = compiler.compile_source(SOURCES[name], worker.OFFERED)
    restricted = answers(worker.Session(request, compiled), space, objective, history)
    plain = answers(plain_session(SOURCES[name], request), space, objective, history)
    assert restricted == plain
    assert any(json.loads(answer)[2] not in (None, "", []) for answer in restricted)


@pytest.mark.parametrize("name", INSIDE)
async def test_the_gate_accepts_it(name: str, space: Any, objective: Any, history: Any) -> None:
    report = await check(SOURCES[name], space=space, objective=objective, history=history)
    assert report.accepted, report.render()


@pytest.mark.parametrize("name", OUTSIDE_THE_LANGUAGE)
async def test_what_the_language_lacks_is_said(name: str, space: Any, objective: Any) -> None:
    report = await check(SOURCES[name], space=space, objective=objective, history=())
    assert not report.accepted
    assert OUTSIDE_THE_LANGUAGE[name] in report.render()


def test_nine_in_ten_are_inside_the_language() -> None:
    assert len(SOURCES) == 30
    assert len(INSIDE) >= 27
