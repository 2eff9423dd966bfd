"""Proposals and lessons of uneven quality through a real endpoint, the real reading, and the typing that a run does."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from inner_service.candidates import Proposal, sentence, typed
from inner_service.lessons.draft import Author, Drafts, checked
from inner_service.run import Run, RunSpec, Search, SearchConfig, Trial, TrialState
from inner_service.task import TaskDescription
from mechanisms.interface import Origin
from service_kit.errors import Violation
from service_kit.parameters import InvalidConfiguration, Kind, Objective, Parameter, ParameterSpace, value_to_json
from tests.outer_service.uneven import at, given, written
from tests.service_kit.llm_endpoint import Endpoint, serving

SPACE = ParameterSpace(
    (
        Parameter("BATCH", Kind.INTEGER, 8, minimum=1, maximum=64),
        Parameter("LR", Kind.REAL, 0.04, minimum=1e-4, maximum=1),
        Parameter("KIND", Kind.CATEGORICAL, "a", choices=("a", "b")),
        Parameter("BETAS", Kind.LIST, (0.8, 0.9), minimum=0, maximum=1, length=2),
        Parameter("NESTEROV", Kind.BOOLEAN, False),
        Parameter("NAME", Kind.TEXT, "SL", max_length=8, pattern="[SL]+"),
        Parameter("DECAY", Kind.REAL, 0.1, minimum=0, maximum=1),
        Parameter("DEPTH", Kind.INTEGER, 2, locked=True, minimum=1, maximum=8),
    )
)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with serving() as served:
        yield served


def search() -> Search:
    now = datetime.now(UTC)
    second = timedelta(seconds=1)
    task = TaskDescription("t", "T", "", SPACE, Objective("loss"), second, "", second, 1)
    run = Run("r", RunSpec("t", 10), task, now, now, 1)
    return Search(replace(run, search_config=SearchConfig(frozen=("DECAY",))))


@pytest.mark.parametrize("entry", written("propose"))
async def test_a_proposal_is_used_refused_or_sent_back_as_written(endpoint: Endpoint, entry: dict[str, Any]) -> None:
    found = await given(endpoint, entry, Proposal)
    if found is None:
        return
    [proposed] = found.value.candidates
    values = proposed.values(SPACE)
    if entry["expect"] == "rejected":
        with pytest.raises(InvalidConfiguration) as caught:
            typed(search(), values, proposed.hypothesis, Origin.MODEL)
        assert re.search(entry["problem"], sentence(caught.value.violations))
        return
    candidate = typed(search(), values, proposed.hypothesis, Origin.MODEL)
    changes = {name: value_to_json(value) for name, value in candidate.changes.items()}
    assert {name: changes[name] for name in entry["value"]} == entry["value"]


def tried() -> Search:
    """What the answers of lessons.toml speak of."""
    states = ("kept", "discarded", "discarded", "rejected", "kept", "running")
    metrics = (2.0, 2.25, None, None, 1.9, None)
    trials = tuple(
        Trial(number, {}, {}, "h", Origin.MODEL, state=TrialState(state), metric=metric)
        for number, (state, metric) in enumerate(zip(states, metrics, strict=True))
    )
    return replace(search(), trials=trials)


@pytest.mark.parametrize("entry", written("lessons"))
async def test_lessons_are_taken_refused_or_sent_back_as_written(endpoint: Endpoint, entry: dict[str, Any]) -> None:
    found = await given(endpoint, entry, Drafts)
    if found is None:
        return
    data = found.value.model_dump(mode="json")
    assert {path: at(data, path) for path in entry.get("value", {})} == entry.get("value", {})
    now, author = datetime.now(UTC), Author("m", scripted=False)
    judged = [checked(tried(), draft, author, now) for draft in found.value.lessons]
    refused = [f"{lesson.field} {lesson.description}" for lesson in judged if isinstance(lesson, Violation)]
    if entry["expect"] == "rejected":
        [why] = refused
        assert re.search(entry["problem"], why)
    else:
        assert refused == []
