"""Level 1.5: reads the trace and reconfigures the search, within the guard rails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mechanisms.interface import TrialRecord
from outer_service import guard
from outer_service.answers import Analysis, ParameterReason
from outer_service.campaign import Turn
from outer_service.digest import prompt
from outer_service.events import FreezeReason
from outer_service.guard import Guarded, guarded
from outer_service.observed import Observation, ObservedRun
from outer_service.turns import answered
from service_kit.llm.budget import Budget
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import Message
from service_kit.llm.prompts import ask_fitting

PURPOSE = "analyse"


@dataclass(frozen=True, slots=True)
class Advice:
    """What the analyst answered, and what the guard rails left of it."""

    turn: Turn
    observation: str
    guarded: Guarded


def request(observation: Observation, every: int, limit: int = 0) -> tuple[Message, ...]:
    """The messages that ask for an analysis; the next one follows in ``every`` trials.

    At most ``limit`` estimated tokens; 0 is no limit. Raises :class:`ModelError` when that is not possible.
    """
    return prompt(
        PURPOSE,
        observation,
        limit=limit,
        every=every,
        least_tries=guard.LEAST_TRIES,
        most_freezes=guard.MOST_FREEZES,
        least_active=guard.LEAST_ACTIVE,
        guidance_characters=guard.GUIDANCE_CHARACTERS,
    )


async def analyse(model: LanguageModel, observation: Observation, every: int, budget: Budget) -> Advice:
    """Ask, and guard the answer; the next analysis follows in ``every`` trials. Raises :class:`ModelError`."""
    answer = await ask_fitting(
        model, PURPOSE, lambda limit: request(observation, every, limit), Analysis, budget=budget
    )
    checked = advised(answer.value, observation.run, observation.trials)
    return Advice(answered(answer), answer.value.observation, checked)


def advised(value: Analysis, run: ObservedRun, trials: Sequence[TrialRecord]) -> Guarded:
    """What the guard rails leave of an analysis."""
    return guarded(run, trials, _reasons(value.freeze), _reasons(value.unfreeze), value.strategy, value.guidance)


def _reasons(entries: list[ParameterReason]) -> list[FreezeReason]:
    return [FreezeReason(entry.parameter, entry.reason) for entry in entries]
