"""Answers of uneven quality, round by round, through a local endpoint, the real reading and the real gate."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from mechanisms import gate, procedure
from mechanisms.interface import Origin, TrialRecord
from mechanisms.sandbox.limits import SandboxPolicy
from outer_service.analyst import advised
from outer_service.answers import Analysis, Exploration, Generation, ProcedureProposal, Specification, critique_of
from outer_service.observed import ObservedRun, ObservedTask, RunState, SearchConfig
from service_kit.parameters import Kind, Objective, Outcome, Parameter, ParameterSpace
from tests.outer_service.uneven import at, given, written
from tests.service_kit.llm_endpoint import Endpoint, serving

CRITIQUE = critique_of(["tabu", "opposite-direction", "Step Size"])
SPACE = ParameterSpace(
    (
        Parameter("BATCH", Kind.INTEGER, 8, minimum=1, maximum=64),
        Parameter("LR", Kind.REAL, 0.04, minimum=1e-4, maximum=1),
        Parameter("DECAY", Kind.REAL, 0.1, minimum=0, maximum=1),
        Parameter("MOMENTUM", Kind.REAL, 0.9, minimum=0, maximum=1),
        Parameter("KIND", Kind.CATEGORICAL, "a", choices=("a", "b")),
        Parameter("WARMUP", Kind.REAL, 0.1, minimum=0, maximum=1),
        Parameter("DEPTH", Kind.INTEGER, 2, locked=True, minimum=1, maximum=8),
    )
)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with serving() as served:
        yield served


def check(found: Any, entry: dict[str, Any]) -> None:
    data = found.value.model_dump(mode="json")
    assert {path: at(data, path) for path in entry.get("value", {})} == entry.get("value", {})


ROUNDS: list[tuple[str, type[BaseModel]]] = [
    ("explore", Exploration),
    ("critique", CRITIQUE),
    ("specify", Specification),
    ("generate", Generation),
    ("repair", Generation),
    ("procedure", ProcedureProposal),
]


@pytest.mark.parametrize(
    ("entry", "answer_type"),
    [pytest.param(*p.values, t, id=f"{r}-{p.id}") for r, t in ROUNDS for p in written(r)],
)
async def test_an_answer_is_read_or_sent_back_as_written(
    endpoint: Endpoint, entry: dict[str, Any], answer_type: type[BaseModel]
) -> None:
    if (found := await given(endpoint, entry, answer_type)) is not None:
        check(found, entry)


def tried(number: int, name: str, *, kept: bool = False) -> TrialRecord:
    changes = {name: 4}
    outcome = Outcome.SUCCEEDED
    return TrialRecord(number, changes, changes, "h", Origin.MODEL, "", outcome, 2.0 - kept, kept, 2.0)


@pytest.mark.parametrize("entry", written("analyse"))
async def test_an_analysis_is_read_guarded_or_sent_back_as_written(endpoint: Endpoint, entry: dict[str, Any]) -> None:
    found = await given(endpoint, entry, Analysis)
    if found is None:
        return
    check(found, entry)
    trials = (*(tried(n, "BATCH") for n in range(1, 5)), tried(5, "LR", kept=True), tried(6, "LR"))
    task = ObservedTask("t", "T", "", SPACE, Objective("loss"), 1.0, "", "")
    config = SearchConfig(frozen=("KIND",))
    run = ObservedRun("runs/r", "t", RunState.PAUSED, "", 20, 5, 6, task, config, 5, 5, 2.0, 9)
    refused = advised(found.value, run, trials).refused
    if entry["expect"] == "guarded":
        assert re.search(entry["problem"], "; ".join(refused))
    else:
        assert [text for text in refused if not text.startswith("freeze LR")] == []


GATED = [
    pytest.param(*p.values, id=f"{r}-{p.id}")
    for r in ("generate", "repair")
    for p in written(r)
    if "gate" in p.values[0]
]


@pytest.mark.long
@pytest.mark.parametrize("entry", GATED)
async def test_the_gate_judges_a_generated_source_as_written(endpoint: Endpoint, entry: dict[str, Any]) -> None:
    found = await given(endpoint, entry, Generation)
    assert found is not None
    report = await gate.check(
        found.value.code, space=SPACE, objective=Objective("loss"), history=(), seed=0, allow_inert=False
    )
    verdict = "accepted" if report.accepted else report.stage.value
    assert verdict == entry["gate"], report.render()
    assert re.search(entry.get("finding", ""), report.render())


@pytest.mark.long
@pytest.mark.parametrize("entry", [p for p in written("procedure") if "gate" in p.values[0]])
async def test_the_gate_judges_a_proposed_procedure_as_written(endpoint: Endpoint, entry: dict[str, Any]) -> None:
    found = await given(endpoint, entry, ProcedureProposal)
    assert found is not None
    report = await procedure.check(found.value.code, [], SandboxPolicy())
    assert ("accepted" if report.accepted else report.stage.value) == entry["gate"], report.render()
    assert re.search(entry.get("finding", ""), report.render())
