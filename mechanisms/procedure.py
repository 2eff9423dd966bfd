"""The research procedure of an outer loop, as a source that can be replaced: its hooks, their answers, and its gate.

A procedure is one function ``research(hook, record)`` in the language of mechanisms. It is asked by name of the hook,
reads a record of plain data and answers None to leave a decision to the default. It keeps no state: every question
goes to a fresh worker, so that a replay gives the same answers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mechanisms.findings import Finding, Stage
from mechanisms.printable import one_line
from mechanisms.sandbox.failures import SourceRejected
from mechanisms.sandbox.function import FunctionFailure, SandboxedFunction, Signature
from mechanisms.sandbox.limits import SandboxPolicy

SIGNATURE = Signature("research", ("hook", "record"))
MOST_FIELDS, FIELD_CHARACTERS, MOST_HYPOTHESES = 12, 80, 8


class ProcedureHook(StrEnum):
    """The decisions of a research procedure."""

    LOOK = "look"
    """Whether to research now, where level 2 is due: True or False. The default is True."""
    FIELDS = "fields"
    """Neighbouring fields to survey: 1 to 12 texts of at most 80 characters."""
    HYPOTHESES = "hypotheses"
    """How many candidates the exploration gives: 1 to 8."""
    SCORE = "score"
    """One finite number for each of ``record["candidates"]``: the highest is built, whatever the critique chose."""


Answer = bool | tuple[str, ...] | int | tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a recorded session: what a procedure would have been asked, and what was decided instead."""

    record: Mapping[str, Any]
    """Built-in JSON types."""
    candidates: tuple[Mapping[str, Any], ...] = ()
    """What the critique chose among; empty when the session did not come so far."""
    choice: str = ""
    """Name of the candidate that was chosen; empty for none."""


SYNTHETIC = (
    Moment({"decided": 10, "trials_left": 20, "since_improvement": 8, "improved": 1, "installed": 0, "sessions": []}),
    Moment(
        {
            "decided": 20,
            "trials_left": 10,
            "since_improvement": 0,
            "improved": 4,
            "installed": 1,
            "sessions": [{"after_trial": 10, "outcome": "installed", "mechanism": "tabu", "verdict": "keep"}],
        },
        (
            {
                "name": "tabu",
                "field": "tabu search",
                "merit": "m",
                "risk": "r",
                "library": True,
                "judged": 2,
                "kept": 1,
            },
            {"name": "new", "field": "bandits", "merit": "m", "risk": "r", "library": False, "judged": 0, "kept": 0},
        ),
        "new",
    ),
    Moment(
        {
            "decided": 30,
            "trials_left": 1,
            "since_improvement": 30,
            "improved": 0,
            "installed": 0,
            "sessions": [
                {"after_trial": 10, "outcome": "rejected", "mechanism": "", "verdict": ""},
                {"after_trial": 20, "outcome": "installed", "mechanism": "odd", "verdict": "retire"},
            ],
        }
    ),
)
"""Moments beside the recorded ones, because a procedure may be proposed before there are any."""


@dataclass(frozen=True, slots=True)
class ProcedureReport:
    """The gate's verdict on a procedure."""

    accepted: bool
    stage: Stage
    findings: tuple[Finding, ...]
    source_sha256: str
    summary: str = ""
    recorded: int = 0
    """Recorded moments that were replayed."""
    changed: int = 0
    """Decisions that it would have changed, on recorded and synthetic moments together."""

    def render(self) -> str:
        """The report as plain text, for people and for the model that repairs the source."""
        lines = [f"research procedure: {'accepted' if self.accepted else 'rejected'} at stage {self.stage.value}"]
        lines += [f"- {finding.stage.value}: {finding.render()}" for finding in self.findings]
        if self.accepted:
            moments = f"{self.recorded} recorded and {len(SYNTHETIC)} synthetic moments"
            lines.append(f"{moments}: {self.changed} decisions would have changed")
        return "\n".join(lines)


async def ask(source: str, hook: ProcedureHook, record: Mapping[str, Any], policy: SandboxPolicy) -> Answer:
    """One answer of a procedure, judged; None leaves the decision to the default.

    Raises :class:`SourceRejected`, :class:`FunctionFailure` and :class:`SandboxUnavailable`.
    """
    async with await SandboxedFunction.start(source, SIGNATURE, policy=policy) as function:
        return await _ask(function, hook, record)


async def check(source: str, recorded: Sequence[Moment], policy: SandboxPolicy) -> ProcedureReport:
    """Judge ``source``: language, conformance, a double replay of every hook at every moment, effect.

    Raises SandboxUnavailable when this machine cannot run it.
    """
    sha256 = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
    moments = (*recorded, *SYNTHETIC)
    try:
        first, summary = await _replay(source, moments, policy)
        second, _ = await _replay(source, moments, policy)
    except SourceRejected as rejected:
        return ProcedureReport(False, rejected.findings[0].stage, rejected.findings, sha256)
    except FunctionFailure as failure:
        finding = Finding(Stage.REPLAY, failure.line, str(failure))
        return ProcedureReport(False, Stage.REPLAY, (finding,), sha256)
    if first != second:
        message, hint = "two replays gave different answers", "answers may depend on the record only"
        return ProcedureReport(False, Stage.REPLAY, (Finding(Stage.REPLAY, None, message, hint),), sha256, summary)
    changed = sum(_changes(hook, answer, moment) for moment, hook, answer in first)
    if not changed:
        message = "it would have changed no decision at any recorded or synthetic moment"
        finding = Finding(Stage.EFFECT, None, message, "answer something other than None, True and the choice made")
        return ProcedureReport(False, Stage.EFFECT, (finding,), sha256, summary, len(recorded))
    return ProcedureReport(True, Stage.EFFECT, (), sha256, summary, len(recorded), changed)


