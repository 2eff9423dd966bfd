"""A trace's events as the log stores them. An event's class name in snake case is its kind, there and on the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from inner_service.trace import Event
from service_kit.eventlog import NewEvent

KINDS: dict[str, type[Event]] = {re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower(): cls for cls in Event.__args__}
"""Every kind of event by its name, for example ``trial_proposed``."""
_NAMES = {cls: kind for kind, cls in KINDS.items()}
_ADAPTERS: dict[type[Event], TypeAdapter[Any]] = {cls: TypeAdapter(cls) for cls in KINDS.values()}


def kind_of(event: Event) -> str:
    """The event's kind, for example ``trial_proposed``."""
    return _NAMES[type(event)]


def encode(event: Event) -> NewEvent:
    """The event as the log stores it."""
    return NewEvent(kind_of(event), _ADAPTERS[type(event)].dump_python(event, mode="json"))


def decode(kind: str, payload: Mapping[str, Any]) -> Event:
    """The inverse of :func:`encode`. Raises ValueError for an unknown kind or a payload that does not fit it."""
    cls = KINDS.get(kind)
    if cls is None:
        raise ValueError(f"the trace holds an event of unknown kind {kind!r}: was it written by a newer version?")
    return _ADAPTERS[cls].validate_python(payload)  # type: ignore[no-any-return]
