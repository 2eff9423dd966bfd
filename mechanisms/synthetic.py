"""A synthetic history: a seeded search on a made-up landscape over a real parameter space.

The gate replays it beside the recorded history, because a hostile or buggy mechanism may behave while a history is
short, and because a new run has no history to replay. It says nothing about how good a mechanism is.
"""

from __future__ import annotations

import math
import random

from mechanisms.interface import Origin, TrialRecord
from mechanisms.language.space import Space
from service_kit.parameters import Objective, Outcome, ParameterSpace, Value, value_from_json

_FAILURES = (Outcome.DIVERGED, Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT, Outcome.INFEASIBLE)
_FAILURE_RATE = 0.15
_NOISE = 0.02


def synthetic_history(space: ParameterSpace, objective: Objective, length: int, seed: int) -> tuple[TrialRecord, ...]:
    """``length`` decided trials after a baseline: one or two changes each, a landscape with a valley, some failures,
    greedy decisions. Early trials repeat a few directions, as a model with fixed habits does."""
    generator = random.Random(seed)  # noqa: S311 - a search needs no secrets
    return _Search(space, objective, generator).run(length)


class _Search:
    def __init__(self, space: ParameterSpace, objective: Objective, rng: random.Random) -> None:
        self.space, self.objective, self.rng = space, objective, rng
        self.moves = Space(space.to_json())
        self.names = [p.name for p in space.editable if self.moves.neighbours(p.name, p.default)]
        self.habits = rng.sample(self.names, min(2, len(self.names)))
        self.optimum = {name: rng.random() for name in self.names if self.moves.has_unit(name)}
        self.weights = {name: rng.uniform(0.2, 1.0) for name in self.optimum}

    def run(self, length: int) -> tuple[TrialRecord, ...]:
        """The whole search."""
        defaults = self.space.defaults()
        metric = self._metric(defaults)
        trials = [self._record(0, defaults, {}, Outcome.SUCCEEDED, metric, True, None)]
        incumbent, bar = defaults, metric
        for number in range(1, length + 1):
            changes = self._changes(incumbent)
            configuration = {**incumbent, **changes}
            failed = self.rng.random() < _FAILURE_RATE
            outcome = self.rng.choice(_FAILURES) if failed else Outcome.SUCCEEDED
            measured = None if failed else self._metric(configuration)
            kept = measured is not None and self.objective.better(measured, bar)
            trials.append(self._record(number, configuration, changes, outcome, measured, kept, bar))
            if kept and measured is not None:
                incumbent, bar = configuration, measured
        return tuple(trials)

    def _changes(self, incumbent: dict[str, Value]) -> dict[str, Value]:
        if not self.names:
            return {}
        pool = self.habits if self.rng.random() < 0.4 else self.names
        chosen = self.rng.sample(pool, min(len(pool), self.rng.choice((1, 1, 1, 2))))
        changes = {}
        for name in chosen:
            near = self.moves.neighbours(name, incumbent[name])
            value = self.rng.choice(near) if near and self.rng.random() < 0.7 else self.moves.sample(name, self.rng)
            if value != incumbent[name]:
                changes[name] = value_from_json(value) if isinstance(value, list) else value
        return changes

    def _metric(self, configuration: dict[str, Value]) -> float:
        distance = sum(
            weight * (self.moves.to_unit(name, configuration[name]) - self.optimum[name]) ** 2
            for name, weight in self.weights.items()
        )
        ripple = 0.05 * math.sin(8.0 * distance)
        value = 1.0 + distance + ripple + self.rng.gauss(0.0, _NOISE)
        return value if self.objective.better(0.0, 1.0) else -value

    @staticmethod
    def _record(
        number: int,
        configuration: dict[str, Value],
        changes: dict[str, Value],
        outcome: Outcome,
        metric: float | None,
        kept: bool,
        bar: float | None,
    ) -> TrialRecord:
        return TrialRecord(
            number=number,
            configuration=configuration,
            changes=changes,
            hypothesis=f"change {', '.join(changes)}" if changes else "baseline",
            origin=Origin.MODEL if number else Origin.BASELINE,
            proposer="",
            outcome=outcome,
            metric=metric,
            kept=kept,
            incumbent_metric=bar,
        )
