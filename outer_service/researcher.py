"""Level 2: the dialogue that ends in a mechanism, as a pure function of what was said so far.

:func:`next_step` says what comes next; :func:`messages` builds the prompt for it from earlier answers alone. So a
session that was interrupted goes on after its last stored round.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import BaseModel

from outer_service.answers import NONE, Critique, Exploration, Generation, Specification, critique_of
from outer_service.campaign import Offer, OpenSession, ResearchOutcome, Round
from outer_service.digest import prompt
from outer_service.observed import Observation, SearchDescription, SourceFile
from service_kit.llm.failures import Message

ID_CHARACTERS = 48
FIELDS = (
    *("combinatorial optimisation", "bandits", "evolutionary computation", "Bayesian optimisation"),
    *("design of experiments", "psychology of creativity"),
)
"""Neighbouring fields that the exploration surveys, unless the research procedure says otherwise."""
HYPOTHESES = "two to four"
"""Candidates that the exploration gives, unless the research procedure says otherwise."""


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
class Reuse:
    """Show the gate what the library offered."""

    offer: Offer


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


Step: TypeAlias = Ask | Judge | Reuse | Install | End


def next_step(session: OpenSession, repairs: int) -> Step:
    """What a session does next when a rejected mechanism may be repaired ``repairs`` times."""
    if not session.rounds:
        return Ask(Round.EXPLORE, Exploration)
    last = session.rounds[-1]
    match last.round:
        case Round.EXPLORE:
            ideas = Exploration.model_validate_json(last.answer).candidates
            choices = [idea.name for idea in ideas] + [offer.choice for offer in session.offered]
            return Ask(Round.CRITIQUE, critique_of(choices))
        case Round.CRITIQUE:
            critique = Critique.model_validate_json(last.answer)
            if critique.choice == NONE:
                return End(ResearchOutcome.NONE_CHOSEN, critique.reason or "the critique chose none")
            offer = session.offer(critique.choice)
            if offer is None:
                return Ask(Round.SPECIFY, Specification)
            return _judged(session, repairs, offer.title) if session.judgements else Reuse(offer)
        case Round.SPECIFY:
            return Ask(Round.GENERATE, Generation)
    generated = Generation.model_validate_json(last.answer)
    written = sum(completed.round in (Round.GENERATE, Round.REPAIR) for completed in session.rounds)
    if len(session.judgements) < written + (chosen_offer(session) is not None):
        return Judge(generated.code)
    return _judged(session, repairs, generated.mechanism_id)


def _judged(session: OpenSession, repairs: int, wanted_id: str) -> Step:
    """What follows the gate's newest report."""
    judged = session.judgements[-1]
    if judged.report.accepted:
        return Install(wanted_id.strip() or _specified(session), judged.source)
    if len(session.judgements) <= repairs:
        return Ask(Round.REPAIR, Generation)
    attempts = len(session.judgements)
    first = judged.report.findings[0].message if judged.report.findings else "see the report"
    message = f"the gate rejected all {attempts} attempts, the last at its {judged.report.stage.value} stage: {first}"
    return End(ResearchOutcome.REJECTED, message)


def chosen_offer(session: OpenSession) -> Offer | None:
    """What the critique chose from the library; None for a new idea."""
    choices = [
        Critique.model_validate_json(completed.answer).choice
        for completed in session.rounds
        if completed.round is Round.CRITIQUE
    ]
    return session.offer(choices[-1]) if choices else None


def starting_point(session: OpenSession) -> Offer | None:
    """The library's mechanism that the session's own derives from: the chosen one, or what the chosen idea names."""
    offer = chosen_offer(session)
    if offer is not None or len(session.rounds) < 2:
        return offer
    explored, critique = session.rounds[0].answer, Critique.model_validate_json(session.rounds[1].answer)
    ideas = Exploration.model_validate_json(explored).candidates
    chosen = next((idea for idea in ideas if idea.name == critique.choice), None)
    return session.offer(chosen.derived_from) if chosen is not None else None


def _specified(session: OpenSession) -> str:
    """Name of the mechanism that the session writes: the specified one's, or that of what the library offered."""
    if (offer := chosen_offer(session)) is not None:
        return offer.title
    answers = [completed.answer for completed in session.rounds if completed.round is Round.SPECIFY]
    return Specification.model_validate_json(answers[-1]).name


def messages(
    round_: Round,
    session: OpenSession,
    observation: Observation,
    description: SearchDescription,
    repairs: int,
    start: SourceFile | None = None,
    limit: int = 0,
) -> tuple[Message, ...]:
    """The prompt for a round: the search as it is, after the answers so far; ``start`` is where the mechanism derives
    from."""
    advice = session.advice
    more: dict[str, object] = {
        "session": session,
        "start": start,
        "fields": advice.fields if advice is not None and advice.fields else FIELDS,
        "hypotheses": advice.hypotheses if advice is not None and advice.hypotheses else HYPOTHESES,
    }
    if round_ is Round.REPAIR:
        rejected = session.judgements[-1]
        more["report"] = rejected.report.text
        more["numbered"] = "\n".join(f"{i:4d}  {line}" for i, line in enumerate(rejected.source.splitlines(), 1))
        more["repairs_left"] = repairs - len(session.judgements)
    said: list[Message] = []
    for completed in session.rounds:
        said += [Message("user", f"Round: {completed.round.value}."), Message("assistant", completed.answer)]
    return prompt(round_.value, observation, description=description, limit=limit, said=said, **more)


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
