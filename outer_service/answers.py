"""What the model is asked to fill in, one schema a purpose."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from mechanisms.interface import Hook

NONE = "none"
"""The critique's answer when no candidate is worth installing."""

Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ParameterReason(_Answer):
    """A parameter, and why."""

    parameter: str
    reason: str = ""


class Analysis(_Answer):
    """Level 1.5: what the trace shows, and how the search should be configured now."""

    observation: Sentence
    freeze: list[ParameterReason] = Field(default_factory=list)
    unfreeze: list[ParameterReason] = Field(default_factory=list)
    strategy: str = Field("", description="How to search, in a few words; empty leaves it.")
    guidance: str = Field("", description="Text for the proposer; empty leaves it.")


class Idea(_Answer):
    """A candidate mechanism."""

    name: Sentence = Field(description="A short slug.")
    field: str = Field("", description="The neighbouring field that it comes from.")
    idea: Sentence
    hooks: list[str] = Field(default_factory=list)
    derived_from: str = Field(
        "", description="The library's name of the mechanism that it changes; empty for a new idea."
    )


class Exploration(_Answer):
    """Explore: what holds the search back, and mechanisms that could answer it."""

    bottleneck: Sentence
    evidence: str = ""
    candidates: list[Idea] = Field(min_length=1)


class Assessment(_Answer):
    """A candidate judged against the observed failure."""

    name: str
    merit: str = ""
    risk: str = ""


class Critique(_Answer):
    """Critique: the candidate to build, or none."""

    assessments: list[Assessment] = Field(default_factory=list)
    choice: Sentence = Field(description='The name of one candidate, or "none".')
    reason: str = ""


class Specification(_Answer):
    """Specify: the chosen mechanism's exact behaviour."""

    name: Sentence
    summary: Sentence
    hooks: list[Hook] = Field(min_length=1)
    state: str = ""
    behaviour: Sentence
    parameters: str = ""


class Generation(_Answer):
    """Generate and repair: one complete Python module."""

    mechanism_id: Sentence
    source: str = Field(min_length=1, description="The complete module, as plain text without code fences.")

    @property
    def code(self) -> str:
        """The source without the code fence that models like to put around it."""
        fenced = re.fullmatch(r"\s*```[a-zA-Z]*\n(.*?)\n?```\s*", self.source, re.DOTALL)
        return (fenced[1] if fenced else self.source).rstrip() + "\n"
