"""What happened under each revision of the search configuration: level 1.5's effect, counted and not judged.

A trial belongs to the revision under which it was proposed. An improvement of the best belongs to the trial that made
it. Searches get harder as they go on, so that a later revision gains less even where it changes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from mechanisms.interface import Origin, TrialRecord
from outer_service.events import ConfigurationMeasured, RevisionEffect
from outer_service.observed import Observation
from service_kit.parameters import Outcome


def measured(observation: Observation) -> ConfigurationMeasured:
    """The numbers of every revision with decided trials, oldest first."""
    groups: defaultdict[int, list[TrialRecord]] = defaultdict(list)
    for trial in observation.searched:
        groups[observation.revisions.get(trial.number, 0)].append(trial)
    gains = _gains(observation)
    effects = [
        RevisionEffect(
            revision=revision,
            trials=len(trials),
            kept=sum(trial.kept is True for trial in trials),
            failed=sum(trial.metric is None for trial in trials),
            gain_per_trial=sum(gains.get(trial.number, 0.0) for trial in trials) / len(trials),
            tried=dict(Counter(name for trial in trials for name in trial.changes)),
        )
        for revision, trials in sorted(groups.items())
    ]
    return ConfigurationMeasured(observation.run.decided_trials, tuple(effects))


def said(effect: RevisionEffect, unit: str) -> str:
    """One revision in a sentence."""
    in_unit = f" {unit}" if unit else ""
    return (
        f"under revision {effect.revision} of the search configuration: {effect.trials} trials, {effect.kept} kept,"
        f" {effect.failed} failed, gain {effect.gain_per_trial:.4g}{in_unit} a trial"
    )


def _gains(observation: Observation) -> dict[int, float]:
    """How much each trial improved the best at full budget, by its number; the first baseline gains nothing."""
    objective = observation.run.task.objective
    gains: dict[int, float] = {}
    best: float | None = None
    for trial in observation.decided:
        if trial.outcome is not Outcome.SUCCEEDED or trial.metric is None or trial.budget_fraction != 1.0:
            continue
        if best is None or objective.better(trial.metric, best):
            if best is not None and trial.origin is not Origin.BASELINE:
                gains[trial.number] = objective.gain(best, trial.metric)
            best = trial.metric
    return gains
