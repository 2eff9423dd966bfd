"""What one evaluation is asked to do, what it reports on the way and how it ends. Importing this needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from gpt_trainer.architecture import Architecture
from gpt_trainer.clock import REFERENCE_CORE, ClockKind
from gpt_trainer.hyperparameters import Hyperparameters, check
from gpt_trainer.presets import Preset
from service_kit.parameters import (
    Configuration,
    InvalidConfiguration,
    Outcome,
    Split,
    Value,
    Violation,
    configuration_from_json,
    configuration_to_json,
)


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """One evaluation."""

    configuration: Configuration
    """Changes to the preset's defaults."""
    seed: int
    budget: float
    """Seconds of training on ``clock``."""
    clock: ClockKind = ClockKind.VIRTUAL
    split: Split = Split.SEARCH

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "configuration": configuration_to_json(self.configuration)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            configuration_from_json(data["configuration"]),
            data["seed"],
            data["budget"],
            ClockKind(data["clock"]),
            Split(data["split"]),
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a trial is."""

    phase: str
    """``training`` or ``evaluating``."""
    fraction: float
    """Share of the budget spent."""
    step: int
    tokens: int
    train_loss: float
    """Smoothed training loss in nats a token."""
    clock_seconds: float
    wall_seconds: float
    val_bpb_estimate: float | None = None
    """The metric on a small fixed part of its text, now and then; no result, but comparable between trials."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """How a trial ended. ``val_bpb`` is present exactly when it succeeded."""

    outcome: Outcome
    val_bpb: float | None = None
    side_metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    identity: Mapping[str, str] = field(default_factory=dict)
    """What the number depends on beside configuration, seed and split."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "outcome": Outcome(data["outcome"])})


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that can be carried out: everything that follows from it by arithmetic."""

    hyperparameters: Hyperparameters
    architecture: Architecture
    micro_steps: int
    step_seconds: float
    """Price of an optimiser step on the virtual clock."""


def plan(preset: Preset, request: TrialRequest) -> Plan:
    """Check a request and derive what it needs.

    Raises InvalidConfiguration with every violation; one of them can be that the budget does not pay for one step.
    """
    configuration = check(preset, request.configuration)
    h = Hyperparameters.from_configuration(configuration)
    architecture = h.architecture(preset)
    micro_steps = h.micro_steps(preset)
    seconds = REFERENCE_CORE.step(architecture, h.device_batch_size, micro_steps)
    if request.clock is ClockKind.VIRTUAL and seconds > request.budget:
        raise InvalidConfiguration([_too_large(h, seconds, request.budget)])
    return Plan(h, architecture, micro_steps, seconds)


def _too_large(h: Hyperparameters, seconds: float, budget: float) -> Violation:
    return Violation(
        "TOTAL_BATCH_SIZE",
        f"one optimiser step of {h.total_batch_size} tokens costs {seconds:.3g} s and the budget is {budget:g} s; "
        "raise the budget, or lower TOTAL_BATCH_SIZE, and DEVICE_BATCH_SIZE with it where it no longer divides it",
    )


def result_lines(result: TrialResult, request: TrialRequest) -> dict[str, str]:
    """Everything about a result, in the order in which it is shown."""
    lines = {"outcome": result.outcome.value}
    if result.val_bpb is not None:
        lines["val_bpb"] = f"{result.val_bpb:.6f}"
    lines |= _formatted(result.side_metrics)
    if result.val_bpb is not None:
        lines.setdefault("mfu_percent", "unknown")
    if result.message:
        lines["message"] = result.message
    if request.configuration:
        lines["configuration"] = " ".join(f"{k}={value_text(v)}" for k, v in request.configuration.items())
    lines |= {"seed": str(request.seed), "split": request.split.value, "budget_seconds": f"{request.budget:g}"}
    return lines | dict(result.identity)


def value_text(value: Value) -> str:
    """A value as ``--set`` takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _formatted(metrics: Mapping[str, float]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for name, value in metrics.items():
        if name == "total_tokens":
            shown["total_tokens_M"] = f"{value / 1e6:.3f}"
        elif name in ("num_steps", "epochs"):
            shown[name] = f"{value:.0f}"
        else:
            shown[name] = f"{value:.3f}"
    return shown


def code_identity() -> str:
    """A hash of this package's source: results of one identity come from one program."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
