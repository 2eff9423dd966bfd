"""How the service is to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inner_service.task_address import TaskAddress
from mechanisms.sandbox.limits import SandboxPolicy
from service_kit.server import ServerSettings

_SANDBOX = SandboxPolicy()


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    server: ServerSettings
    database: str
    """SQLAlchemy URL."""
    tasks: Mapping[str, TaskAddress]
    """By name."""
    loopback_tasks: bool = False
    """Whether a run may name a task by its address on this machine."""
    lease_seconds: float = 10.0
    """How long a run rests when the service that drives it has died, where several share a database."""
    sandbox: SandboxPolicy = _SANDBOX
    """What mechanisms need of this machine."""
