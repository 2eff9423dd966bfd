"""What one evaluation is made of: the request, what the author's function is given and gives back, and the ending."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from service_kit.parameters import (
    Configuration,
    Outcome,
    Split,
    configuration_from_json,
    configuration_to_json,
)

PROGRESS_SECONDS = 0.1
"""Progress is passed on at most this often; what comes in between is for nobody."""


class Infeasible(Exception):
    """Raise it for a configuration that cannot be evaluated; the message says which values are allowed."""


class Cancelled(BaseException):
    """Ends the author's function when its evaluation is cancelled and the task allows time for cleaning up."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a function may return instead of the bare metric."""

    metric: float
    side_metrics: Mapping[str, float] = field(default_factory=dict)
    """Other measurements by name. Those that are not finite are left out."""
    message: str = ""
    """A remark for people."""
    identity: Mapping[str, str] = field(default_factory=dict)
    """Facts that are no numbers, by name, for example a library's version."""


@dataclass(frozen=True, slots=True)
class Request:
    """One configuration to evaluate."""

    configuration: Configuration
    seed: int = 0
    budget_fraction: float = 1.0
    """Share of the full budget, in (0, 1]."""
    split: Split = Split.SEARCH
    label: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"configuration": configuration_to_json(self.configuration)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        configuration = configuration_from_json(data["configuration"])
        return cls(**{**data, "configuration": configuration, "split": Split(data["split"])})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an evaluation is; see ``EvaluationProgress`` in task.proto."""

    fraction: float
    step: int = 0
    phase: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ending:
    """How an evaluation ended. ``metric`` is finite, and there exactly when it succeeded."""

    outcome: Outcome
    metric: float | None = None
    side_metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    identity: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "outcome": Outcome(data["outcome"])})


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Those of ``numbers`` that are finite: neither the wire nor JSON has a place for the others."""
    return {name: float(number) for name, number in numbers.items() if math.isfinite(number)}


class Context:
    """What an evaluation knows about itself. ``Context()`` serves for calling the function in a unit test."""

    def __init__(
        self,
        seed: int = 0,
        *,
        split: Split = Split.SEARCH,
        budget_fraction: float = 1.0,
        budget_seconds: float = 60.0,
        label: str = "",
        folder: Path | None = None,
        listener: Callable[[Progress], None] | None = None,
    ) -> None:
        self.seed = seed
        """Seeds every random choice; the module ``random`` is seeded with it already."""
        self.split = split
        """``Split.HELD_OUT`` asks for data that the search never sees; only where the task says that it has some."""
        self.budget_fraction = budget_fraction
        """Share of the full budget to spend, in (0, 1]."""
        self.budget_seconds = budget_seconds
        """That share in seconds. A guide for the function; what ends an evaluation is the hard limit."""
        self.label = label
        """The caller's name for this evaluation, for logs."""
        self._began, self._told = time.monotonic(), -math.inf
        self._folder, self._listener = folder, listener

    @cached_property
    def folder(self) -> Path:
        """An empty folder for this evaluation, removed after it."""
        return self._folder if self._folder is not None else Path(tempfile.mkdtemp(prefix="evaluation-"))

    @property
    def elapsed(self) -> float:
        """Seconds since the function began."""
        return time.monotonic() - self._began

    def report(self, fraction: float, *, step: int = 0, phase: str = "", **metrics: float) -> None:
        """Say how far the evaluation is: the share of the work done, from 0 to 1, and intermediate measurements.

        Call it as often as you like: it passes on ten reports a second and costs nothing otherwise. Metrics that are
        not finite are left out. Raises ValueError for a fraction outside of 0 to 1.
        """
        if not -1e-6 <= fraction <= 1 + 1e-6:
            raise ValueError(f"context.report: fraction must be from 0 to 1; got {fraction!r}")
        now = time.monotonic()
        if self._listener is None or now - self._told < PROGRESS_SECONDS:
            return
        self._told = now
        self._listener(Progress(min(1.0, max(0.0, float(fraction))), int(step), str(phase), finite(metrics)))
