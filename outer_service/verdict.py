"""What becomes of a mechanism after its trial period, and of a kept one when it is examined again.

A mechanism that was installed after ``d`` decided trials is judged ``p`` trials later (``p`` the policy's probation),
and a kept one again every ``r`` trials. The *period* is the trials since its installation or its newest verdict. A
trial *improves* when it is the best at full budget at that moment, which no advice on acceptance can change. The first
rule that fits decides:

1. it does not act any more, since it was suspended or removed: retire;
2. it is *inert*: it changed no decision in the period and does not speak in the prompt: retire;
3. it is *harmful*: of the trials in the period that it proposed or changed, fewer improved than of those that it left
   alone, and the interval of the difference lies below 0: retire;
4. the search *stands still* with it: nothing improved in the period. Retire where something had improved in the ``p``
   trials before it, replace where nothing had: then it is no answer to what holds the search back;
5. it is *worse than before*: nothing that it touched improved, fewer trials improved than in the ``p`` before it, and
   the interval of the difference lies below 0: retire;
6. otherwise keep. That is no claim of an effect: the reason says whether an interval lies above 0.

Rule 3 compares trials of the same period; rules 4 and 5 compare with an earlier one, when gains may have been easier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mechanisms.interface import Hook, Origin, TrialRecord
from outer_service.campaign import Installed, Policy, Verdict
from outer_service.comparison import Comparison
from outer_service.events import VerdictReached
from outer_service.observed import MechanismState, Observation, ObservedMechanism
from service_kit.parameters import Objective, Outcome


@dataclass(frozen=True, slots=True)
class Period:
    """What happened in the period that is judged."""

    trials: int
    changed: int
    """Decisions that the mechanism changed."""
    improved: int
    """Trials that improved."""
    touched_improved: int
    """Those among them that it proposed or changed."""
    improved_before: int
    """In the probation's length before its installation."""
    before_after: Comparison | None
    touched: Comparison | None
    gain_before: float
    """Gain of the best metric a trial, in the objective's unit."""
    gain_during: float


def due(installed: Installed, mechanism: ObservedMechanism, decided: int, policy: Policy) -> bool:
    """Whether it is time to judge: the period is over, or it does not act any more. Controls are never judged."""
    if installed.control or (installed.verdict is not None and installed.verdict.removes):
        return False
    length = policy.reexamination_trials if installed.examinations else policy.probation_trials
    return decided - _start(installed) >= length or mechanism.state is not MechanismState.ACTIVE


def judge(
    installed: Installed, mechanism: ObservedMechanism, observation: Observation, policy: Policy
) -> VerdictReached:
    """The verdict on a mechanism, with its numbers."""
    period = measured(installed, mechanism, observation, policy)
    verdict, why = _ruling(installed, mechanism, period)
    return _reached(installed, mechanism, observation, period, verdict, f"{why}; {_numbers(period)}")


def making_room(
    installed: Installed, mechanism: ObservedMechanism, observation: Observation, policy: Policy
) -> VerdictReached:
    """The verdict on a mechanism that has to go because ``policy.max_mechanisms`` are installed."""
    period = measured(installed, mechanism, observation, policy)
    reason = (
        f"makes room: at most {policy.max_mechanisms} mechanisms are installed at the same time, and this one had the"
        f" least effect; {_numbers(period)}"
    )
    return _reached(installed, mechanism, observation, period, Verdict.RETIRE, reason)


def measured(installed: Installed, mechanism: ObservedMechanism, observation: Observation, policy: Policy) -> Period:
    """The numbers of the period that ends now."""
    trials, start = observation.searched, _start(installed)
    period = trials[start:]
    before = trials[max(0, installed.after_decided - policy.probation_trials) : installed.after_decided]
    improvements = observation.improvements()
    touched = observation.touched.get(mechanism.id, frozenset())
    own = [trial for trial in period if trial.number in touched]
    other = [trial for trial in period if trial.number not in touched]

    def improved(among: Sequence[TrialRecord]) -> int:
        return sum(trial.number in improvements for trial in among)

    return Period(
        trials=len(period),
        changed=mechanism.effect.changed_decisions - installed.changed_before,
        improved=improved(period),
        touched_improved=improved(own),
        improved_before=improved(before),
        before_after=Comparison.of(improved(period), len(period), improved(before), len(before)),
        touched=Comparison.of(improved(own), len(own), improved(other), len(other)),
        gain_before=_gain(observation, installed.after_decided - len(before), installed.after_decided),
        gain_during=_gain(observation, start, len(trials)),
    )


