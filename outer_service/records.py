"""What a research procedure reads: a search and its sessions as plain data, as they were at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from mechanisms.procedure import Moment
from outer_service import events
from outer_service.answers import NONE, Critique, Exploration
from outer_service.campaign import CompletedRound, OpenSession, Round
from outer_service.observed import MechanismState, Observation


def record(happened: Iterable[events.Event], observation: Observation) -> dict[str, Any]:
    """The search now, with the campaign's earlier sessions; built-in JSON types."""
    improvements = observation.improvements()
    newest = max(improvements, default=-1)
    return {
        "decided": observation.run.decided_trials,
        "trials_left": observation.run.trials_left,
        "since_improvement": sum(trial.number > newest for trial in observation.searched),
        "improved": len(improvements),
        "installed": sum(m.state is MechanismState.ACTIVE for m in observation.mechanisms),
        "sessions": sessions(happened),
    }


def sessions(happened: Iterable[events.Event]) -> list[dict[str, Any]]:
    """The ended sessions that ``happened`` tells of, oldest first."""
    found: list[dict[str, Any]] = []
    after: dict[str, int] = {}
    for event in happened:
        if isinstance(event, events.ResearchStarted):
            after[event.session] = event.after_trial
        elif isinstance(event, events.ResearchFinished) and not event.control:
            ended = {"after_trial": after.get(event.session, 0), "outcome": event.outcome.value}
            found.append({**ended, "mechanism": event.mechanism, "verdict": ""})
        elif isinstance(event, events.VerdictReached):
            for session in found:
                if session["mechanism"] == event.mechanism:
                    session["verdict"] = event.verdict.value
    return found


def candidates(session: OpenSession, critique: Critique) -> list[dict[str, Any]]:
    """What the critique chose among, with its assessments."""
    said = {assessment.name: assessment for assessment in critique.assessments}
    explored = Exploration.model_validate_json(session.rounds[0].answer).candidates
    ideas = [
        {"name": idea.name, "field": idea.field, "library": False, "judged": 0, "kept": 0} for idea in explored
    ] + [
        {"name": offer.choice, "field": "", "library": True, "judged": offer.judged, "kept": offer.kept}
        for offer in session.offered
    ]
    texts = {name: {"merit": a.merit, "risk": a.risk} for name, a in said.items()}
    return [{**idea, **texts.get(str(idea["name"]), {"merit": "", "risk": ""})} for idea in ideas]


def moments(happened: Sequence[events.Event]) -> list[Moment]:
    """The recorded moments of a campaign on which a changed procedure is replayed."""
    found: list[Moment] = []
    session: OpenSession | None = None
    for event in happened:
        if isinstance(event, events.ResearchStarted) and event.record:
            session = OpenSession(event.session, event.after_trial, offered=event.offered)
            found.append(Moment(event.record))
        elif isinstance(event, events.RoundFinished) and session is not None and event.answer:
            if event.round is Round.EXPLORE:
                session = replace(session, rounds=(CompletedRound(event.round, event.answer),))
            elif event.round is Round.CRITIQUE and session.rounds:
                critique = Critique.model_validate_json(event.answer)
                choice = "" if critique.choice == NONE else critique.choice
                among = tuple(candidates(session, critique))
                found[-1] = Moment(found[-1].record, among if choice else (), choice)
    return found
