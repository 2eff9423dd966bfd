"""How a followed run ended, where that is not simply well: an error with an exit code of its own."""

from __future__ import annotations

from pathlib import Path

from bilevel.v1 import trace_pb2

from clients import wording
from clients.searching import Search
from service_kit.errors import ServiceError


class RunNotFinished(ServiceError):
    """It failed, was cancelled, or waits for a person."""

    ending = "RUN_FAILED"


class BudgetSpent(ServiceError):
    """It finished, and is confirmed and reported, but a budget ended it before its last trial."""

    ending = "BUDGET_SPENT"


def check_finished(search: Search, stopped: Path | None = None) -> None:
    """Raise where the run did not run all of its trials.

    ``stopped`` is the folder of the stack that the run was on, where it ended with the command.
    """
    trace, id_ = search.trace, search.run.rpartition("/")[2]
    if trace.state == trace_pb2.RUN_STATE_FINISHED:
        _check_all_decided(search.run, trace.decided, trace.spec.max_trials, trace.state_reason)
        return
    state = "is paused" if not search.finished else f"has {wording.run_state(trace.state)}"
    above = f"\nThe outer loop: {search.outer.activity}" if search.campaign and not search.finished else ""
    if stopped is not None:
        hint = f"Its services are stopped; their logs are in {stopped / 'logs'}. Mend the cause and start a new run."
    elif search.finished:
        hint = f"`bilevel watch {id_}` shows why."
    else:
        hint = f"Mend the cause, then go on with `bilevel resume {id_}`, or end it with `bilevel cancel {id_}`."
    raise RunNotFinished(f"{search.run} {state}: {trace.state_reason}{above}", hint=hint)


def check_watched(run: str, state: trace_pb2.RunState.ValueType, reason: str, decided: int, planned: int) -> None:
    """Raise, as :func:`check_finished` does, where a run that is over did not decide all its ``planned`` trials."""
    if state == trace_pb2.RUN_STATE_FINISHED:
        _check_all_decided(run, decided, planned, reason)
        return
    was = "has failed" if state == trace_pb2.RUN_STATE_FAILED else f"was {wording.run_state(state)}"
    raise RunNotFinished(
        f"{run} {was}: {reason or 'no reason was given'}",
        hint=f"`bilevel report {run.rpartition('/')[2]}` keeps what it found until then.",
    )


def _check_all_decided(run: str, decided: int, planned: int, reason: str) -> None:
    if decided < planned:
        raise BudgetSpent(
            f"{run} ended after {decided} of {planned} trials: {reason}",
            hint="What it found stands. A larger budget, or none, lets a new run go on longer.",
        )
