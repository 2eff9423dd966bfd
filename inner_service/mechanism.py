"""A mechanism as the trace keeps it: its source, the gate's verdict, where it is in its life and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from mechanisms.findings import Stage
from mechanisms.interface import Hook
from mechanisms.report import Verdict
from service_kit.parameters import Value


class MechanismState(StrEnum):
    """Where a mechanism is in its life."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    UNINSTALLED = "uninstalled"


@dataclass(frozen=True, slots=True)
class HookEffect:
    """What one hook of a mechanism did."""

    hook: Hook
    calls: int = 0
    changed: int = 0
    time: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class MechanismEffect:
    """What a mechanism did, counted on the trace."""

    hooks: tuple[HookEffect, ...] = ()
    proposed_trials: int = 0
    kept_trials: int = 0

    @property
    def changed_decisions(self) -> int:
        """Decisions that would have been others without it, all hooks together."""
        return sum(hook.changed for hook in self.hooks)


@dataclass(frozen=True, slots=True)
class GateFinding:
    """One finding of the gate; ``line`` counts from 1, 0 when it belongs to no line."""

    stage: Stage
    line: int
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate's verdict as it is kept on the trace."""

    verdict: Verdict
    stage: Stage
    findings: tuple[GateFinding, ...]
    hooks: tuple[Hook, ...]
    replayed_trials: int
    replay: tuple[HookEffect, ...]
    source_sha256: str
    text: str
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One of a run's mechanisms. Its name is unique in the run, whatever became of earlier ones."""

    name: str
    summary: str
    source: str
    source_sha256: str
    hooks: tuple[Hook, ...]
    settings: dict[str, Value]
    report: GateReport
    author: str = ""
    state: MechanismState = MechanismState.ACTIVE
    state_reason: str = ""
    effect: MechanismEffect = MechanismEffect()
    sandbox_layers: tuple[str, ...] = ()
    installed_after_trial: int = -1
    observed: int = 0
    """Decided trials that it had observed when ``state_hash`` was taken."""
    state_hash: str = ""
    """Digest of its state at that moment: a rebuilt state has to have the same. Empty before it observed a trial."""
    install_time: datetime | None = None
