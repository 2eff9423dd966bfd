"""What a mechanism sees and what it may answer, on the host's side.

A mechanism is one module with one class ``Mechanism`` that implements any subset of the hooks in :class:`Hook`. It
lives in a worker process; what crosses is JSON. The frozen dataclasses here are the host's typed form of those
messages; inside the worker the same fields are read as attributes (``view.incumbent.metric``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from service_kit.parameters import Configuration, Objective, Outcome, configuration_to_json


class Hook(StrEnum):
    """The points of a trial at which the host asks its mechanisms."""

    INIT = "__init__"
    """``__init__(self, space, settings, rng)``: called once."""
    OBSERVE = "observe"
    """``observe(self, trial)``: sees every decided trial; all state comes from here, so that it can be replayed."""
    PROMPT = "prompt"
    """``prompt(self, view) -> str``: text for the proposer's prompt; fenced as data."""
    PROPOSE = "propose"
    """``propose(self, view, count) -> list``: candidates of its own, beside the LLM's."""
    REVISE = "revise"
    """``revise(self, view, candidate) -> candidate``: a changed candidate, or the same one."""
    VETO = "veto"
    """``veto(self, view, candidate) -> str | None``: a reason to reject it before it runs, or None."""
    RANK = "rank"
    """``rank(self, view, candidates) -> list[float]``: one score a candidate, higher first."""
    ACCEPT = "accept"
    """``accept(self, view, trial) -> bool | None``: whether the search continues from the trial; None abstains."""
    BUDGET = "budget"
    """``budget(self, view, candidate) -> float``: the fraction of the full budget to spend, in (0, 1]."""


class Origin(StrEnum):
    """Who proposed a trial."""

    BASELINE = "baseline"
    MODEL = "model"
    MECHANISM = "mechanism"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proposed change of the incumbent that has not run."""

    changes: Configuration
    """Only the parameters that differ from the incumbent."""
    hypothesis: str
    """One sentence: what the change should do and why."""
    origin: Origin = Origin.MODEL
    proposer: str = ""
    """Name of the proposing mechanism; empty unless ``origin`` is MECHANISM."""

    def to_json(self) -> dict[str, Any]:
        return {
            "changes": configuration_to_json(self.changes),
            "hypothesis": self.hypothesis,
            "origin": self.origin.value,
            "proposer": self.proposer,
        }


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A trial as mechanisms and prompts see it. ``kept`` is None while it is undecided."""

    number: int
    """Counts from 0, the baseline."""
    configuration: Configuration
    changes: Configuration
    """What differed from the incumbent when it was proposed; empty for the baseline."""
    hypothesis: str
    origin: Origin
    proposer: str
    outcome: Outcome | None
    metric: float | None
    """The objective's value; None unless the outcome is SUCCEEDED."""
    kept: bool | None
    incumbent_metric: float | None
    """The incumbent's metric when the trial was proposed: what the trial had to beat."""
    budget_fraction: float = 1.0
    side_metrics: Mapping[str, float] = field(default_factory=dict)
    """Other measurements of the task, for example optimiser steps and training loss."""
    message: str = ""
    """Why it failed, was rejected or was kept."""

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "configuration": configuration_to_json(self.configuration),
            "changes": configuration_to_json(self.changes),
            "hypothesis": self.hypothesis,
            "origin": self.origin.value,
            "proposer": self.proposer,
            "outcome": self.outcome.value if self.outcome is not None else None,
            "metric": self.metric,
            "kept": self.kept,
            "incumbent_metric": self.incumbent_metric,
            "budget_fraction": self.budget_fraction,
            "side_metrics": dict(self.side_metrics),
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class SearchView:
    """Everything that a hook may read: the search so far, never the code or the state of others."""

    objective: Objective
    history: tuple[TrialRecord, ...]
    """Every decided trial, oldest first, the baseline included."""
    incumbent: TrialRecord
    best: TrialRecord
    active: tuple[str, ...]
    """Parameters that proposals may change now."""
    frozen: tuple[str, ...]
    strategy: str
    guidance: str
    trials_left: int
    """Trials that the budget still allows, this one included."""

    def to_json(self) -> dict[str, Any]:
        """The view without its history: workers hold the history themselves and are only sent what is new."""
        return {
            "objective": {"metric": self.objective.metric, "direction": self.objective.direction.value},
            "incumbent": self.incumbent.number,
            "best": self.best.number,
            "history_length": len(self.history),
            "active": list(self.active),
            "frozen": list(self.frozen),
            "strategy": self.strategy,
            "guidance": self.guidance,
            "trials_left": self.trials_left,
        }
