"""Levels 1.5 and 2 of the scripted researcher: diagnosis, templates that pass the real gate, and repairs."""

from typing import Any

import pytest

from clients.scripted_researcher.catalogue import IDEAS
from clients.scripted_researcher.diagnosis import Failure, observations
from clients.scripted_researcher.state import BadRequest, SearchState
from mechanisms.findings import Stage
from mechanisms.gate import GateReport, check
from mechanisms.interface import Candidate, Hook, Origin, SearchView
from mechanisms.sandbox.host import MechanismProcess
from service_kit.parameters import Outcome


def read(search: Any) -> SearchState:
    return SearchState.from_json(search.state())


async def judged(source: str, search: Any) -> GateReport:
    return await check(source, space=search.space, objective=search.objective, history=search.trials)


def installed(*names: str, state: str = "active") -> tuple[dict[str, Any], ...]:
    return tuple({"name": name, "state": state, "summary": "", "hooks": [], "changed_decisions": 1} for name in names)


def test_ten_trials_of_the_prior_show_a_fixation_on_the_batch(benchmark_search: Any) -> None:
    first = observations(read(benchmark_search.run(10)))[0]
    assert first.failure is Failure.FIXATION
    assert first.parameters == ("TOTAL_BATCH_SIZE",)
    assert "increase TOTAL_BATCH_SIZE was tried 3 times" in first.evidence


def test_nothing_is_wrong_with_a_search_that_gains(benchmark_search: Any) -> None:
    for n in (12, 11):
        benchmark_search.decide({"TOTAL_BATCH_SIZE": 2**n, "DEVICE_BATCH_SIZE": 16})
    assert observations(read(benchmark_search)) == []
    assert benchmark_search.ask("critique")["choice"] == "none"


def test_refused_candidates_are_no_failed_trials(benchmark_search: Any) -> None:
    for n in range(9, 13):
        benchmark_search.refuse({"HEAD_DIM": 2 ** (n - 6)})
        benchmark_search.decide({"WEIGHT_DECAY": 0.2 + n / 100})
    assert Failure.BREAKAGE not in [one.failure for one in observations(read(benchmark_search))]
    listed = [one["name"] for one in benchmark_search.ask("explore")["candidates"]]
    assert "infeasible-guard" not in listed


def test_trials_that_ran_and_failed_are_a_breakage_and_refusals_do_not_hide_them(benchmark_search: Any) -> None:
    for outcome in (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY, Outcome.DIVERGED, Outcome.CANCELLED):
        benchmark_search.fail({"MATRIX_LR": 0.5}, outcome)
    for _ in range(12):
        benchmark_search.refuse({"HEAD_DIM": 16})
    [breakage] = [one for one in observations(read(benchmark_search)) if one.failure is Failure.BREAKAGE]
    assert breakage.evidence == "3 of the last 4 trials failed: 2 diverged, 1 out_of_memory"


def test_analysis_freezes_what_failed_both_ways_and_leaves_the_fixation(benchmark_search: Any) -> None:
    analysis = benchmark_search.run(10).ask("analyse")
    assert [entry["parameter"] for entry in analysis["freeze"]] == ["WEIGHT_DECAY"]
    assert "smaller TOTAL_BATCH_SIZE" in analysis["guidance"]
    assert "try decreasing" not in analysis["guidance"].lower()
    assert all("scripted" in text for text in (analysis["observation"], analysis["guidance"]))


def test_the_fixation_is_answered_with_the_opposite_direction(benchmark_search: Any) -> None:
    benchmark_search.run(10)
    explored = benchmark_search.ask("explore")
    assert explored["bottleneck"] == "scripted: fixation"
    assert explored["candidates"][0]["name"] == "opposite-direction"
    chosen = benchmark_search.ask("critique", [explored])
    assert chosen["choice"] == "opposite-direction"
    assert benchmark_search.ask("specify", [explored, chosen])["name"] == "opposite-direction"
    assert benchmark_search.ask("generate", [explored, chosen])["mechanism_id"] == "opposite-direction"


def test_what_was_installed_before_is_not_chosen_again(benchmark_search: Any) -> None:
    benchmark_search.run(10).mechanisms = installed("opposite-direction")
    assert benchmark_search.ask("critique")["choice"] == "tabu"
    benchmark_search.mechanisms = installed(*(f"{one.name}-2" for one in IDEAS))
    assert benchmark_search.ask("critique")["choice"] == "none"


@pytest.mark.parametrize("state", ["uninstalled", "suspended"])
def test_an_idea_that_was_retired_is_neither_chosen_nor_explored_again(benchmark_search: Any, state: str) -> None:
    search = benchmark_search.run(10)
    search.mechanisms = installed("opposite-direction", "opposite-direction-2", "tabu-3", state=state)
    for outcome in (Outcome.DIVERGED,) * 3:
        search.fail({"MATRIX_LR": 0.5}, outcome)
    assert search.ask("critique")["choice"] == "infeasible-guard"
    assert {one["name"] for one in search.ask("explore")["candidates"]}.isdisjoint({"opposite-direction", "tabu"})
    search.mechanisms += installed("infeasible-guard-2", "step-size", "coordinate-exploration", state=state)
    assert search.ask("critique")["choice"] == "none"


