"""Each standard mechanism does to a search what its first line says, in its own worker, on a synthetic landscape."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mechanisms import standard
from mechanisms.interface import Candidate, Hook, Origin, SearchView, TrialRecord
from mechanisms.language.space import Space
from mechanisms.replay import incumbents
from mechanisms.sandbox.host import MechanismProcess
from service_kit.parameters import Kind, Objective, Outcome, Parameter, ParameterSpace, Scale

OBJECTIVE = Objective("loss")
SPACE = ParameterSpace(
    (
        Parameter("DEPTH", Kind.INTEGER, 4, minimum=1, maximum=16),
        Parameter("LR", Kind.REAL, 0.001, minimum=1e-4, maximum=1.0, scale=Scale.LOG10),
        Parameter("WIDTH", Kind.INTEGER, 1024, minimum=64, maximum=16384, scale=Scale.LOG2),
        Parameter("DECAY", Kind.REAL, 0.1, minimum=0.0, maximum=1.0),
        Parameter("TIED", Kind.BOOLEAN, True),
    )
)
MOVES = Space(SPACE.to_json())
OPTIMUM = {"DEPTH": 0.7, "LR": 0.6, "WIDTH": 0.3, "DECAY": 0.45, "TIED": 0.0}


def loss(configuration: Any) -> float:
    return 1.0 + sum((MOVES.to_unit(name, configuration[name]) - best) ** 2 for name, best in OPTIMUM.items())


class Search:
    """A search as the inner loop runs it, with one mechanism and a proposer of fixed habits."""

    def __init__(self, process: MechanismProcess, objective: Callable[[Any], float] = loss) -> None:
        self.process, self.measure = process, objective
        self.history: list[TrialRecord] = []
        self.habits = itertools.cycle([("WIDTH", 2.0), ("DECAY", 1.3), ("LR", 1.1)])

    @property
    def view(self) -> SearchView:
        incumbent, best = incumbents(self.history, OBJECTIVE)[-1]
        return SearchView(OBJECTIVE, tuple(self.history), incumbent, best, SPACE.names, (), "", "", 10)

    async def begin(self) -> Search:
        await self.observe(SPACE.defaults(), {}, True)
        return self

    async def observe(self, configuration: Any, changes: Any, kept: bool, outcome: Outcome = Outcome.SUCCEEDED) -> None:
        metric = self.measure(configuration) if outcome is Outcome.SUCCEEDED else None
        bar = self.view.incumbent.metric if self.history else None
        number = len(self.history)
        origin = Origin.MODEL if number else Origin.BASELINE
        trial = TrialRecord(number, configuration, changes, "", origin, "", outcome, metric, kept, bar)
        self.history.append(trial)
        await self.process.observe(trial)

    async def trial(self, candidate: Candidate) -> TrialRecord:
        """Run one candidate, decide as the inner loop does, observe."""
        view, hooks = self.view, self.process.hooks
        if Hook.REVISE in hooks:
            candidate = await self.process.revise(view, candidate)
        configuration = SPACE.apply(view.incumbent.configuration, candidate.changes)
        metric = self.measure(configuration)
        kept = OBJECTIVE.better(metric, view.incumbent.metric or 0.0)
        if Hook.ACCEPT in hooks:
            undecided = dataclasses.replace(view.incumbent, configuration=configuration, metric=metric, kept=None)
            advice = await self.process.accept(view, undecided)
            kept = kept if advice is None else advice
        await self.observe(configuration, candidate.changes, kept)
        return self.history[-1]

    async def habitual(self) -> Candidate:
        """What the proposer of fixed habits comes up with; a veto makes it think of its next habit."""
        for name, factor in self.habits:
            value = MOVES.clip(name, self.view.incumbent.configuration[name] * factor)
            candidate = Candidate({name: value}, "habit")
            if value == self.view.incumbent.configuration[name]:
                continue
            if Hook.VETO in self.process.hooks and await self.process.veto(self.view, candidate):
                # Out of habits: something else at last.
                return Candidate({"DEPTH": 5 if self.view.incumbent.configuration["DEPTH"] != 5 else 6}, "new idea")
            return candidate
        raise AssertionError

    async def run(self, trials: int) -> list[TrialRecord]:
        for _ in range(trials):
            proposed: tuple[Candidate, ...] = ()
            if Hook.PROPOSE in self.process.hooks:
                proposed = await self.process.propose(self.view, 1)
            await self.trial(proposed[0] if proposed else await self.habitual())
        return self.history


@pytest.fixture
def search() -> Any:
    started: list[MechanismProcess] = []

    async def search(name: str, measure: Callable[[Any], float] = loss, **settings: Any) -> Search:
        source = standard.sources()[name] if name else "class Mechanism:\n    def observe(self, trial): pass\n"
        process = await MechanismProcess.start(source, SPACE, OBJECTIVE, settings, 7, name=name or "none")
        started.append(process)
        return await Search(process, measure).begin()

    return search


def best(history: list[TrialRecord]) -> float:
    return min(trial.metric for trial in history if trial.metric is not None)


def test_every_standard_mechanism_names_its_literature() -> None:
    assert len(standard.sources()) == 11
    for name, source in standard.sources().items():
        assert re.search(r"\((19|20)\d\d\)", source), name


async def test_tabu_search_breaks_habits(search: Any) -> None:
    plain = await (await search("")).run(24)
    tabu = await (await search("tabu")).run(24)
    habitual = [sum("DEPTH" not in trial.changes for trial in run[1:]) for run in (plain, tabu)]
    assert habitual[1] < habitual[0] == 24


async def test_gaussian_process_proposals_find_what_habits_do_not(search: Any) -> None:
    plain = best(await (await search("")).run(30))
    guided = best(await (await search("gaussian_process", first=6)).run(30))
    assert guided - 1.0 < 0.3 * (plain - 1.0)


async def test_the_bandit_moves_the_parameter_that_matters(search: Any) -> None:
    running = await search("bandit", lambda c: 1.0 - MOVES.to_unit("LR", c["LR"]))
    history = await running.run(24)
    moved = Counter(name for trial in history[4:] for name in trial.changes)
    assert moved["LR"] == max(moved.values())


async def test_orthogonal_exploration_measures_main_effects_and_combines_them(search: Any) -> None:
    def more_is_better(configuration: Any) -> float:
        return 5.0 - sum(MOVES.to_unit(name, configuration[name]) for name in ("DEPTH", "LR", "WIDTH", "DECAY"))

    running = await search("orthogonal", more_is_better, factors=4)
    base = SPACE.defaults()
    rows = []
    for _ in range(8):
        (candidate,) = await running.process.propose(running.view, 1)
        configuration = SPACE.apply(running.view.incumbent.configuration, candidate.changes)
        await running.observe(configuration, candidate.changes, False)
        rows.append(tuple(configuration[name] > base[name] for name in ("DEPTH", "LR", "WIDTH", "DECAY")))
    for one, other in itertools.combinations(range(4), 2):
        assert Counter((row[one], row[other]) for row in rows) == dict.fromkeys(
            itertools.product([True, False], repeat=2), 2
        )
    assert "Main effects" in await running.process.prompt(running.view)
    (combined,) = await running.process.propose(running.view, 1)
    measured = best(running.history)
    assert more_is_better(SPACE.apply(base, combined.changes)) < measured


async def test_annealing_accepts_worse_trials_early_and_hardly_late(search: Any) -> None:
    running = await search("annealing", start=1.0, cooling=0.93)
    worse = {**SPACE.defaults(), "DECAY": 0.05}
    gap = loss(worse) - loss(SPACE.defaults())
    accepted = []
    for trials in (6, 60):
        while len(running.history) < trials:
            await running.observe(worse, {"DECAY": 0.05}, False)
        trial = dataclasses.replace(running.view.incumbent, metric=loss(SPACE.defaults()) + gap, kept=None)
        answers = [await running.process.accept(running.view, trial) for _ in range(60)]
        assert set(answers) <= {True, None}
        accepted.append(answers.count(True))
    assert accepted[0] > 10
    assert accepted[1] <= 2


async def test_plateau_diversification_waits_for_a_stall_and_takes_the_neglected(search: Any) -> None:
    running = await search("plateau", patience=3)
    for place in range(4):
        assert bool(await running.process.propose(running.view, 2)) is (place >= 3)
        assert bool(await running.process.prompt(running.view)) is (place >= 3)
        if place < 3:
            await running.observe({**SPACE.defaults(), "LR": 0.9}, {"LR": 0.9}, False)
    proposed = await running.process.propose(running.view, 3)
    assert {name for candidate in proposed for name in candidate.changes}.isdisjoint({"LR"})


async def test_step_size_calibration_grows_after_success_and_shrinks_after_failure(search: Any) -> None:
    steps = {}
    for kept in (True, False):
        running = await search("step_size")
        for place in range(3):
            changed = {"DECAY": 0.2 + 0.01 * place}
            await running.observe({**SPACE.defaults(), **changed}, changed, kept)
        old = running.view.incumbent.configuration["DECAY"]
        revised = await running.process.revise(running.view, Candidate({"DECAY": old + 0.1}, "x"))
        steps[kept] = revised.changes["DECAY"] - old
    assert steps[True] > 0.1 > steps[False] > 0.0


async def test_elite_crossover_takes_every_value_from_one_of_the_best(search: Any) -> None:
    running = await search("crossover", elites=2, first=4)
    good = [{"DEPTH": 11, "LR": 0.02}, {"WIDTH": 256, "TIED": False}]
    for changes in (*good, {"DECAY": 1.0}, {"DEPTH": 1}):
        await running.observe({**SPACE.defaults(), **changes}, changes, False)
    (child,) = await running.process.propose(running.view, 1)
    allowed = {"DEPTH": 11, "LR": 0.02, "WIDTH": 256, "TIED": False}
    assert child.changes
    assert all(allowed[name] == value for name, value in child.changes.items())


async def test_multi_batch_ranking_prefers_the_neighbourhood_of_what_was_good(search: Any) -> None:
    running = await search("multi_batch", weight=1.0)
    for depth in (1, 11, 16):
        await running.observe({**SPACE.defaults(), "DEPTH": depth}, {"DEPTH": depth}, False)
    scores = await running.process.rank(running.view, [Candidate({"DEPTH": depth}, "") for depth in (2, 10)])
    assert scores[1] > scores[0]


async def test_experience_prompts_name_what_helped_first(search: Any) -> None:
    running = await search("experience", first=2)
    for _ in range(2):
        await running.observe({**SPACE.defaults(), "DEPTH": 8}, {"DEPTH": 8}, False)
        await running.observe({**SPACE.defaults(), "LR": 1e-4}, {"LR": 1e-4}, False)
    await running.observe({**SPACE.defaults(), "WIDTH": 16384}, {"WIDTH": 16384}, False, Outcome.OUT_OF_MEMORY)
    text = await running.process.prompt(running.view)
    assert text.index("DEPTH up: kept 0 of 2") < text.index("LR down: kept 0 of 2")
    assert "WIDTH up: 1 x out_of_memory" in text


async def test_quick_tests_are_for_directions_that_failed(search: Any) -> None:
    running = await search("quick_test", failures=2, fraction=0.25)
    for _ in range(2):
        await running.observe({**SPACE.defaults(), "LR": 0.9}, {"LR": 0.9}, False)
    budgets = [
        await running.process.budget(running.view, Candidate({name: v}, "")) for name, v in (("LR", 0.8), ("DEPTH", 5))
    ]
    assert budgets == [0.25, 1.0]
