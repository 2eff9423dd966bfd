"""Whether the search continues from a measured trial: greedy by default, advised by mechanisms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inner_service.run import Run, Trial
from inner_service.trace import DecisionChanged, GainChecked, TrialDecided
from mechanisms.interface import Hook, Origin
from service_kit.parameters import Outcome

Advice = tuple[str, bool]
"""A mechanism's name and whether it would continue from the trial; those that abstain are not heard."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of an evaluated trial. ``gain`` is over the incumbent, positive is better."""

    kept: bool
    reason: str
    new_best: bool = False
    gain: float | None = None

    def event(self, number: int) -> TrialDecided:
        return TrialDecided(number, self.kept, self.reason, self.new_best, self.gain)


def greedy(run: Run, trial: Trial) -> Decision:
    """Keep what is strictly better than the incumbent at full budget, and nothing else."""
    objective = run.task.objective
    if trial.metric is None:
        outcome = trial.outcome or Outcome.CRASHED
        return Decision(False, outcome.value.replace("_", " "))
    new_best = trial.measured and (run.best_metric is None or objective.better(trial.metric, run.best_metric))
    if run.incumbent_metric is None:
        kept = trial.origin is Origin.BASELINE
        return Decision(kept, "the baseline" if kept else "there is no baseline to compare it with", kept and new_best)
    gain = objective.gain(run.incumbent_metric, trial.metric)
    if trial.origin is Origin.BASELINE:
        # The same configuration in another measurement: a bar for what comes, never a new best.
        return Decision(trial.measured, "the incumbent, measured again after a restart", False, gain)
    if not trial.measured:
        reason = f"measured on {trial.budget_fraction:.0%} of the budget, which cannot be compared with the incumbent"
        return Decision(False, reason, False, gain)
    kept = objective.better(trial.metric, run.incumbent_metric)
    comparison = "better than" if kept else "as good as" if gain == 0 else "worse than"
    by = f" by {abs(gain):.6g}" if gain else ""
    return Decision(kept, f"{comparison} the incumbent{by}", new_best, gain)


def needs_check(run: Run, trial: Trial, decision: Decision) -> bool:
    """Whether a gain is so small that it may be noise; only where the run has measured its noise."""
    if run.noise_floor is None or trial.origin is Origin.BASELINE or not decision.kept or decision.gain is None:
        return False
    return decision.gain < run.noise_floor.small_gain


def checked(decision: Decision, check: GainChecked) -> Decision:
    """The decision after a small gain was measured on a second seed. One that did not hold is no new best either."""
    second = f"{check.second_gain:+.6g}" if check.second_gain is not None else "not measured"
    reason = f"{decision.reason}, which may be noise; on seed {check.seed}: {second}"
    return replace(decision, kept=check.held, reason=reason, new_best=decision.new_best and check.held)


def advised(decision: Decision, trial: Trial, advice: Sequence[Advice]) -> tuple[Decision, DecisionChanged | None]:
    """The decision after the mechanisms were heard, oldest first: the last installed one has the last word.

    Advice moves the incumbent only; whether the trial is the best ever measured is not a matter of opinion.
    """
    if not advice or trial.metric is None or advice[-1][1] is decision.kept:
        return decision, None
    name, wanted = advice[-1]
    word = {True: "keep", False: "discard"}
    before = f"{word[decision.kept]}: {decision.reason}"
    after = f"{word[wanted]}, on the advice of {name}"
    changed = DecisionChanged(name, Hook.ACCEPT, trial.number, before, after)
    return replace(decision, kept=wanted, reason=f"{decision.reason}; {name} advised to {word[wanted]} it"), changed
