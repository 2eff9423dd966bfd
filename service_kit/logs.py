"""Structured logging to stderr for every process: for people on a terminal, or as JSON lines for machines.

``BILEVEL_LOG_FORMAT`` is ``console`` or ``json`` (default: console on a terminal, JSON otherwise) and
``BILEVEL_LOG_LEVEL`` one of debug, info, warning, error (default info). Log lines of libraries take the same way.
Secrets are taken out of every line, wherever they hide in it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

import structlog

from service_kit.errors import InvalidArgument
from service_kit.telemetry import tracing

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(r"key|token|secret|password|credential|authorization", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"(?i)(\bbearer\s+)\S+|\bsk-[\w-]{8,}|(://[^/\s:@]*:)[^@\s/]+(?=@)")
_LEVELS = ("debug", "info", "warning", "error")
_FORMATS = ("console", "json")


def configure(service: str, *, level: str = "", format_: str = "", unless_set: str = "info") -> None:
    """Set up logging for this process; ``service`` is on every line.

    ``level`` and ``format_`` go before what the environment says; ``unless_set`` is the level where it says nothing.
    Raises :class:`InvalidArgument` for an unknown format or level.
    """
    level, format_ = level or chosen_level(unless_set), format_ or chosen_format()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _logger, _method, event: {"service": service, **tracing.for_logs(), **event},
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(default=str)
        if format_ == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
    )
    handler = _Stderr()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "sqlalchemy.engine", "alembic", "asyncio"):
        logging.getLogger(chatty).setLevel("WARNING")


class _Stderr(logging.Handler):
    """Writes to whatever ``sys.stderr`` is at that moment: a progress display may have put itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 (logging must never break what it reports on; handleError says so on stderr)
            self.handleError(record)


def redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Structlog processor: blank values named like secrets and texts that look like one. Numbers, such as token counts,
    are never secrets."""
    return {name: _clean(name, value) for name, value in event.items()}


def _clean(name: str, value: object) -> object:
    if isinstance(value, bool | int | float) or value is None:
        return value
    if _SECRET_NAME.search(name):
        # A table of token counts is worth reading; a table of secrets has its strings blanked one by one.
        is_table = isinstance(value, Mapping) and all(isinstance(v, bool | int | float) for v in value.values())
        return value if is_table else REDACTED
    if isinstance(value, Mapping):
        return {key: _clean(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean("", inner) for inner in value]
    return redact_text(value if isinstance(value, str) else str(value))


def redact_text(text: str) -> str:
    """``text`` without bearer tokens, API keys of the usual form and passwords in URLs."""
    return _SECRET_TEXT.sub(lambda match: (match[1] or match[2] or "") + REDACTED, text)


def chosen_level(unless_set: str = "info") -> str:
    """What BILEVEL_LOG_LEVEL says. Raises :class:`InvalidArgument` for an unknown one."""
    return _choice("BILEVEL_LOG_LEVEL", _LEVELS, unless_set)


def chosen_format() -> str:
    """What BILEVEL_LOG_FORMAT says. Raises :class:`InvalidArgument` for an unknown one."""
    return _choice("BILEVEL_LOG_FORMAT", _FORMATS, "console" if sys.stderr.isatty() else "json")


def _choice(variable: str, allowed: tuple[str, ...], default: str) -> str:
    value = os.environ.get(variable, "").lower() or default
    if value not in allowed:
        raise InvalidArgument.of(variable, f"must be one of {', '.join(allowed)}; got {value!r}")
    return value
