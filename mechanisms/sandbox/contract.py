"""The host's judgement of every answer: types, ranges, names and lengths, as if the worker were hostile.

Each function takes the decoded JSON of one answer and returns the domain's form of it, or raises :class:`Breach`.
``None`` always means "no opinion".
"""

from __future__ import annotations

import math
from typing import Any
from unicodedata import category

from mechanisms.interface import Candidate, Origin, SearchView
from mechanisms.printable import one_line, printable
from mechanisms.sandbox.failures import FailureKind
from mechanisms.sandbox.limits import SandboxLimits
from service_kit.parameters import InvalidConfiguration, ParameterSpace, Violation, value_from_json


class Breach(Exception):
    """An answer breaks the contract."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        self.kind = kind
        super().__init__(message)


def _wrong_type(expected: str, answer: object) -> Breach:
    names = {dict: "dict", list: "list", type(None): "None"}
    shown = names.get(type(answer), type(answer).__name__)
    return Breach(FailureKind.WRONG_TYPE, f"must return {expected}; it returned {shown}")


def digest(answer: Any) -> str:
    """The worker's digest of the mechanism's state."""
    if type(answer) is not str or len(answer) > 64 or not answer.isalnum():
        raise Breach(FailureKind.PROTOCOL, "the worker sent no digest of its state")
    return answer


def prompt_text(answer: Any, limits: SandboxLimits) -> str:
    """Text for the proposer's prompt, without control characters; empty for None."""
    if answer is None:
        return ""
    if type(answer) is not str:
        raise _wrong_type("a text or None", answer)
    if len(answer) > limits.prompt_characters:
        message = f"prompt text of {len(answer)} characters; at most {limits.prompt_characters} are allowed"
        raise Breach(FailureKind.OUT_OF_RANGE, message)
    return printable(answer)


def reason(answer: Any, limits: SandboxLimits) -> str | None:
    """Why a candidate must not run, in one line; None when it may."""
    if answer is None:
        return None
    if type(answer) is not str or not printable(answer).strip():
        raise _wrong_type("a reason as non-empty text, or None", answer)
    if len(answer) > limits.reason_characters:
        message = f"a reason of {len(answer)} characters; at most {limits.reason_characters} are allowed"
        raise Breach(FailureKind.OUT_OF_RANGE, message)
    return one_line(answer, limits.reason_characters)


def proposals(
    answer: Any, count: int, view: SearchView, space: ParameterSpace, limits: SandboxLimits
) -> tuple[Candidate, ...]:
    """At most ``count`` candidates. Those that equal the incumbent are left out: they propose nothing."""
    if answer is None:
        return ()
    if type(answer) is not list:
        raise _wrong_type("a list of candidates", answer)
    candidates = [candidate(element, view, space, limits) for element in answer]
    return tuple(c for c in candidates if c.changes)[:count]


def revision(
    answer: Any, original: Candidate, view: SearchView, space: ParameterSpace, limits: SandboxLimits
) -> Candidate:
    """The candidate to run instead; the original for None. It keeps its origin and proposer."""
    if answer is None:
        return original
    revised = candidate(answer, view, space, limits)
    if not revised.changes:
        message = (
            "revise returned a candidate that equals the incumbent; change something, or return the candidate as it was"
        )
        raise Breach(FailureKind.OUT_OF_RANGE, message)
    hypothesis = revised.hypothesis or original.hypothesis
    return Candidate(revised.changes, hypothesis, original.origin, original.proposer)


def candidate(answer: Any, view: SearchView, space: ParameterSpace, limits: SandboxLimits) -> Candidate:
    """A candidate whose changes are typed, in range and active, without those that equal the incumbent."""
    if type(answer) is not dict or type(answer.get("changes")) is not dict:
        raise _wrong_type("Candidate(changes={...}, hypothesis='...')", answer)
    hypothesis = answer.get("hypothesis", "")
    if type(hypothesis) is not str:
        raise Breach(
            FailureKind.WRONG_TYPE, f"a candidate's hypothesis must be text; it is {type(hypothesis).__name__}"
        )
    if len(hypothesis) > limits.hypothesis_characters:
        message = f"a hypothesis of {len(hypothesis)} characters; at most {limits.hypothesis_characters} are allowed"
        raise Breach(FailureKind.OUT_OF_RANGE, message)
    base = view.incumbent.configuration
    try:
        values = {name: value_from_json(value) for name, value in answer["changes"].items()}
        _check_texts(values)
        changes = space.changes(base, space.apply(base, values))
        _check_active(changes, view)
    except TypeError as error:
        raise Breach(FailureKind.WRONG_TYPE, f"a candidate's changes: {error}") from None
    except InvalidConfiguration as error:
        raise Breach(FailureKind.OUT_OF_RANGE, str(error)[:1000]) from None
    return Candidate(changes, one_line(hypothesis, limits.hypothesis_characters), Origin.MECHANISM)


def scores(answer: Any, count: int) -> tuple[float, ...]:
    """One finite number a candidate; equal ones for None."""
    if answer is None:
        return (0.0,) * count
    if type(answer) is not list:
        raise _wrong_type("a list of scores", answer)
    if len(answer) != count:
        raise Breach(FailureKind.OUT_OF_RANGE, f"rank returned {len(answer)} scores for {count} candidates")
    return tuple(_number(score, "a score") for score in answer)


def acceptance(answer: Any) -> bool | None:
    """Exactly True, False or None."""
    if answer is not None and type(answer) is not bool:
        raise _wrong_type("True, False or None", answer)
    return answer


def fraction(answer: Any, limits: SandboxLimits) -> float:
    """A fraction up to 1; 1 for None."""
    if answer is None:
        return 1.0
    number = _number(answer, "budget")
    if not limits.min_budget <= number <= 1.0:
        message = f"budget must be from {limits.min_budget:g} to 1; it is {number:g}"
        raise Breach(FailureKind.OUT_OF_RANGE, message)
    return number


def _number(value: Any, what: str) -> float:
    if type(value) not in (int, float):
        raise Breach(FailureKind.WRONG_TYPE, f"{what} must be a number; it is {type(value).__name__}")
    if not math.isfinite(value) or abs(value) > 1e300:
        raise Breach(FailureKind.OUT_OF_RANGE, f"{what} must be finite")
    return float(value)


def _check_texts(values: dict[str, Any]) -> None:
    # A trace with a lone surrogate could not be sent any more; other controls would steer who reads it.
    violations = [
        Violation(name, "must be text without control characters and lone surrogates")
        for name, value in values.items()
        if type(value) is str and any(category(c) in ("Cc", "Cs") and c not in "\n\r\t" for c in value)
    ]
    if violations:
        raise InvalidConfiguration(violations)


def _check_active(changes: dict[str, Any], view: SearchView) -> None:
    active = ", ".join(view.active)
    violations = [
        Violation(name, f"is frozen now and cannot be changed; view.active is {active}")
        for name in changes
        if name not in view.active
    ]
    if violations:
        raise InvalidConfiguration(violations)
