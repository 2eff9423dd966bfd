"""How the service is to run."""

from __future__ import annotations

from dataclasses import dataclass

from mechanisms.sandbox.limits import SandboxPolicy
from service_kit.server import ServerSettings

_SANDBOX = SandboxPolicy()


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    server: ServerSettings
    database: str
    """SQLAlchemy URL."""
    tasks: dict[str, str]
    """Addresses by name."""
    sandbox: SandboxPolicy = _SANDBOX
    """What mechanisms need of this machine."""
