"""Replay: walk a recorded history with a mechanism and count the decisions that it would have changed.

Before each recorded trial the mechanism is shown the view of that moment and asked every hook that it implements about
that trial's candidate; then it observes the trial as it was decided.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from mechanisms.interface import Candidate, Hook, SearchView, TrialRecord
from mechanisms.sandbox.host import MechanismProcess
from service_kit.parameters import Objective, Outcome, ParameterSpace, Value

T = TypeVar("T")
PROPOSALS = 2
"""How many candidates a replay asks for at each moment."""
RANKED = 4
"""How many recorded candidates a replay gives to rank."""


@dataclass(slots=True)
class HookStatistics:
    """What one hook did."""

    calls: int = 0
    changed: int = 0
    """Calls whose answer would have changed a decision."""
    seconds: float = 0.0

    def add(self, other: HookStatistics) -> None:
        """Count ``other`` in."""
        self.calls += other.calls
        self.changed += other.changed
        self.seconds += other.seconds


@dataclass(slots=True)
class ReplayStatistics:
    """What a mechanism did on one history."""

    trials: int = 0
    """Trials that were replayed, the baseline not counted."""
    hooks: dict[Hook, HookStatistics] = field(default_factory=dict)
    prompted: int = 0
    """Moments at which it had text for the prompt: an influence, not a changed decision."""

    @property
    def changed(self) -> int:
        """Decisions that would have been others."""
        return sum(statistics.changed for statistics in self.hooks.values())

    @property
    def calls(self) -> int:
        return sum(statistics.calls for statistics in self.hooks.values())

    @property
    def seconds(self) -> float:
        return sum(statistics.seconds for statistics in self.hooks.values())


async def replay(
    process: MechanismProcess,
    history: Sequence[TrialRecord],
    space: ParameterSpace,
    objective: Objective,
    *,
    trials_after: int = 0,
) -> ReplayStatistics:
    """Ask ``process``, which has observed nothing yet, about every moment of ``history``.

    ``trials_after`` is how many trials the budget allowed after the last one. Raises MechanismFailure.
    """
    return await _Replay(process, history, space, objective, trials_after).run()


async def rebuild(process: MechanismProcess, history: Sequence[TrialRecord]) -> str:
    """Bring back the state of a mechanism by showing it every decided trial again; returns its ``state_hash``.

    The same for an installation in mid-run and after a restart. A hash that differs from the recorded one means that
    hooks other than ``observe`` had changed the state: worth an event, not a failure. Raises MechanismFailure.
    """
    for trial in history:
        await process.observe(trial)
    return process.state_hash


def incumbents(history: Sequence[TrialRecord], objective: Objective) -> list[tuple[TrialRecord, TrialRecord]]:
    """The incumbent and the best trial after each trial of ``history``, which begins with a kept one."""
    moments: list[tuple[TrialRecord, TrialRecord]] = []
    incumbent = best = history[0]
    for trial in history:
        if trial.kept:
            incumbent = trial
        if trial.metric is not None and (best.metric is None or objective.better(trial.metric, best.metric)):
            best = trial
        moments.append((incumbent, best))
    return moments


class _Replay:
    def __init__(
        self,
        process: MechanismProcess,
        history: Sequence[TrialRecord],
        space: ParameterSpace,
        objective: Objective,
        trials_after: int,
    ) -> None:
        self.process, self.history, self.space, self.objective = process, tuple(history), space, objective
        self.trials_after = trials_after
        self.statistics = ReplayStatistics()
        self.active = tuple(parameter.name for parameter in space.editable)

    async def run(self) -> ReplayStatistics:
        """Walk the whole history."""
        if not self.history:
            return self.statistics
        moments = incumbents(self.history, self.objective)
        await self._timed(Hook.OBSERVE, self.process.observe(self.history[0]))
        for place in range(1, len(self.history)):
            incumbent, best = moments[place - 1]
            await self._moment(self._view(place, incumbent, best), self.history[place], place)
            await self._timed(Hook.OBSERVE, self.process.observe(self.history[place]))
            self.statistics.trials += 1
        return self.statistics

    def _view(self, place: int, incumbent: TrialRecord, best: TrialRecord) -> SearchView:
        left = len(self.history) - place + self.trials_after
        return SearchView(self.objective, self.history[:place], incumbent, best, self.active, (), "", "", left)

    async def _moment(self, view: SearchView, trial: TrialRecord, place: int) -> None:
        process, hooks = self.process, self.process.hooks
        candidate = Candidate(self._changes(trial, view), trial.hypothesis, trial.origin, trial.proposer)
        if Hook.PROMPT in hooks:
            self.statistics.prompted += bool(await self._timed(Hook.PROMPT, process.prompt(view)))
        if Hook.PROPOSE in hooks:
            self._count(Hook.PROPOSE, bool(await self._timed(Hook.PROPOSE, process.propose(view, PROPOSALS))))
        if candidate.changes:
            await self._judge(view, candidate)
        if Hook.RANK in hooks:
            ahead = [self._changes(later, view) for later in self.history[place : place + RANKED]]
            ranked = [Candidate(changes, "") for changes in ahead if changes]
            if len(ranked) > 1:
                scores = await self._timed(Hook.RANK, process.rank(view, ranked))
                order = sorted(range(len(ranked)), key=lambda i: -scores[i])
                self._count(Hook.RANK, order != list(range(len(ranked))))
        if Hook.ACCEPT in hooks and trial.outcome is Outcome.SUCCEEDED and trial.metric is not None:
            await self._acceptance(view, trial)

    async def _judge(self, view: SearchView, candidate: Candidate) -> None:
        process, hooks = self.process, self.process.hooks
        if Hook.REVISE in hooks:
            revised = await self._timed(Hook.REVISE, process.revise(view, candidate))
            self._count(Hook.REVISE, dict(revised.changes) != dict(candidate.changes))
        if Hook.VETO in hooks:
            self._count(Hook.VETO, await self._timed(Hook.VETO, process.veto(view, candidate)) is not None)
        if Hook.BUDGET in hooks:
            self._count(Hook.BUDGET, await self._timed(Hook.BUDGET, process.budget(view, candidate)) < 1.0)

    async def _acceptance(self, view: SearchView, trial: TrialRecord) -> None:
        undecided = TrialRecord(
            number=trial.number,
            configuration=trial.configuration,
            changes=trial.changes,
            hypothesis=trial.hypothesis,
            origin=trial.origin,
            proposer=trial.proposer,
            outcome=trial.outcome,
            metric=trial.metric,
            kept=None,
            incumbent_metric=trial.incumbent_metric,
            budget_fraction=trial.budget_fraction,
            side_metrics=trial.side_metrics,
        )
        assert trial.metric is not None
        incumbent = view.incumbent.metric
        greedy = incumbent is None or self.objective.better(trial.metric, incumbent)
        advice = await self._timed(Hook.ACCEPT, self.process.accept(view, undecided))
        self._count(Hook.ACCEPT, advice is not None and advice is not greedy)

    def _changes(self, trial: TrialRecord, view: SearchView) -> dict[str, Value]:
        # Recorded against the incumbent of its own moment; for the candidates ahead that may have been another one.
        changes = self.space.changes(view.incumbent.configuration, trial.configuration)
        return {name: value for name, value in changes.items() if name in self.active}

    async def _timed(self, hook: Hook, answer: Awaitable[T]) -> T:
        started = time.monotonic()
        try:
            return await answer
        finally:
            if hook in self.process.hooks:
                statistics = self.statistics.hooks.setdefault(hook, HookStatistics())
                statistics.calls += 1
                statistics.seconds += time.monotonic() - started

    def _count(self, hook: Hook, changed: bool) -> None:
        self.statistics.hooks[hook].changed += changed
