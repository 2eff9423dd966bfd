"""How every command of ours ends: one table of exit codes, and which error leads to which."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """What a command's exit code says. Numbers above 128 are 128 and the number of a signal, as shells have it."""

    meaning: str

    def __new__(cls, number: int, meaning: str) -> Self:
        code = int.__new__(cls, number)
        code._value_ = number
        code.meaning = meaning
        return code

    DONE = 0, "done; what the command measures holds"
    FAILED = 1, "what the command measures does not hold, or it failed for a reason without a number of its own"
    WRONG_INPUT = (
        2,
        "wrong input: an argument, option, setting or file, or an address or folder of yours that cannot be used",
    )
    UNREACHABLE = 3, "a service, a task, a database or a model endpoint cannot be reached, or is not what answers there"
    NOT_LET_IN = 4, "not let in: no token or key, a wrong or expired one, or one without the role"
    NOT_FOUND = 5, "what was named does not exist"
    WRONG_STATE = 6, "its state does not allow it: finished, paused, changed meanwhile, there already, at a limit"
    RUN_FAILED = 7, "the run failed, was cancelled, or waits for a person"
    BUDGET_SPENT = 8, "the run ended cleanly before its last trial, because a budget was used up"
    UNDECIDED = 9, "the time given was over before everything was checked"
    LEFT = 10, "the run goes on: whoever followed it left before its end"
    DEFECT = 70, "a defect of bilevel"
    HUNG_UP = 129, "the terminal was closed (SIGHUP)"
    INTERRUPTED = 130, "Ctrl-C (SIGINT)"
    PIPE_CLOSED = 141, "whoever read the output has left (SIGPIPE)"
    STOPPED = 143, "SIGTERM"


OF_KIND = {
    "REFUSED": ExitCode.FAILED,
    "UNIMPLEMENTED": ExitCode.FAILED,
    "INVALID_ARGUMENT": ExitCode.WRONG_INPUT,
    "INVALID_CONFIGURATION": ExitCode.WRONG_INPUT,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "ALREADY_EXISTS": ExitCode.WRONG_STATE,
    "WRONG_STATE": ExitCode.WRONG_STATE,
    "CONFLICT": ExitCode.WRONG_STATE,
    "EXHAUSTED": ExitCode.WRONG_STATE,
    "RESOURCE_EXHAUSTED": ExitCode.WRONG_STATE,
    "PERMISSION_DENIED": ExitCode.NOT_LET_IN,
    "UNAUTHENTICATED": ExitCode.NOT_LET_IN,
    "UNAVAILABLE": ExitCode.UNREACHABLE,
    "DEPENDENCY_UNAVAILABLE": ExitCode.UNREACHABLE,
    "DRAINING": ExitCode.UNREACHABLE,
    "STORAGE_FAILED": ExitCode.UNREACHABLE,
    "CUT_OFF": ExitCode.UNREACHABLE,
    "DEADLINE_EXCEEDED": ExitCode.UNREACHABLE,
    "WRONG_SERVICE": ExitCode.UNREACHABLE,
    "RUN_FAILED": ExitCode.RUN_FAILED,
    "BUDGET_SPENT": ExitCode.BUDGET_SPENT,
    "DEFECT": ExitCode.DEFECT,
    "INTERRUPTED": ExitCode.INTERRUPTED,
    "STOPPED": ExitCode.STOPPED,
    "HUNG_UP": ExitCode.HUNG_UP,
}
"""By the kind of an error; a kind that is not here ends with FAILED."""


_SHORT = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed",
    ExitCode.WRONG_INPUT: "wrong input",
    ExitCode.UNREACHABLE: "cannot be reached",
    ExitCode.NOT_LET_IN: "not let in",
    ExitCode.NOT_FOUND: "not found",
    ExitCode.WRONG_STATE: "wrong state",
    ExitCode.RUN_FAILED: "run failed, cancelled or waiting",
    ExitCode.BUDGET_SPENT: "a budget ended the run",
    ExitCode.UNDECIDED: "time was over",
    ExitCode.LEFT: "left while the run goes on",
    ExitCode.INTERRUPTED: "Ctrl-C",
}
_SOME = {ExitCode.RUN_FAILED, ExitCode.BUDGET_SPENT, ExitCode.UNDECIDED, ExitCode.LEFT}
"""Only of commands that say so."""


def exit_codes(*more: ExitCode, done: str = "", failed: str = "") -> str:
    """The table in a sentence, for the end of a ``--help``; with a command's own words for 0 and 1."""
    said = _SHORT | {ExitCode.DONE: done or "done", ExitCode.FAILED: failed or "failed"}
    shown = [f"{code.value} {words}" for code, words in said.items() if code not in _SOME or code in more]
    return f"Exit codes: {', '.join(shown)}."
