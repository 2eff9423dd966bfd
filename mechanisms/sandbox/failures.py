"""How running a mechanism can fail, as typed exceptions. None of them carries anything but plain, capped text."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from mechanisms.findings import Finding, Stage
from mechanisms.interface import Hook
from mechanisms.printable import one_line

MESSAGE_CHARACTERS = 1000


class FailureKind(StrEnum):
    """What a mechanism did wrong."""

    RAISED = "raised"
    """The hook raised an exception."""
    TIMED_OUT = "timed_out"
    """It did not answer before its deadline."""
    WRONG_TYPE = "wrong_type"
    """The answer has the wrong type or shape."""
    OUT_OF_RANGE = "out_of_range"
    """A value is outside what the space, the search configuration or the interface allows."""
    FRAME_TOO_LARGE = "frame_too_large"
    """The answer is larger than a frame may be."""
    PROTOCOL = "protocol"
    """The worker sent something that is no answer to the question."""
    DIED = "died"
    """The worker ended: a forbidden system call, memory, a crash of the interpreter."""
    BUDGET_EXHAUSTED = "budget_exhausted"
    """All calls together took longer than the mechanism's time budget."""
    OBSTRUCTED = "obstructed"
    """It vetoed nearly everything, or proposed the same again and again."""
    CONFLICTED = "conflicted"
    """It worked against another mechanism, and had to go for it."""


class MechanismFailure(Exception):
    """A mechanism failed. Its worker is already dead."""

    def __init__(self, hook: Hook, kind: FailureKind, message: str, line: int | None = None) -> None:
        self.hook = hook
        self.kind = kind
        self.message = message = one_line(message, MESSAGE_CHARACTERS)
        self.line = line
        """Line of the source, counted from 1; None when unknown."""
        super().__init__(
            f"{hook.value} {kind.value.replace('_', ' ')}: {message}" + (f" (line {line})" if line else "")
        )


class SourceRejected(Exception):
    """The source is outside the language, or does not define what it must. Its worker is already dead."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        self.stage: Stage = self.findings[0].stage
        super().__init__("; ".join(finding.render() for finding in self.findings))


class MechanismRejected(SourceRejected):
    """The source does not compile to a mechanism."""


class SandboxUnavailable(Exception):
    """This machine cannot run mechanisms: a required layer of the sandbox is missing. The message says what to do."""
