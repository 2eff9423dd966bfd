"""The catalogue of errors that a user can meet.

Domain code raises these; it knows nothing of gRPC. :mod:`service_kit.status` holds the one table that turns each of
them into a ``google.rpc.Status`` on the wire and back into a :class:`RemoteError` at the client. Every message names
the field or the resource and what is allowed; ``hint`` says what to do next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from service_kit.parameters import InvalidConfiguration, Violation

__all__ = [
    "AlreadyExists",
    "Conflict",
    "Draining",
    "Exhausted",
    "InvalidArgument",
    "InvalidConfiguration",
    "NotFound",
    "PermissionDenied",
    "RemoteError",
    "ServiceError",
    "StorageFailed",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "WrongState",
    "naming",
]


class ServiceError(Exception):
    """Base of the catalogue. ``str(error)`` is the message with the hint on a line of its own."""

    ending: str = ""
    """For commands, a kind of its own where the catalogue does not say enough; see :mod:`service_kit.exit_codes`."""

    attachments: Sequence[Any] = ()
    """Further facts as protobuf messages: passed on in the status's details, and read back from there as ``Any``."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InvalidArgument(ServiceError):
    """A request is wrong in itself, whatever the state of the service; ``violations`` lists every wrong field."""

    def __init__(self, violations: Sequence[Violation], *, hint: str = "") -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in self.violations), hint=hint)

    @classmethod
    def of(cls, field: str, description: str, *, hint: str = "") -> InvalidArgument:
        """The error for a single field; ``description`` completes "``field`` …" and names the allowed range."""
        return cls([Violation(field, description)], hint=hint)


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Raise a :class:`ServiceError` of the block as :class:`InvalidArgument` that names the setting it comes from."""
    try:
        yield
    except InvalidArgument:
        raise
    except ServiceError as error:
        raise InvalidArgument.of(field, error.message, hint=error.hint) from None


class NotFound(ServiceError):
    """A named resource does not exist."""

    def __init__(self, resource: str, name: str, hint: str = "") -> None:
        self.resource, self.name = resource, name
        super().__init__(f"{resource} {name!r} does not exist", hint=hint)


class AlreadyExists(ServiceError):
    """A resource with that name, or another request with that request_id, exists already."""

    def __init__(self, resource: str, name: str, hint: str = "") -> None:
        self.resource, self.name = resource, name
        super().__init__(f"{resource} {name!r} exists already", hint=hint)


class WrongState(ServiceError):
    """The resource exists, but ``action`` is only possible in one of the states ``allowed``."""

    def __init__(
        self, resource: str, name: str, state: str, action: str, allowed: Sequence[str], *, hint: str = ""
    ) -> None:
        self.resource, self.name, self.state, self.action, self.allowed = resource, name, state, action, tuple(allowed)
        needed = " or ".join(allowed) if allowed else "no state"
        super().__init__(f"cannot {action} {resource} {name!r}: it is {state}, must be {needed}", hint=hint)


class Conflict(ServiceError):
    """The resource was changed since the caller read it: its etag no longer matches."""

    def __init__(self, resource: str, name: str, hint: str = "read it again and repeat the change") -> None:
        self.resource, self.name = resource, name
        super().__init__(f"{resource} {name!r} was changed by someone else since you read it", hint=hint)


class PermissionDenied(ServiceError):
    """The caller is known but lacks the role that ``action`` needs."""

    def __init__(self, action: str, role: str, hint: str = "") -> None:
        self.action, self.role = action, role
        super().__init__(f"{action} needs the role {role!r}", hint=hint)


class Unauthenticated(ServiceError):
    """The caller showed no credentials, or wrong ones."""


class Unavailable(ServiceError):
    """Something that this service depends on cannot be reached now; trying again later may work."""

    def __init__(self, dependency: str, hint: str = "") -> None:
        self.dependency = dependency
        super().__init__(f"{dependency} cannot be reached", hint=hint)


class CutOff(ServiceError):
    """Work was cut off by something else, and nothing is known of what it would have given: begin it again."""


class Draining(ServiceError):
    """The server is going down: a stream must be opened again after ``retry_after`` seconds, from where it ended."""

    def __init__(self, stream: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(f"the server is going down: {stream} has not ended", hint="Open it again from where it is.")


class StorageFailed(ServiceError):
    """The service's own database cannot be read or written now. Nothing that was committed is lost."""


class Exhausted(ServiceError):
    """A quota or a limit is used up. ``current`` is how much is in use, where that was counted."""

    def __init__(self, field: str, limit: str | int | float, hint: str = "", *, current: int | None = None) -> None:
        self.field, self.limit = field, str(limit)
        counted = "" if current is None else f": there are {current}"
        if current is not None:
            self.current = str(current)
        super().__init__(f"{field} has reached its limit of {limit}{counted}", hint=hint)


class Unimplemented(ServiceError):
    """The service knows the call but does not offer it."""

    def __init__(self, feature: str, hint: str = "") -> None:
        self.feature = feature
        super().__init__(f"{feature} is not offered by this server", hint=hint)


class RemoteError(ServiceError):
    """What another server answered instead of a result.

    ``code`` is the name of the gRPC status code (``NOT_FOUND``), ``reason`` the machine-readable reason from that
    server's own catalogue (``WRONG_STATE``; empty when it sent none), ``metadata`` the facts behind it, for example
    ``resource``, ``name``, ``state``; ``retry_after`` the seconds after which that server wants to be asked again, or
    None when it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        reason: str = "",
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        hint: str = "",
        retry_after: float | None = None,
    ) -> None:
        self.retry_after = retry_after
        self.request = ""
        """Id of the call, under which the log of that server has it; empty when it sent none."""
        self.code = code
        self.reason = reason
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        super().__init__(message, hint=hint)
