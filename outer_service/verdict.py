"""What becomes of a mechanism after its trial period.

The rule, for a mechanism that was installed after ``d`` decided trials and is judged ``n`` trials later:

* it was suspended, so its hooks are not called any more: retire;
* it is *inert*: it changed no decision and does not speak in the prompt: retire;
* it is *harmful*: the search gained in the ``p`` trials before it (``p`` the probation), gained nothing since, and no
  trial that it proposed or changed was kept: retire;
* otherwise keep.

Gain is measured on the best metric so far, per decided trial: before, from trial d - p to trial d; during, from trial d
to trial d + n. It is positive where the best improved.
"""

from __future__ import annotations

from collections.abc import Sequence

from mechanisms.interface import Hook, Origin, TrialRecord
from outer_service.campaign import Installed, Policy, Verdict
from outer_service.events import VerdictReached
from outer_service.observed import MechanismState, Observation, ObservedMechanism
from service_kit.parameters import Objective, Outcome


def due(installed: Installed, mechanism: ObservedMechanism, decided: int, policy: Policy) -> bool:
    """Whether it is time to judge: the probation is over, or it does not act any more. Controls are never judged."""
    if installed.control or installed.verdict is not None:
        return False
    over = decided - installed.after_decided >= policy.probation_trials
    return over or mechanism.state is not MechanismState.ACTIVE


def judge(
    installed: Installed, mechanism: ObservedMechanism, observation: Observation, policy: Policy
) -> VerdictReached:
    """The verdict on a mechanism, with its numbers."""
    before, during, elapsed = gains(installed, observation, policy)
    effect = mechanism.effect
    numbers = (
        f"{elapsed} trials: it changed {effect.changed_decisions} decisions, proposed {effect.proposed_trials} trials,"
        f" {effect.kept_trials} kept trials go back to it; gain a trial {during:.4g}, before it {before:.4g}"
    )
    speaks = Hook.PROMPT in mechanism.hooks
    if mechanism.state is MechanismState.SUSPENDED:
        verdict, why = Verdict.RETIRE, f"suspended: {mechanism.state_reason}"
    elif mechanism.state is MechanismState.UNINSTALLED:
        verdict, why = Verdict.RETIRE, f"removed by someone: {mechanism.state_reason}"
    elif effect.changed_decisions == 0 and not speaks:
        verdict, why = Verdict.RETIRE, "inert"
    elif before > 0 and during <= 0 and effect.kept_trials == 0:
        verdict, why = Verdict.RETIRE, "harmful: the search gained before it and stands still with it"
    else:
        verdict, why = Verdict.KEEP, "it acts, and nothing speaks against it"
    return VerdictReached(mechanism.id, verdict, f"{why}; {numbers}", effect, before, during)


def making_room(
    installed: Installed, mechanism: ObservedMechanism, observation: Observation, policy: Policy
) -> VerdictReached:
    """The verdict on a mechanism that has to go because ``policy.max_mechanisms`` are installed."""
    before, during, elapsed = gains(installed, observation, policy)
    effect = mechanism.effect
    reason = (
        f"makes room: at most {policy.max_mechanisms} mechanisms are installed at the same time, and this one had the"
        f" least effect: {effect.kept_trials} kept trials and {effect.changed_decisions} decisions in {elapsed} trials"
    )
    return VerdictReached(mechanism.id, Verdict.RETIRE, reason, effect, before, during)


def least_effective(
    active: Sequence[tuple[Installed, ObservedMechanism]], decided: int
) -> tuple[Installed, ObservedMechanism]:
    """The mechanism with the fewest kept trials, then the fewest changed decisions a trial, then the oldest."""

    def effect(pair: tuple[Installed, ObservedMechanism]) -> tuple[int, float, int]:
        installed, mechanism = pair
        trials = max(1, decided - installed.after_decided)
        return mechanism.effect.kept_trials, mechanism.effect.changed_decisions / trials, installed.after_decided

    return min(active, key=effect)


def gains(installed: Installed, observation: Observation, policy: Policy) -> tuple[float, float, int]:
    """Gain a trial before and since the installation, in the objective's unit, and the trials decided since."""
    objective = observation.run.task.objective
    baseline = [t for t in observation.decided if t.origin is Origin.BASELINE]
    decided = [t for t in observation.decided if t.origin is not Origin.BASELINE]
    start = installed.after_decided
    first = max(0, start - policy.probation_trials)

    def best(count: int) -> float | None:
        return _best([*baseline, *decided[:count]], objective)

    def gain(low: int, high: int) -> float:
        old, new = best(low), best(high)
        return objective.gain(old, new) / (high - low) if old is not None and new is not None and high > low else 0.0

    return gain(first, start), gain(start, len(decided)), len(decided) - start


def _best(trials: Sequence[TrialRecord], objective: Objective) -> float | None:
    """The best metric measured at full budget."""
    best: float | None = None
    for trial in trials:
        if trial.outcome is Outcome.SUCCEEDED and trial.metric is not None and trial.budget_fraction == 1.0:
            best = trial.metric if best is None or objective.better(trial.metric, best) else best
    return best
