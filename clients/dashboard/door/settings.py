"""What the environment says about who may come in."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from service_kit.errors import InvalidArgument, ServiceError, naming
from service_kit.settings import EnvironmentSettings

SHORTEST_PASSWORD = 12
"""Characters."""
_MAKES_ONE = "For example: openssl rand -base64 24 > FILE"


class Access(StrEnum):
    """What a login allows."""

    DRIVE = "drive"
    """Everything that the pages offer."""
    VIEW = "view"
    """Looking only."""


_VARIABLES = {Access.DRIVE: "BILEVEL_DASHBOARD_PASSWORD", Access.VIEW: "BILEVEL_DASHBOARD_VIEW_PASSWORD"}


class DoorSettings(EnvironmentSettings):
    """Passwords, sessions and names of the dashboard."""

    password: SecretStr | None = Field(None, alias="BILEVEL_DASHBOARD_PASSWORD")
    password_file: Path | None = Field(None, alias="BILEVEL_DASHBOARD_PASSWORD_FILE")
    """Read with every login, so that a changed password counts at once."""
    view_password: SecretStr | None = Field(None, alias="BILEVEL_DASHBOARD_VIEW_PASSWORD")
    view_password_file: Path | None = Field(None, alias="BILEVEL_DASHBOARD_VIEW_PASSWORD_FILE")
    session_hours: float = Field(12.0, alias="BILEVEL_DASHBOARD_SESSION_HOURS", gt=0, le=24 * 30)
    hosts: str = Field("", alias="BILEVEL_DASHBOARD_HOSTS")

    @field_validator("password", "view_password")
    @classmethod
    def _long_enough(cls, password: SecretStr | None) -> SecretStr | None:
        if password is not None and len(password.get_secret_value()) < SHORTEST_PASSWORD:
            raise ValueError(f"must have at least {SHORTEST_PASSWORD} characters; it is not shown here")
        return password

    @model_validator(mode="after")
    def _one_source(self) -> DoorSettings:
        for name in ("BILEVEL_DASHBOARD_PASSWORD", "BILEVEL_DASHBOARD_VIEW_PASSWORD"):
            prefix = "view_" if "VIEW" in name else ""
            given, file = getattr(self, f"{prefix}password"), getattr(self, f"{prefix}password_file")
            if given is not None and file is not None:
                raise ValueError(f"{name} must not be set beside {name}_FILE")
        if (self.view_password or self.view_password_file) and not (self.password or self.password_file):
            raise ValueError("BILEVEL_DASHBOARD_VIEW_PASSWORD needs BILEVEL_DASHBOARD_PASSWORD beside it")
        return self

    @property
    def lifetime(self) -> timedelta:
        """How long a session lives."""
        return timedelta(hours=self.session_hours)

    @property
    def host_names(self) -> frozenset[str]:
        """Names beside localhost and IP addresses by which browsers may call the dashboard."""
        return frozenset(name.strip().lower() for name in self.hosts.split(",") if name.strip())

    @property
    def wants_login(self) -> bool:
        return self.password is not None or self.password_file is not None

    def digests(self) -> Mapping[Access, bytes]:
        """SHA-256 of each password now, by what it allows.

        Raises :class:`InvalidArgument` for an unusable file, and where both passwords are the same.
        """
        sources = {
            Access.DRIVE: (self.password, self.password_file),
            Access.VIEW: (self.view_password, self.view_password_file),
        }
        found = {}
        for access, (given, file) in sources.items():
            password = given.get_secret_value() if given is not None else None
            if file is not None:
                with naming(_VARIABLES[access] + "_FILE"):
                    password = _from_file(file)
            if password is not None:
                found[access] = hashlib.sha256(password.encode()).digest()
        if len(set(found.values())) < len(found):
            raise InvalidArgument.of(
                _VARIABLES[Access.VIEW], f"must be another password than {_VARIABLES[Access.DRIVE]}"
            )
        return found

    def access_of(self, password: str) -> Access | None:
        """What ``password`` allows; None for a wrong one. Takes as long for a wrong one as for a right one."""
        shown = hashlib.sha256(password.encode()).digest()
        allowed = None
        for access, digest in self.digests().items():
            if hmac.compare_digest(shown, digest):
                allowed = allowed or access
        return allowed


def _from_file(file: Path) -> str:
    try:
        password = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = str(getattr(error, "strerror", None) or "it is no text").lower()
        raise ServiceError(f"cannot read the dashboard's password file {file}: {reason}", hint=_MAKES_ONE) from None
    if len(password) < SHORTEST_PASSWORD:
        raise ServiceError(
            f"{file} must hold a password of at least {SHORTEST_PASSWORD} characters",
            hint=_MAKES_ONE,
        )
    return password
