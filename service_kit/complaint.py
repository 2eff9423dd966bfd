"""An error as a command says it, on standard error: in words for people, or as one line of JSON for machines."""

from __future__ import annotations

import json as json_
import sys
from typing import Any

from service_kit.errors import RemoteError, ServiceError
from service_kit.exit_codes import OF_KIND, ExitCode
from service_kit.parameters import InvalidConfiguration
from service_kit.status import CODES


def complain(error: ServiceError | InvalidConfiguration, *, json: bool = False) -> ExitCode:
    """Write ``error: …`` and its hint, or with ``json`` :func:`document` on a line; returns the exit code that fits."""
    kind = kind_of(error)
    if json:
        fields = [{"field": v.field, "problem": v.description} for v in getattr(error, "violations", ())]
        hint = getattr(error, "hint", "")
        return say_json(kind, getattr(error, "message", "") or str(error), fields, hint)
    message, *rest = str(error).split("\n")
    wrong = [f"{violation.field}: {violation.description}" for violation in getattr(error, "violations", ())]
    if isinstance(error, InvalidConfiguration) and error.hint:
        rest = error.hint.split("\n")
    if message == "; ".join(wrong):
        message = "\n       ".join(wrong)
    sys.stderr.write("\n".join([f"error: {message}", *(f"       {line}" for line in rest)]) + "\n")
    return OF_KIND.get(kind, ExitCode.FAILED)


def say_json(kind: str, message: str, fields: list[dict[str, str]] | None = None, next_step: str = "") -> ExitCode:
    """Write one error as a line of JSON, in the shape that docs/cli.md states; returns the exit code of its kind."""
    code = OF_KIND.get(kind, ExitCode.FAILED)
    error: dict[str, Any] = {
        "kind": kind,
        "message": message,
        "fields": fields or [],
        "next_step": next_step,
        "exit_code": code.value,
    }
    sys.stderr.write(json_.dumps({"error": error}, ensure_ascii=False) + "\n")
    return code


def kind_of(error: Exception) -> str:
    """What sort of error it is, in one of the words of docs/protocol.md or of the table of exit codes."""
    if isinstance(error, RemoteError):
        return error.reason or error.code
    if isinstance(error, ServiceError) and error.ending:
        return error.ending
    return next((CODES[base][1] for base in type(error).__mro__ if base in CODES), "DEFECT")
