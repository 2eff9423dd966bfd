"""What a worker's answer says, whatever it was asked: a value, a failure of the source, or a refused source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mechanisms.findings import Finding, Stage
from mechanisms.printable import one_line
from mechanisms.sandbox.failures import FailureKind

_MESSAGE_CHARACTERS = 500


class WorkerFailure(Exception):
    """The source failed at what it was asked. ``line`` of the source is counted from 1; None when it is unknown."""

    def __init__(self, kind: FailureKind, message: str, line: int | None = None) -> None:
        self.kind, self.message, self.line = kind, message, line
        super().__init__(message)


def opened(answer: Mapping[str, Any]) -> Any:
    """The value of an answer. Raises :class:`WorkerFailure`, also for an answer that is none."""
    if "answer" in answer:
        return answer["answer"]
    failed = answer.get("failed")
    try:
        kind, message = FailureKind(failed["kind"]), one_line(str(failed["message"]), _MESSAGE_CHARACTERS)  # type: ignore[index]
        line = failed["line"]  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        raise WorkerFailure(FailureKind.PROTOCOL, "the worker sent no answer") from None
    raise WorkerFailure(kind, message, line if type(line) is int else None)


def refusals(answer: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Why the worker refused the source; empty when it did not."""
    if "rejected" not in answer:
        return ()
    try:
        findings = tuple(Finding.from_json(data) for data in answer["rejected"][:50])
    except (KeyError, TypeError, ValueError, AttributeError):
        findings = ()
    return findings or (Finding(Stage.LANGUAGE, None, "the source was refused"),)