def best(scores: Sequence[float], candidates: Sequence[Mapping[str, Any]], choice: str) -> str:
    """The name of the candidate with the highest score; ``choice`` where it is among the best."""
    top = [c["name"] for c, score in zip(candidates, scores, strict=True) if score == max(scores)]
    return choice if choice in top else str(top[0])


def describe() -> str:
    """The interface in words."""
    looks = {
        ProcedureHook.LOOK: "True or False: whether to research now, where it is due. Default True.",
        ProcedureHook.FIELDS: f"a list of 1 to {MOST_FIELDS} fields, at most {FIELD_CHARACTERS} characters each.",
        ProcedureHook.HYPOTHESES: f"how many candidates the exploration gives, 1 to {MOST_HYPOTHESES}.",
        ProcedureHook.SCORE: "a list with one finite number for each of record['candidates']; the highest is built.",
    }
    hooks = "\n".join(f'  "{hook.value}": {text}' for hook, text in looks.items())
    return (
        f"One function {SIGNATURE}: in the language of mechanisms, without state. hook is one of the texts below; the\n"
        f"answer is as described, or None for the default:\n{hooks}\n"
        "record is a dict: decided, trials_left, since_improvement, improved (trials), installed (mechanisms now),\n"
        'sessions (a list of dicts with after_trial, outcome, mechanism, verdict). For "score" also candidates: dicts\n'
        "with name, field, merit, risk, library (whether the library offers it), judged and kept (its verdicts so far)."
    )


async def _replay(
    source: str, moments: Sequence[Moment], policy: SandboxPolicy
) -> tuple[list[tuple[Moment, ProcedureHook, Answer]], str]:
    answers: list[tuple[Moment, ProcedureHook, Answer]] = []
    async with await SandboxedFunction.start(source, SIGNATURE, policy=policy) as function:
        for moment in moments:
            for hook in ProcedureHook:
                if hook is ProcedureHook.SCORE and not moment.candidates:
                    continue
                record = {**moment.record, "candidates": [dict(candidate) for candidate in moment.candidates]}
                answers.append((moment, hook, await _ask(function, hook, record)))
        return answers, function.summary


async def _ask(function: SandboxedFunction, hook: ProcedureHook, record: Mapping[str, Any]) -> Answer:
    return await function.call(hook.value, dict(record), judge=lambda answer: _judged(hook, answer, record))


def _changes(hook: ProcedureHook, answer: Answer, moment: Moment) -> bool:
    if answer is None:
        return False
    if hook is ProcedureHook.LOOK:
        return answer is False
    if hook is ProcedureHook.SCORE:
        assert isinstance(answer, tuple)
        return best([float(score) for score in answer], moment.candidates, moment.choice) != moment.choice
    return True


def _judged(hook: ProcedureHook, answer: Any, record: Mapping[str, Any]) -> Answer:
    """The domain's form of an answer, as if the worker were hostile. Raises TypeError and ValueError."""
    if answer is None:
        return None
    match hook:
        case ProcedureHook.LOOK:
            if type(answer) is not bool:
                raise TypeError("must return True, False or None for look")
            return answer
        case ProcedureHook.HYPOTHESES:
            if type(answer) is not int:
                raise TypeError("must return a whole number or None for hypotheses")
            if not 1 <= answer <= MOST_HYPOTHESES:
                raise ValueError(f"must return 1 to {MOST_HYPOTHESES} for hypotheses; it returned {answer}")
            return answer
        case ProcedureHook.FIELDS:
            return _fields(answer)
        case ProcedureHook.SCORE:
            return _scores(answer, len(record["candidates"]))


def _fields(answer: Any) -> tuple[str, ...]:
    if type(answer) is not list or any(type(field) is not str for field in answer):
        raise TypeError("must return a list of texts or None for fields")
    fields = tuple(one_line(field, FIELD_CHARACTERS + 1).strip() for field in answer)
    if not 1 <= len(fields) <= MOST_FIELDS or any(not 1 <= len(field) <= FIELD_CHARACTERS for field in fields):
        raise ValueError(f"must return 1 to {MOST_FIELDS} texts of 1 to {FIELD_CHARACTERS} characters for fields")
    return fields


def _scores(answer: Any, count: int) -> tuple[float, ...]:
    if type(answer) is not list or any(type(score) not in (int, float) for score in answer):
        raise TypeError("must return a list of numbers or None for score")
    if len(answer) != count or not all(math.isfinite(score) for score in answer):
        raise ValueError(f"must return {count} finite numbers for score")
    return tuple(float(score) for score in answer)