def _ruling(installed: Installed, mechanism: ObservedMechanism, period: Period) -> tuple[Verdict, str]:
    """The first rule that fits, and what it says."""
    touched, before_after = period.touched, period.before_after
    if mechanism.state is MechanismState.SUSPENDED:
        return Verdict.RETIRE, f"suspended: {mechanism.state_reason}"
    if mechanism.state is MechanismState.UNINSTALLED:
        return Verdict.RETIRE, f"removed by someone: {mechanism.state_reason}"
    if period.changed == 0 and Hook.PROMPT not in mechanism.hooks:
        return (
            Verdict.RETIRE,
            "its effect has faded: inert since its last verdict" if installed.examinations else "inert",
        )
    if touched is not None and touched.worse:
        return Verdict.RETIRE, "harmful: trials that it touched improved less often than the others of the same period"
    if not period.improved and period.improved_before:
        return Verdict.RETIRE, "the search gained before it and stands still with it, which proves no harm but no use"
    if not period.improved:
        return Verdict.REPLACE, "the search stood still before it and still does: it is no answer to what holds it back"
    if not period.touched_improved and before_after is not None and before_after.worse:
        return Verdict.RETIRE, "fewer trials improve than before it, and none that it touched"
    if touched is not None and touched.better:
        return Verdict.KEEP, "trials that it touched improved more often than the others of the same period"
    if before_after is not None and before_after.better:
        return Verdict.KEEP, "more trials improve than before it; what else changed since is not separated from it"
    return Verdict.KEEP, "it acts, and nothing speaks against it; an effect on the gain is not established"


def _numbers(period: Period) -> str:
    texts = [f"{period.trials} trials: it changed {period.changed} decisions"]
    if period.touched is not None:
        texts.append(f"improved among its own trials and the others: {period.touched}")
    if period.before_after is not None:
        texts.append(f"improved with it and before it: {period.before_after}")
    return "; ".join([*texts, f"gain a trial {period.gain_during:.4g}, before it {period.gain_before:.4g}"])


def _reached(
    installed: Installed,
    mechanism: ObservedMechanism,
    observation: Observation,
    period: Period,
    verdict: Verdict,
    reason: str,
) -> VerdictReached:
    return VerdictReached(
        mechanism.id,
        verdict,
        reason,
        mechanism.effect,
        period.gain_before,
        period.gain_during,
        installed.examinations + 1,
        period.trials,
        period.before_after,
        period.touched,
        period.changed,
        len(observation.searched),
    )


def least_effective(
    active: Sequence[tuple[Installed, ObservedMechanism]], decided: int
) -> tuple[Installed, ObservedMechanism]:
    """The mechanism with the fewest kept trials, then the fewest changed decisions a trial, then the oldest."""

    def effect(pair: tuple[Installed, ObservedMechanism]) -> tuple[int, float, int]:
        installed, mechanism = pair
        trials = max(1, decided - installed.after_decided)
        return mechanism.effect.kept_trials, mechanism.effect.changed_decisions / trials, installed.after_decided

    return min(active, key=effect)


def _start(installed: Installed) -> int:
    """Trials decided when the period began."""
    return installed.examined_after if installed.examinations else installed.after_decided


def _gain(observation: Observation, low: int, high: int) -> float:
    """Gain of the best a trial, from the ``low``-th decided trial to the ``high``-th; 0 where it is not known."""
    objective = observation.run.task.objective
    first = [t for t in observation.decided if t.origin is Origin.BASELINE][:1]
    old, new = (_best([*first, *observation.searched[:count]], objective) for count in (low, high))
    return objective.gain(old, new) / (high - low) if old is not None and new is not None and high > low else 0.0


def _best(trials: Sequence[TrialRecord], objective: Objective) -> float | None:
    """The best metric measured at full budget."""
    best: float | None = None
    for trial in trials:
        if trial.outcome is Outcome.SUCCEEDED and trial.metric is not None and trial.budget_fraction == 1.0:
            best = trial.metric if best is None or objective.better(trial.metric, best) else best
    return best