@pytest.mark.parametrize("state", ["active", "uninstalled", "suspended"])
def test_a_repair_falls_back_on_nothing_that_the_run_had_before(benchmark_search: Any, state: str) -> None:
    search = benchmark_search.run(10)
    had = {one.name for one in IDEAS} - {"tabu"}
    search.mechanisms = installed(*(f"{name}-2" for name in sorted(had)), state=state)
    answers = [search.ask("generate")]
    for _ in range(6):
        answers.append(repair(search, answers, "rejected at stage effect\n- effect: inert"))
    assert {answer["mechanism_id"] for answer in answers} == {"tabu"}


def test_a_repair_tries_each_fitting_idea_once_and_none_that_answers_nothing(benchmark_search: Any) -> None:
    search = benchmark_search.run(10)
    fitting = [one["name"] for one in search.ask("explore")["candidates"]]
    answers = [search.ask("generate")]
    for _ in range(8):
        answers.append(repair(search, answers, "rejected at stage language"))
    written = list(dict.fromkeys(answer["mechanism_id"] for answer in answers))
    assert written == fitting
    assert "infeasible-guard" not in written
    assert answers[-1] == answers[-2]


def test_the_dialogue_keeps_to_its_choice(benchmark_search: Any) -> None:
    answers = [{"choice": "tabu", "reason": "", "assessments": []}]
    assert benchmark_search.run(10).ask("generate", answers)["mechanism_id"] == "tabu"


@pytest.mark.parametrize("idea", IDEAS, ids=lambda idea: idea.name)
async def test_every_template_passes_the_gate_on_both_spaces(
    idea: Any, benchmark_search: Any, plain_search: Any
) -> None:
    for search in (benchmark_search.run(14), plain_search.run(14)):
        for form in range(len(idea.templates)):
            report = await judged(idea.source(read(search), form=form), search)
            assert report.accepted, report.render()
            assert [finding for finding in report.findings if finding.stage is not Stage.EFFECT] == []
            assert report.recorded.changed + report.synthetic.changed > 0
            assert {hook.value for hook in report.hooks} <= set(idea.hooks)


async def test_the_opposite_direction_changes_recorded_decisions_and_finds_the_small_batch(
    benchmark_search: Any,
) -> None:
    search = benchmark_search.run(10)
    report = await judged(search.ask("generate")["source"], search)
    assert report.recorded.hooks[Hook.PROPOSE].changed > 0
    source = search.ask("generate")["source"]
    process = await MechanismProcess.start(source, search.space, search.objective, {}, 0, name="m")
    try:
        for trial in search.trials:
            await process.observe(trial)
        found = []
        for _ in range(4):
            candidates = await process.propose(view(search), 1)
            if not candidates:
                break
            search.decide(candidates[0].changes, Origin.MECHANISM)
            await process.observe(search.trials[-1])
            found.append(search.trials[-1])
    finally:
        await process.close()
    assert [trial.kept for trial in found] == [True, True, False]
    assert search.incumbent.configuration["TOTAL_BATCH_SIZE"] == 2**11
    assert search.incumbent.configuration["DEVICE_BATCH_SIZE"] == 16


async def test_tabu_refuses_what_failed_and_says_which_move(benchmark_search: Any) -> None:
    search = benchmark_search.run(10)
    search.mechanisms = installed("opposite-direction")
    process = await MechanismProcess.start(
        search.ask("generate")["source"], search.space, search.objective, {}, 0, name="m"
    )
    try:
        for trial in search.trials:
            await process.observe(trial)
        larger = candidate({"TOTAL_BATCH_SIZE": 2**15})
        assert "increase TOTAL_BATCH_SIZE" in (await process.veto(view(search), larger) or "")
        assert await process.veto(view(search), candidate({"TOTAL_BATCH_SIZE": 2**12})) is None
    finally:
        await process.close()


async def test_a_mechanism_found_inert_comes_back_more_eager(benchmark_search: Any) -> None:
    search = benchmark_search.run(10)
    first = search.ask("generate")
    report = "opposite-direction: rejected at stage effect\n- effect: inert: 30 calls on 10 trials"
    mended = repair(search, [first], report)
    assert mended["mechanism_id"] == "opposite-direction"
    assert mended["source"] != first["source"]
    assert "PATIENCE = 2" in mended["source"]


async def test_a_rejected_mechanism_comes_back_simpler_and_then_as_another(benchmark_search: Any) -> None:
    search = benchmark_search.run(10)
    answers = [search.ask("generate")]
    ids = []
    for _ in range(3):
        answers.append(repair(search, answers, "rejected at stage language\n- language: line 3: imports"))
        assert (await judged(answers[-1]["source"], search)).accepted
        ids.append(answers[-1]["mechanism_id"])
    assert ids[0] == "opposite-direction"
    assert "import" not in answers[1]["source"].split("class Mechanism")[0].replace("no imports", "")
    assert ids[1] != "opposite-direction"


def test_research_needs_directions(benchmark_search: Any) -> None:
    state = benchmark_search.run(2).state()
    for trial in state["trials"]:
        del trial["directions"]
    with pytest.raises(BadRequest, match="directions"):
        observations(SearchState.from_json(state))


def repair(search: Any, answers: list[Any], report: str) -> Any:
    return search.ask("repair", answers, report=report)


def candidate(changes: dict[str, Any]) -> Any:
    return Candidate(changes, "")


def view(search: Any) -> Any:
    active = tuple(p.name for p in search.space.editable)
    best = search.incumbent
    return SearchView(search.objective, tuple(search.trials), search.incumbent, best, active, (), "", "", 10)
