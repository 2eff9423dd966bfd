"""Which request, run, trial and campaign the work at hand belongs to: on every line of the log, and in every call.

The ids live in structlog's context variables, so that tasks, and threads of :func:`asyncio.to_thread`, inherit them. A
call to another service carries them as metadata (:data:`HEADERS`); the server there binds them again
(:mod:`service_kit.calls`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from structlog import contextvars

REQUEST = "request"
HEADERS = {
    REQUEST: "x-request-id",
    "campaign": "x-bilevel-campaign",
    "run": "x-bilevel-run",
    "trial": "x-bilevel-trial",
}
"""Every id with its name in the metadata of a call. Runs, trials and campaigns go by their resource names."""

_ID = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")


def new_request() -> str:
    """An id for a request that has none yet."""
    return secrets.token_hex(8)


def bound(**ids: str) -> AbstractContextManager[None]:
    """Within the block, and in the tasks that it starts, the work belongs to ``ids``, beside those from outside.

    Not for a block that yields: a generator may be closed in another context.
    """
    return contextvars.bound_contextvars(**ids)


def bind(ids: Mapping[str, str]) -> None:
    """From now on the task's work belongs to ``ids``, beside those that it has."""
    contextvars.bind_contextvars(**ids)


def begin(**ids: str) -> None:
    """From now on the task's work belongs to ``ids`` and to nothing else: it outlives the request that began it."""
    contextvars.unbind_contextvars(*HEADERS)
    bind(ids)


def current() -> dict[str, str]:
    """The ids that are bound."""
    known = contextvars.get_contextvars()
    return {name: known[name] for name in HEADERS if name in known}


def to_metadata() -> list[tuple[str, str]]:
    """The ids as a call carries them; a call outside of any request gets an id of its own."""
    ids = {REQUEST: new_request(), **current()}
    return [(HEADERS[name], value) for name, value in ids.items()]


def from_metadata(metadata: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """The ids that a call carries, with a new request id where it has none; what is no id is left out."""
    given = dict(metadata)
    ids = {name: given[header] for name, header in HEADERS.items() if _is_id(given.get(header))}
    return {REQUEST: new_request(), **ids}


def named_in(request: Any) -> dict[str, str]:
    """The run, trial or campaign that a request names, by its resource name."""
    found: dict[str, str] = {}
    for field in ("name", "parent", "run", "campaign"):
        value = getattr(request, field, "")
        if not _is_id(value):
            continue
        parts = str(value).split("/")
        if parts[0] == "runs" and len(parts) > 1:
            found["run"] = "/".join(parts[:2])
            if len(parts) == 4 and parts[2] == "trials":
                found["trial"] = value
        elif parts[0] == "campaigns" and len(parts) > 1:
            found["campaign"] = "/".join(parts[:2])
    return found


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None
