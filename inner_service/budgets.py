"""A run's budgets: trials, time, evaluation time, tokens, money. What would exceed one is not begun.

How long an evaluation will be is not known before. The longest one so far stands for the next, what is under way counts
as if it took as long, and what the confirmation will need is set aside. Of a call of the model the most that it can use
is known, and a call that could exceed its budget is refused before it is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from inner_service.run import Run, Search, TrialState
from mechanisms.interface import Origin
from service_kit.errors import Exhausted
from service_kit.llm.budget import Budget


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many trials more may be begun now; where none, which budget says so and why."""

    trials: int
    field: str = ""
    limit: str = ""
    reason: str = ""


class BudgetSpent(Exhausted):
    """The model may not be asked any more: its next call could exceed the run's budget of tokens or money."""

    def __init__(self, run: Run, reason: str) -> None:
        limits = {"spec.max_tokens": run.spec.max_tokens, "spec.max_cost_usd": run.spec.max_cost_usd}
        field, limit = next((item for item in limits.items() if item[1]), ("spec.max_tokens", 0))
        hint = f"{reason}. StartRun or ResumeRun finishes the run; create another one to search on."
        super().__init__(field, limit, hint)
        self.reason = reason


def allowance(search: Search, now: datetime) -> Allowance:
    """What the tightest budget allows."""
    found = [_trials(search), _duration(search, now), _evaluation_time(search), _tokens(search), _money(search)]
    return min(found, key=lambda allowed: allowed.trials)


def model_budget(run: Run) -> Budget:
    """What the run's next call of the model may use. It refuses a call that could exceed it."""
    return Budget(max_tokens=run.spec.max_tokens, max_cost_usd=run.spec.max_cost_usd, used=run.usage)


def confirmable(search: Search, now: datetime) -> bool:
    """Whether the confirmation fits into what is left of the budgets of time."""
    spec = search.run.spec
    evaluations = search.run.longest_evaluation * confirming_evaluations(search)
    wall = search.run.longest_evaluation * _rounds(search)
    left = None if spec.max_evaluation_time is None else spec.max_evaluation_time - search.run.evaluation_time
    remaining = None if spec.max_duration is None else spec.max_duration - _passed(search, now)
    return (left is None or evaluations <= left) and (remaining is None or wall <= remaining)


def confirming_evaluations(search: Search) -> int:
    """Evaluations that the confirmation needs: the baseline and the best on every seed."""
    return 2 * search.run.spec.confirmation_seeds


def _trials(search: Search) -> Allowance:
    run = search.run
    underway = sum(trial.origin is not Origin.BASELINE for trial in search.open_trials)
    left = max(0, run.trials_left - underway)
    return Allowance(left, "spec.max_trials", str(run.spec.max_trials), f"{run.decided_trials} trials decided")


def _duration(search: Search, now: datetime) -> Allowance:
    limit = search.run.spec.max_duration
    if limit is None:
        return _UNLIMITED
    passed, trial = _passed(search, now), search.run.longest_evaluation
    aside = trial * _rounds(search)
    if passed < limit and passed + aside + trial <= limit:
        return _UNLIMITED
    text = f"its time of {_seconds(limit)} is over" if passed >= limit else (
        f"its time of {_seconds(limit)} does not last for another trial: {_seconds(passed)} have passed"
        f"{_aside(aside)}, and a trial takes up to {_seconds(trial)}"
    )  # fmt: skip
    return Allowance(0, "spec.max_duration", _seconds(limit), text)


def _evaluation_time(search: Search) -> Allowance:
    limit, spent, trial = search.run.spec.max_evaluation_time, search.run.evaluation_time, search.run.longest_evaluation
    if limit is None:
        return _UNLIMITED
    measuring = sum(one.state in (TrialState.PROPOSED, TrialState.RUNNING) for one in search.open_trials)
    aside = trial * confirming_evaluations(search)
    left = limit - spent - aside - trial * measuring
    if left > timedelta() and trial == timedelta():
        return _UNLIMITED
    count = max(0, math.floor(left / trial)) if trial else 0
    text = f"its evaluation time of {_seconds(limit)} is used up" if spent >= limit else (
        f"its evaluation time of {_seconds(limit)} does not pay for another trial: {_seconds(spent)} are used"
        f"{_aside(aside)}, and a trial takes up to {_seconds(trial)}"
    )  # fmt: skip
    return Allowance(count, "spec.max_evaluation_time", _seconds(limit), text)


def _tokens(search: Search) -> Allowance:
    limit, used = search.run.spec.max_tokens, search.run.usage.total_tokens
    if not limit or used < limit:
        return _UNLIMITED
    return Allowance(0, "spec.max_tokens", str(limit), f"its {limit} tokens are used up")


def _money(search: Search) -> Allowance:
    limit, spent = search.run.spec.max_cost_usd, search.run.usage.cost_usd
    if not limit or (spent is not None and spent < limit):
        return _UNLIMITED
    text = f"its ${limit:g} are used up" if spent is not None else (
        f"its budget of ${limit:g} cannot be kept: a call of the model was made whose cost is not known"
    )  # fmt: skip
    return Allowance(0, "spec.max_cost_usd", f"{limit:g}", text)


def _passed(search: Search, now: datetime) -> timedelta:
    start = search.run.start_time
    return now - start if start is not None else timedelta()


def _rounds(search: Search) -> int:
    """Evaluations of the confirmation that follow one another."""
    return math.ceil(confirming_evaluations(search) / search.run.spec.parallelism)


def _aside(reserve: timedelta) -> str:
    return f", {_seconds(reserve)} are set aside for the confirmation" if reserve else ""


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.4g} s"


_UNLIMITED = Allowance(2**31)
