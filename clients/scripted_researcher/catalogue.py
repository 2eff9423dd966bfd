"""The mechanisms that the researcher knows: what each is for, where its idea comes from, and its source templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from clients.scripted_researcher.diagnosis import Failure
from clients.scripted_researcher.moves import multiples
from clients.scripted_researcher.state import SearchState


@dataclass(frozen=True, slots=True)
class Idea:
    """A mechanism that can be written from a template."""

    name: str
    answers: Failure
    """The failure that it is made for."""
    borrowed_from: str
    """The neighbouring field that it comes from."""
    idea: str
    hooks: tuple[str, ...]
    state: str
    merit: str
    risk: str
    templates: tuple[str, ...]
    """Template names, the simpler ones later: a rejected one gives way to the next."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    relaxed: Mapping[str, Any] = field(default_factory=dict)
    """Settings under which it acts earlier, for when it was found inert."""

    def source(self, state: SearchState, *, form: int = 0, relaxed: bool = False) -> str:
        """The complete module. ``form`` counts up to the simpler templates; -1 is the simplest."""
        rules = [(rule.whole, rule.part, rule.unit) for rule in multiples(state.constraints, tuple(state.parameters))]
        template = _TEMPLATES.get_template(f"{self.templates[form]}.py.j2")
        return template.render(multiples=rules, **{**self.settings, **(self.relaxed if relaxed else {})})


IDEAS = (
    Idea(
        name="opposite-direction",
        answers=Failure.FIXATION,
        borrowed_from="direct search (pattern search)",
        idea="When every step one way fails, poll the other way and follow it while it gains.",
        hooks=("observe", "propose"),
        state="failures and gains of every parameter and direction, rebuilt from observed trials",
        merit="goes exactly where the proposer never looks, and stops at the first failure",
        risk="spends a trial on each direction that is bad both ways",
        templates=("opposite-direction", "opposite-direction-plain"),
        settings={"patience": 3},
        relaxed={"patience": 2},
    ),
    Idea(
        name="infeasible-guard",
        answers=Failure.BREAKAGE,
        borrowed_from="constraint learning",
        idea="Remember which moves ended without a metric and refuse to go as far again.",
        hooks=("observe", "veto"),
        state="the changes of the newest broken trials",
        merit="stops paying for trials that cannot be measured",
        risk="may close a region that another parameter would open",
        templates=("infeasible-guard",),
        settings={"memory": 12},
        relaxed={"memory": 40},
    ),
    Idea(
        name="tabu",
        answers=Failure.REPETITION,
        borrowed_from="tabu search",
        idea="Forbid a parameter and direction for some trials once it failed several times.",
        hooks=("observe", "veto"),
        state="numbers of the failed trials of every move",
        merit="frees the trials that repetition wastes",
        risk="forbids a direction that would work from a new incumbent; hence the tenure",
        templates=("tabu",),
        settings={"patience": 3, "tenure": 10},
        relaxed={"patience": 2, "tenure": 15},
    ),
    Idea(
        name="coordinate-exploration",
        answers=Failure.NEGLECT,
        borrowed_from="design of experiments (one factor at a time)",
        idea="While nothing gains, take one step along every axis and direction that was never tried.",
        hooks=("observe", "propose"),
        state="the tried parameters and directions, and the trials since the last gain",
        merit="looks at every axis once",
        risk="costs a trial an axis, most of which do nothing",
        templates=("coordinate-exploration",),
        settings={"patience": 3},
        relaxed={"patience": 1},
    ),
    Idea(
        name="step-size",
        answers=Failure.PLATEAU,
        borrowed_from="evolution strategies (success rule)",
        idea="Scale the steps of every parameter by whether they gained before.",
        hooks=("observe", "revise"),
        state="a step scale for every parameter",
        merit="finds gains that fixed small steps jump over or never reach",
        risk="cannot help where the direction itself is wrong",
        templates=("step-size",),
        settings={"grow": 1.5, "shrink": 0.7},
        relaxed={"grow": 2.0, "shrink": 0.5},
    ),
)
"""In the order in which their failures are looked for."""


def idea(name: str) -> Idea | None:
    """The idea called ``name``, or None."""
    return next((idea for idea in IDEAS if idea.name == name), None)


def _literal(value: object) -> str:
    return repr(value)


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # noqa: S701 (Python source, not HTML)
    keep_trailing_newline=True,
)
_TEMPLATES.filters["literal"] = _literal
