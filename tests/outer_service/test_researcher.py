"""The dialogue as a pure function: what comes next, what it is shown, and what it is called."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mechanisms.findings import Stage
from mechanisms.interface import Hook, Origin, TrialRecord
from mechanisms.tallies import Incumbents, directions, tallies
from outer_service.answers import Generation
from outer_service.campaign import CompletedRound, Judgement, OpenSession, ResearchOutcome, Round
from outer_service.digest import prompt
from outer_service.observed import (
    GateFinding,
    GateReport,
    MechanismEffect,
    MechanismState,
    Observation,
    ObservedMechanism,
    ObservedRun,
    ObservedTask,
    RunState,
    SearchConfig,
    SearchDescription,
    SourceFile,
)
from outer_service.researcher import Ask, End, Install, Judge, mechanism_id, messages, next_step
from service_kit.parameters import Kind, Objective, Outcome, Parameter, ParameterSpace

EXPLORED = {
    "bottleneck": "fixation",
    "candidates": [{"name": "tabu", "idea": "forbid"}, {"name": "opposite", "idea": "turn round"}],
}
SPECIFIED = {"name": "tabu", "summary": "s", "hooks": ["veto"], "behaviour": "b"}
GENERATED = {"mechanism_id": "Tabu Search!", "source": "```python\nclass Mechanism:\n    pass\n```"}
SOURCE = "class Mechanism:\n    pass\n"
REJECTED = GateReport(False, Stage.LANGUAGE, (GateFinding(Stage.LANGUAGE, 2, "no hooks"),), text="the complete report")
ACCEPTED = GateReport(True, Stage.EFFECT, text="fine")

SPACE = ParameterSpace(
    (
        Parameter("BATCH", Kind.INTEGER, 8, minimum=1, maximum=64),
        Parameter("BETAS", Kind.LIST, (0.8, 0.9), minimum=0.0, maximum=1.0, length=2),
        Parameter("KIND", Kind.CATEGORICAL, "a", choices=("a", "b")),
    )
)


def session(*rounds: tuple[Round, Any], judged: tuple[GateReport, ...] = ()) -> OpenSession:
    completed = tuple(CompletedRound(round_, json.dumps(answer)) for round_, answer in rounds)
    return OpenSession("campaigns/c/researchSessions/1", 10, completed, tuple(Judgement(SOURCE, r) for r in judged))


def critique(choice: str) -> dict[str, str]:
    return {"choice": choice, "reason": "because"}


DIALOGUE = (
    (Round.EXPLORE, EXPLORED),
    (Round.CRITIQUE, critique("tabu")),
    (Round.SPECIFY, SPECIFIED),
    (Round.GENERATE, GENERATED),
)
REPAIRED = (Round.REPAIR, GENERATED)


def asked(session: OpenSession) -> Round:
    step = next_step(session, 2)
    assert isinstance(step, Ask)
    return step.round


def test_the_four_rounds_follow_each_other() -> None:
    rounds = [asked(session(*DIALOGUE[:n])) for n in range(4)]
    assert rounds == [Round.EXPLORE, Round.CRITIQUE, Round.SPECIFY, Round.GENERATE]


def test_none_is_an_answer() -> None:
    step = next_step(session(DIALOGUE[0], (Round.CRITIQUE, critique("none"))), 2)
    assert step == End(ResearchOutcome.NONE_CHOSEN, "because")


def test_a_choice_that_was_no_candidate_does_not_fit_the_schema() -> None:
    step = next_step(session(DIALOGUE[0]), 2)
    assert isinstance(step, Ask)
    for choice in ("tabu", "opposite", "none"):
        step.answer_type.model_validate(critique(choice))
    with pytest.raises(ValidationError):
        step.answer_type.model_validate(critique("annealing"))


def test_the_code_fence_is_taken_off_before_the_gate_sees_the_source() -> None:
    assert next_step(session(*DIALOGUE), 2) == Judge(SOURCE)
    assert Generation(mechanism_id="x", source=SOURCE).code == SOURCE


def test_an_accepted_source_is_installed() -> None:
    assert next_step(session(*DIALOGUE, judged=(ACCEPTED,)), 2) == Install("Tabu Search!", SOURCE)
    repaired = session(*DIALOGUE, REPAIRED, judged=(REJECTED, ACCEPTED))
    assert next_step(repaired, 2) == Install("Tabu Search!", SOURCE)


def test_a_module_without_an_id_takes_the_name_of_its_specification() -> None:
    nameless = (*DIALOGUE[:3], (Round.GENERATE, {"source": SOURCE}))
    assert next_step(session(*nameless, judged=(ACCEPTED,)), 2) == Install("tabu", SOURCE)


def test_a_rejected_source_is_repaired_as_often_as_the_policy_says() -> None:
    assert asked(session(*DIALOGUE, judged=(REJECTED,))) is Round.REPAIR
    assert next_step(session(*DIALOGUE, REPAIRED, judged=(REJECTED,)), 2) == Judge(SOURCE)
    assert asked(session(*DIALOGUE, REPAIRED, judged=(REJECTED, REJECTED))) is Round.REPAIR
    for repairs, n in ((0, 0), (1, 1), (2, 2)):
        step = next_step(session(*DIALOGUE, *[REPAIRED] * n, judged=(REJECTED,) * (n + 1)), repairs)
        assert isinstance(step, End)
        assert step.outcome is ResearchOutcome.REJECTED
        assert f"rejected all {n + 1} attempts" in step.message
        assert "no hooks" in step.message


def observation() -> Observation:
    def trial(number: int, changes: dict[str, Any], metric: float, kept: bool, bar: float | None) -> TrialRecord:
        origin = Origin.MODEL if number else Origin.BASELINE
        base = {"BATCH": 4, "BETAS": (0.8, 0.9), "KIND": "a"}
        return TrialRecord(number, base | changes, changes, "why", origin, "", Outcome.SUCCEEDED, metric, kept, bar)

    trials = (
        trial(0, {}, 2.0, True, None),
        trial(1, {"BATCH": 16}, 2.5, False, 2.0),
        trial(2, {"BATCH": 2}, 1.5, True, 2.0),
        trial(3, {"BATCH": 3}, 1.75, False, 1.5),
        trial(4, {"BETAS": (0.7, 0.9), "KIND": "b"}, 1.5, False, 1.5),
    )
    task = ObservedTask("made-up", "Made up", "For tests.", SPACE, Objective("loss"), 1.0, "virtual", "")
    config = SearchConfig(("KIND",), "explore", "be bold", 3)
    run = ObservedRun("runs/r", "t", RunState.PAUSED, "", 30, 5, 4, task, config, 2, 2, 2.0, 9)
    effect = MechanismEffect((), 7, 3, 1)
    mechanism = ObservedMechanism("tabu", "Tabu.", "", "", (Hook.VETO,), MechanismState.ACTIVE, "", effect, 2, "m")
    return Observation(run, trials, (mechanism,))


DESCRIPTION = SearchDescription(
    (SourceFile("loop.py", "def go(): ..."),), "the reference", (SourceFile("example.py", "class Mechanism: ..."),)
)


def test_directions_are_seen_from_the_incumbent_of_the_time() -> None:
    incumbents = Incumbents(observation().trials)
    seen = [directions(trial, incumbents) for trial in observation().trials]
    assert seen[1:] == [
        {"BATCH": "increase"},
        {"BATCH": "decrease"},
        {"BATCH": "increase"},
        {"BETAS": "decrease", "KIND": "change"},
    ]


def test_counts_by_parameter_and_direction() -> None:
    rows = {(row.parameter, row.direction): row for row in tallies(observation().trials, Objective("loss"))}
    assert (rows["BATCH", "increase"].tries, rows["BATCH", "increase"].kept) == (2, 0)
    assert rows["BATCH", "increase"].best_gain == -0.25
    assert rows["BATCH", "decrease"].best_gain == 0.5


@pytest.mark.parametrize("round_", Round)
def test_every_prompt_ends_with_one_search_state_and_carries_the_answers_before(round_: Round) -> None:
    before = session(*DIALOGUE, judged=(REJECTED,))
    sent = messages(round_, before, observation(), DESCRIPTION, 2)
    assert [message.role for message in sent] == ["system", *["user", "assistant"] * 4, "user"]
    blocks = re.findall(r"^```json search-state\n(.*)\n```$", sent[-1].content, re.MULTILINE)
    assert len(blocks) == 1
    state = json.loads(blocks[0])
    assert [p["active"] for p in state["parameters"]] == [True, True, False]
    assert state["trials"][4]["directions"] == {"BETAS": "decrease", "KIND": "change"}
    assert state["mechanisms"][0]["changed_decisions"] == 7
    assert "increase BATCH: 2 tried, 0 kept, best gain -0.25" in sent[-1].content
    shows_loop = round_ is not Round.CRITIQUE
    assert ("the reference" in sent[-1].content) is shows_loop
    assert ("class Mechanism: ..." in sent[-1].content) is (round_ is Round.GENERATE)


def test_a_repair_sees_the_complete_report_and_numbered_lines() -> None:
    sent = messages(Round.REPAIR, session(*DIALOGUE, judged=(REJECTED,)), observation(), DESCRIPTION, 2)
    assert "the complete report" in sent[-1].content
    assert "   1  class Mechanism:" in sent[-1].content


def test_a_missing_value_in_a_prompt_is_an_error_and_no_gap() -> None:
    with pytest.raises(Exception, match="every"):
        prompt("analyse", observation())


@given(wanted=st.text(max_size=80), taken=st.sets(st.sampled_from(["tabu", "tabu-2", "m"]), max_size=3))
def test_ids_are_valid_and_free_whatever_the_model_wanted(wanted: str, taken: set[str]) -> None:
    id_ = mechanism_id(wanted, taken)
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,47}", id_)
    assert id_ not in taken


def test_a_taken_id_gets_a_number() -> None:
    assert mechanism_id("Tabu", {"tabu", "tabu-2"}) == "tabu-3"
