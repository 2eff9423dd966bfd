"""Level 2: the dialogue that ends in a mechanism, as a pure function of what was said so far.

:func:`next_step` says what comes next; :func:`messages` builds the prompt for it from earlier answers alone. So a
session that was interrupted goes on after its last stored round.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, Field, create_model

from outer_service.answers import NONE, Critique, Exploration, Generation, Specification
from outer_service.campaign import CompletedRound, OpenSession, ResearchOutcome, Round
from outer_service.digest import prompt
from outer_service.observed import Observation, SearchDescription
from service_kit.llm.failures import Message

ID_CHARACTERS = 48


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the model for a round."""

    round: Round
    answer_type: type[BaseModel]


@dataclass(frozen=True, slots=True)
class Judge:
    """Show a source to the gate."""

    source: str


@dataclass(frozen=True, slots=True)
class Install:
    """Install an accepted source."""

    wanted_id: str
    source: str


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more to do."""

    outcome: ResearchOutcome
    message: str


Step: TypeAlias = Ask | Judge | Install | End


def next_step(session: OpenSession, repairs: int) -> Step:
    """What a session does next when a rejected mechanism may be repaired ``repairs`` times."""
    if not session.rounds:
        return Ask(Round.EXPLORE, Exploration)
    last = session.rounds[-1]
    match last.round:
        case Round.EXPLORE:
            return Ask(Round.CRITIQUE, critique_of(last))
        case Round.CRITIQUE:
            critique = Critique.model_validate_json(last.answer)
            if critique.choice == NONE:
                return End(ResearchOutcome.NONE_CHOSEN, critique.reason or "the critique chose none")
            return Ask(Round.SPECIFY, Specification)
        case Round.SPECIFY:
            return Ask(Round.GENERATE, Generation)
    generated = Generation.model_validate_json(last.answer)
    written = sum(completed.round in (Round.GENERATE, Round.REPAIR) for completed in session.rounds)
    if len(session.judgements) < written:
        return Judge(generated.code)
    judged = session.judgements[-1]
    if judged.report.accepted:
        return Install(generated.mechanism_id, judged.source)
    if len(session.judgements) <= repairs:
        return Ask(Round.REPAIR, Generation)
    attempts = len(session.judgements)
    first = judged.report.findings[0].message if judged.report.findings else "see the report"
    message = f"the gate rejected all {attempts} attempts, the last at its {judged.report.stage.value} stage: {first}"
    return End(ResearchOutcome.REJECTED, message)


def critique_of(exploration: CompletedRound) -> type[BaseModel]:
    """The critique's schema: the choice is the name of an explored candidate or none, and nothing else."""
    names = [idea.name for idea in Exploration.model_validate_json(exploration.answer).candidates]
    choice: Any = (Literal[(*names, NONE)], Field(description="The name of one candidate, or none."))
    return create_model("Critique", __base__=Critique, choice=choice)


def messages(
    round_: Round, session: OpenSession, observation: Observation, description: SearchDescription, repairs: int
) -> tuple[Message, ...]:
    """The prompt for a round: the search as it is, after the answers so far."""
    more: dict[str, object] = {"description": description}
    if round_ is Round.REPAIR:
        rejected = session.judgements[-1]
        more["report"] = rejected.report.text
        more["numbered"] = "\n".join(f"{i:4d}  {line}" for i, line in enumerate(rejected.source.splitlines(), 1))
        more["repairs_left"] = repairs - len(session.judgements)
    system, user = prompt(round_.value, observation, **more)
    said: list[Message] = []
    for completed in session.rounds:
        said += [Message("user", f"Round: {completed.round.value}."), Message("assistant", completed.answer)]
    return (system, *said, user)


def summary(round_: Round, value: BaseModel) -> str:
    """What an answer comes to, in a sentence."""
    match value:
        case Exploration():
            names = ", ".join(idea.name for idea in value.candidates)
            return f"bottleneck: {value.bottleneck}; candidates: {names}"
        case Critique():
            return f"chose {value.choice}: {value.reason}"
        case Specification():
            return f"{value.name}: {value.summary}"
        case Generation():
            return f"{value.mechanism_id}: {len(value.code.splitlines())} lines"
    return round_.value


def mechanism_id(wanted: str, taken: Collection[str]) -> str:
    """A valid id made of ``wanted``, with a number where that one is taken."""
    slug = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")
    slug = slug if slug[:1].isalpha() else f"m-{slug}".rstrip("-")
    candidate, number = slug[:ID_CHARACTERS].rstrip("-"), 1
    while candidate in taken:
        number += 1
        suffix = f"-{number}"
        candidate = slug[: ID_CHARACTERS - len(suffix)].rstrip("-") + suffix
    return candidate
