"""The numbers of the sandbox: how long, how much and how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What one mechanism may use. A breach kills its worker."""

    start_seconds: float = 15.0
    """From exec to a jailed, empty worker: our own code, so generous for a busy machine."""
    install_seconds: float = 3.0
    """To compile the source and run its ``__init__``."""
    call_seconds: float = 1.0
    """For one hook, the time to write the request included."""
    budget_seconds: float = 20.0
    """All calls together may take this long …"""
    budget_seconds_per_trial: float = 0.5
    """… plus this for every observed trial."""
    memory_bytes: int = 256 * 1024 * 1024
    """Address space of the worker."""
    cpu_seconds: int = 3600
    """A backstop inside the kernel, should the host be gone."""
    request_bytes: int = 8 * 1024 * 1024
    """Largest frame to the worker."""
    answer_bytes: int = 256 * 1024
    """Largest frame from the worker."""
    source_bytes: int = 64 * 1024
    prompt_characters: int = 4000
    reason_characters: int = 500
    hypothesis_characters: int = 500
    min_budget: float = 0.01
    """Smallest fraction of a trial's budget that a mechanism may ask for."""
    veto_window: int = 30
    """Vetoes are judged over this many calls."""
    veto_rate: float = 0.9
    """A larger share of vetoes in the window stops the search, so it ends the mechanism."""
    repeated_proposals: int = 25
    """So many proposals in a row of configurations that were tried already end the mechanism."""


@dataclass(frozen=True, slots=True)
class SandboxPolicy:
    """Which machines may run mechanisms."""

    allow_weak: bool = False
    """Run with rlimits and deadlines only where the kernel offers no seccomp (anything but Linux on x86-64 and
    AArch64). For development; the layers that were applied are recorded either way."""
