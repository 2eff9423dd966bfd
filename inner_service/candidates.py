"""Candidates as they come in: what a model may answer, and the checks that make a typed candidate of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from inner_service.run import Search
from mechanisms.interface import Candidate, Origin
from service_kit.parameters import (
    InvalidConfiguration,
    Kind,
    ParameterSpace,
    Scalar,
    Value,
    Violation,
    configuration_from_json,
    value_to_json,
)
from service_kit.typed_text import parse_value

MAX_HYPOTHESIS = 1000
"""Longer hypotheses are cut, in characters."""


def _listed(changes: object) -> object:
    """Values by name as the list that is asked for: models like to write it so."""
    if isinstance(changes, dict) and not {"parameter", "value"} <= changes.keys():
        return [{"parameter": name, "value": value} for name, value in changes.items()]
    return changes


class ProposedChange(BaseModel):
    """One parameter and its new value."""

    model_config = ConfigDict(extra="ignore")

    parameter: str = Field(description="name of an active parameter")
    value: int | float | bool | str | list[int | float | bool | str] = Field(description="its new value")


class ProposedCandidate(BaseModel):
    """What a model proposes to measure next."""

    model_config = ConfigDict(extra="ignore")

    changes: Annotated[list[ProposedChange], BeforeValidator(_listed)] = Field(
        min_length=1, description="what differs from the incumbent"
    )
    hypothesis: str = Field(description="one sentence: what the change should do, and why")

    def values(self, space: ParameterSpace) -> dict[str, Value]:
        """The changes as they were asked for, unchecked; numbers that were written as texts are numbers."""
        return configuration_from_json({c.parameter: _meant(space, c.parameter, c.value) for c in self.changes})


def _meant(space: ParameterSpace, name: str, value: Any) -> Any:
    """``"0.04"`` for a number is 0.04; what is not understood is left for the check that names the allowed range."""
    if not isinstance(value, str) or name not in space or space[name].kind in (Kind.TEXT, Kind.SOURCE):
        return value
    try:
        return value_to_json(parse_value(space[name], value))
    except InvalidConfiguration:
        return value


class Proposal(BaseModel):
    """The model's answer to a proposer prompt."""

    model_config = ConfigDict(extra="ignore")

    candidates: Sequence[ProposedCandidate] = Field(min_length=1)


class CitingCandidate(ProposedCandidate):
    """A candidate of a model that was shown lessons."""

    lessons: Sequence[str] = Field(
        default=(), description="ids of the shown lessons that it follows; empty when it follows none"
    )


class CitingProposal(Proposal):
    """The model's answer to a proposer prompt with lessons."""

    candidates: Sequence[CitingCandidate] = Field(min_length=1)


def typed(search: Search, changes: Mapping[str, Any], hypothesis: str, origin: Origin, proposer: str = "") -> Candidate:
    """A candidate whose changes are typed, in range, active and real changes of the incumbent.

    Raises InvalidConfiguration with everything that is wrong; fields are parameter names.
    """
    incumbent = search.incumbent
    base = incumbent.configuration if incumbent is not None else search.start
    space = search.run.task.space
    wanted = space.changes(base, space.apply(base, changes))
    active = search.run.active
    frozen = [
        Violation(name, f"is frozen now and cannot be changed; active are {', '.join(active)}")
        for name in wanted
        if name not in active
    ]
    if frozen:
        raise InvalidConfiguration(frozen)
    if not wanted:
        raise InvalidConfiguration(
            [Violation("changes", "must change something: this is the incumbent's configuration")]
        )
    return Candidate(wanted, " ".join(hypothesis.split())[:MAX_HYPOTHESIS], origin, proposer)


def configuration(search: Search, candidate: Candidate) -> dict[str, Value]:
    """The complete configuration that a typed candidate stands for."""
    incumbent = search.incumbent
    base = incumbent.configuration if incumbent is not None else search.start
    return {**base, **candidate.changes}


def sentence(violations: Sequence[Violation]) -> str:
    """Violations as one readable reason."""
    return "; ".join(f"{v.field} {v.description}" if v.field else v.description for v in violations)


def storable(changes: Mapping[str, Any]) -> dict[str, Value]:
    """Refused changes as values, for the record."""
    return {name: value if isinstance(value, Scalar | tuple) else str(value) for name, value in changes.items()}
