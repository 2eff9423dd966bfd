"""Libraries that are used where they are installed, and a clear error where they are not."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from service_kit.errors import ServiceError


def optional(module: str, extra: str, purpose: str) -> Any:
    """The imported ``module``; ``purpose`` completes "is needed …".

    Raises :class:`ServiceError` naming the extra that brings it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        package = module.partition(".")[0]
        raise ServiceError(
            f"{package} is not installed; it is needed {purpose}",
            hint=f"Install it with the extra: pip install 'bilevel-autoresearch[{extra}]'.",
        ) from None
