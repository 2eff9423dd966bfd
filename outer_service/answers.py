"""What the model is asked to fill in, one schema a purpose.

The schemas say what is wanted. Reading forgives what cannot be misunderstood: a name without its reason, ``Veto()`` for
``veto``, lines for a text. What could be misunderstood goes back to the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, create_model, model_validator

from mechanisms.interface import Hook

NONE = "none"
"""The critique's answer when no candidate is worth installing."""


def _text(value: object) -> object:
    """Null as empty, a list of sentences as lines, anything else with a structure as JSON."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _reasons(value: object) -> object:
    """Names without reasons, and reasons by name."""
    if value is None:
        return []
    if isinstance(value, dict) and "parameter" not in value:
        return [{"parameter": name, "reason": reason} for name, reason in value.items()]
    entries = value if isinstance(value, list) else [value]
    return [{"parameter": entry} if isinstance(entry, str) else entry for entry in entries]


def _names(value: object) -> object:
    """``veto, rank`` and ``["Veto()"]`` as names."""
    entries = re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else value
    if not isinstance(entries, list):
        return value
    return [re.sub(r"\(.*", "", entry).strip().lower() if isinstance(entry, str) else entry for entry in entries]


Text = Annotated[str, BeforeValidator(_text)]
Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), BeforeValidator(_text)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ParameterReason(_Answer):
    """A parameter, and why."""

    parameter: str
    reason: Text = ""


Reasons = Annotated[list[ParameterReason], BeforeValidator(_reasons)]


class Analysis(_Answer):
    """Level 1.5: what the trace shows, and how the search should be configured now."""

    observation: Sentence
    freeze: Reasons = Field(default_factory=list)
    unfreeze: Reasons = Field(default_factory=list)
    strategy: Text = Field("", description="How to search, in a few words; empty leaves it.")
    guidance: Text = Field("", description="Text for the proposer; empty leaves it.")


class Idea(_Answer):
    """A candidate mechanism."""

    name: Sentence = Field(description="A short slug.")
    field: Text = Field("", description="The neighbouring field that it comes from.")
    idea: Sentence
    hooks: Annotated[list[str], BeforeValidator(_names)] = Field(default_factory=list)
    derived_from: Text = Field(
        "", description="The library's name of the mechanism that it changes; empty for a new idea."
    )


class Exploration(_Answer):
    """Explore: what holds the search back, and mechanisms that could answer it."""

    bottleneck: Sentence
    evidence: Text = ""
    candidates: list[Idea] = Field(min_length=1)


class Assessment(_Answer):
    """A candidate judged against the observed failure."""

    name: str
    merit: Text = ""
    risk: Text = ""


class Critique(_Answer):
    """Critique: the candidate to build, or none."""

    assessments: list[Assessment] = Field(default_factory=list)
    choice: Sentence = Field(description='The name of one candidate, or "none".')
    reason: Text = ""


def critique_of(names: Sequence[str]) -> type[Critique]:
    """The critique's schema: the choice is one of ``names`` or none, and nothing else."""

    def chosen(value: object) -> object:
        if value is None:
            return NONE
        if not isinstance(value, str):
            return value
        said = value.strip().strip("\"'`.").casefold()
        if said in (NONE, "none of these", "none of them", "none of the candidates"):
            return NONE
        return next((name for name in names if name.casefold() == said), value)

    choice: Any = (
        Annotated[Literal[(*names, NONE)], BeforeValidator(chosen)],
        Field(description="The name of one candidate, or none."),
    )
    return create_model("Critique", __base__=Critique, choice=choice)


class Specification(_Answer):
    """Specify: the chosen mechanism's exact behaviour."""

    name: Sentence
    summary: Sentence
    hooks: Annotated[list[Hook], BeforeValidator(_names)] = Field(min_length=1)
    state: Text = ""
    behaviour: Sentence
    parameters: Text = ""


_BLOCK = re.compile(r"```(?:[pP]y(?:thon)?3?)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


def _code(source: str) -> str:
    """A source without what models like to put around it: a code fence, and escapes in place of line breaks."""
    if "\n" not in source.strip() and "\\n" in source:
        source = source.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"')
    blocks = _BLOCK.findall(source)
    return (blocks[0] if len(blocks) == 1 else source).rstrip() + "\n"


class Generation(_Answer):
    """Generate and repair: one complete Python module."""

    mechanism_id: Text = Field("", description="A short slug; empty takes the specification's name.")
    source: Annotated[str, BeforeValidator(_text)] = Field(
        min_length=1, description="The complete module, as plain text without code fences."
    )

    @property
    def code(self) -> str:
        return _code(self.source)

    @classmethod
    def from_text(cls, text: str) -> dict[str, Any] | None:
        """The module of an answer that is no JSON: its only complete code block with a class Mechanism."""
        modules = [block for block in _BLOCK.findall(text) if "class Mechanism" in block]
        return {"source": modules[0]} if len(modules) == 1 else None


class ProcedureProposal(_Answer):
    """Procedure: a changed research procedure, or none."""

    change: bool = Field(description="False when the recorded sessions give no reason to change the procedure.")
    reason: Text = ""
    source: Text = Field("", description="The complete source of the function research; empty without a change.")

    @model_validator(mode="after")
    def _changed(self) -> ProcedureProposal:
        if self.change and not self.source.strip():
            raise ValueError("change is true, so source must hold the complete source of the function research")
        return self

    @property
    def code(self) -> str:
        return _code(self.source)
