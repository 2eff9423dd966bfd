"""From the domain's types to the wire's messages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from functools import singledispatch
from typing import Any

from bilevel.v1 import common_pb2, trace_pb2
from bilevel.v1 import outer_pb2 as pb

from outer_service import events
from outer_service.campaign import Campaign, Control, Offer, Policy, Round, Turn
from outer_service.comparison import Comparison
from outer_service.inner_messages import effect_to_proto, report_to_proto
from outer_service.store import Entry
from service_kit.patience import AvailabilityChanged
from service_kit.translate import duration_to_proto, timestamp_to_proto, usage_to_proto
from service_kit.waits import Wait


def campaign_to_proto(campaign: Campaign, wait: Wait | None = None) -> pb.Campaign:
    """``wait`` is how the campaign waits for the database here; it stands where otherwise is why it is in its state."""
    return pb.Campaign(
        name=campaign.name,
        run=campaign.run,
        policy=policy_to_proto(campaign.policy),
        state=pb.CampaignState.Value(f"CAMPAIGN_STATE_{campaign.state.name}"),
        state_reason=campaign.state_reason if wait is None else str(wait),
        cycles=campaign.cycles,
        installed_mechanisms=len(campaign.mechanisms),
        usage=usage_to_proto(campaign.usage),
        model=campaign.model,
        scripted=campaign.scripted,
        create_time=timestamp_to_proto(campaign.create_time),
        update_time=timestamp_to_proto(campaign.update_time),
        last_sequence=campaign.last_sequence,
        etag=f'"{campaign.last_sequence}"',
        owner=campaign.owner,
    )


def policy_to_proto(policy: Policy) -> pb.CampaignPolicy:
    none = policy.control is Control.NONE
    control = pb.CONTROL_UNSPECIFIED if none else pb.Control.Value(f"CONTROL_{policy.control.name}")
    return pb.CampaignPolicy(
        levels=[pb.Level.Value(f"LEVEL_{level.name}") for level in policy.levels],
        configuration_every=policy.configuration_every,
        mechanism_every=policy.mechanism_every,
        mode=pb.CampaignMode.Value(f"CAMPAIGN_MODE_{policy.mode.name}"),
        repairs=policy.repairs,
        probation_trials=policy.probation_trials,
        max_tokens=policy.max_tokens,
        max_cost_usd=policy.max_cost_usd,
        max_failures=policy.max_failures,
        control=control,
        max_mechanisms=policy.max_mechanisms,
        after_failures=pb.AfterFailures.Value(f"AFTER_FAILURES_{policy.after_failures.name}"),
        library=pb.LibraryUse.Value(f"LIBRARY_USE_{policy.library.name}"),
        reexamination_trials=policy.reexamination_trials,
        max_cycle_time=duration_to_proto(policy.max_cycle_seconds),
        recursion=policy.recursion,
        procedure_probation=policy.procedure_probation,
    )


def entry_to_proto(campaign: str, entry: Entry) -> pb.CampaignEvent:
    """One event; ``campaign`` is the campaign's resource name."""
    message = pb.CampaignEvent(campaign=campaign, sequence=entry.sequence, time=timestamp_to_proto(entry.time))
    getattr(message, events.kind_of(entry.event)).CopyFrom(event_to_proto(entry.event))
    return message


@singledispatch
def event_to_proto(event: Any) -> Any:
    """The message of one event."""
    raise TypeError(f"{type(event).__name__} has no message")


@event_to_proto.register
def _(event: events.CampaignCreated) -> pb.CampaignCreated:
    return pb.CampaignCreated(run=event.run, policy=policy_to_proto(event.policy), owner=event.owner)


@event_to_proto.register
def _(event: events.CampaignStateChanged) -> pb.CampaignStateChanged:
    before, after = (pb.CampaignState.Value(f"CAMPAIGN_STATE_{s.name}") for s in (event.from_state, event.to_state))
    return pb.CampaignStateChanged(from_state=before, to_state=after, reason=event.reason)


@event_to_proto.register
def _(event: events.CycleStarted) -> pb.CycleStarted:
    levels = [pb.Level.Value(f"LEVEL_{level.name}") for level in event.levels]
    return pb.CycleStarted(cycle=event.cycle, decided_trials=event.decided_trials, levels=levels)


@event_to_proto.register
def _(event: events.CycleFinished) -> pb.CycleFinished:
    return pb.CycleFinished(cycle=event.cycle, error=event.error)


@event_to_proto.register
def _(event: events.AnalysisFinished) -> pb.AnalysisFinished:
    return pb.AnalysisFinished(
        turn=turn_to_proto(event.turn, None),
        observation=event.observation,
        freeze=_reasons(event.freeze),
        unfreeze=_reasons(event.unfreeze),
        strategy=event.strategy,
        guidance=event.guidance,
        guarded=event.guarded,
        applied=event.applied,
        revision=event.revision,
    )


@event_to_proto.register
def _(event: events.ProcedureJudged) -> pb.ProcedureJudged:
    turn = turn_to_proto(event.turn, None)
    turn.round = pb.RESEARCH_ROUND_PROCEDURE
    return pb.ProcedureJudged(
        turn=turn,
        attempt=event.attempt,
        reason=event.reason,
        source=event.source,
        report=report_to_proto(event.report) if event.report is not None else None,
    )


@event_to_proto.register
def _(event: events.ProcedureChanged) -> pb.ProcedureChanged:
    return pb.ProcedureChanged(
        procedure=event.procedure,
        state=pb.ProcedureState.Value(f"PROCEDURE_STATE_{event.state.name}"),
        reason=event.reason,
        sessions=comparison_to_proto(event.sessions),
        campaigns=event.campaigns,
    )


@event_to_proto.register
def _(event: events.ConfigurationMeasured) -> pb.ConfigurationMeasured:
    return pb.ConfigurationMeasured(
        decided_trials=event.decided_trials,
        revisions=[
            pb.RevisionEffect(
                revision=effect.revision,
                trials=effect.trials,
                kept=effect.kept,
                failed=effect.failed,
                gain_per_trial=effect.gain_per_trial,
                tried=effect.tried,
            )
            for effect in event.revisions
        ],
    )


@event_to_proto.register
def _(event: events.LibraryEntryChosen) -> pb.LibraryEntryChosen:
    return pb.LibraryEntryChosen(session=event.session, offer=_offer(event.offer), reason=event.reason)


@event_to_proto.register
def _(event: events.HistoryCleared) -> pb.HistoryCleared:
    return pb.HistoryCleared(
        session=event.session, visible_from_trial=event.visible_from_trial, revision=event.revision
    )


@event_to_proto.register
def _(event: events.ResearchStarted) -> pb.ResearchStarted:
    advice = event.advice
    return pb.ResearchStarted(
        session=event.session,
        after_trial=event.after_trial,
        offered=map(_offer, event.offered),
        replaces=event.replaces,
        advice=pb.ProcedureAdvice(procedure=advice.procedure, fields=advice.fields, hypotheses=advice.hypotheses)
        if advice is not None
        else None,
    )


@event_to_proto.register
def _(event: events.RoundFinished) -> pb.RoundFinished:
    turn = turn_to_proto(event.turn, event.round)
    return pb.RoundFinished(session=event.session, turn=turn, summary=event.summary)


@event_to_proto.register
def _(event: events.MechanismJudged) -> pb.MechanismJudged:
    report = report_to_proto(event.report)
    return pb.MechanismJudged(session=event.session, attempt=event.attempt, report=report, source=event.source)


@event_to_proto.register
def _(event: events.ResearchFinished) -> pb.ResearchFinished:
    outcome = pb.ResearchOutcome.Value(f"RESEARCH_OUTCOME_{event.outcome.name}")
    return pb.ResearchFinished(
        session=event.session,
        outcome=outcome,
        message=event.message,
        mechanism=event.mechanism,
        derived_from=event.derived_from,
    )


@event_to_proto.register
def _(event: events.VerdictReached) -> pb.VerdictReached:
    return pb.VerdictReached(
        mechanism=event.mechanism,
        verdict=pb.Verdict.Value(f"VERDICT_{event.verdict.name}"),
        reason=event.reason,
        effect=effect_to_proto(event.effect),
        gain_before=event.gain_before,
        gain_during=event.gain_during,
        examination=event.examination,
        trials=event.trials,
        before_after=comparison_to_proto(event.before_after),
        touched=comparison_to_proto(event.touched),
        changed_decisions=event.changed_decisions,
        decided_trials=event.decided_trials,
    )


def comparison_to_proto(comparison: Comparison | None) -> pb.Comparison | None:
    """None where nothing could be compared."""
    return pb.Comparison(**asdict(comparison)) if comparison is not None else None


@event_to_proto.register
def _(event: AvailabilityChanged) -> common_pb2.AvailabilityChanged:
    return common_pb2.AvailabilityChanged(
        dependency=event.dependency,
        available=event.available,
        reason=event.reason,
        patience=None if event.patience is None else duration_to_proto(event.patience.total_seconds()),
        away=None if event.away is None else duration_to_proto(event.away.total_seconds()),
    )


def turn_to_proto(turn: Turn, round_: Round | None) -> pb.ResearchTurn:
    """A call; level 1.5 has no rounds."""
    wire = pb.RESEARCH_ROUND_UNSPECIFIED if round_ is None else pb.ResearchRound.Value(f"RESEARCH_ROUND_{round_.name}")
    return pb.ResearchTurn(
        round=wire,
        prompt=[common_pb2.ChatMessage(role=message.role, content=message.content) for message in turn.prompt],
        answer=turn.answer,
        usage=usage_to_proto(turn.usage),
        latency=duration_to_proto(turn.latency),
        model=turn.model,
        scripted=turn.scripted,
        error=turn.error,
        prompt_version=turn.prompt_version,
    )


def sessions_to_proto(entries: Iterable[Entry]) -> list[pb.ResearchSession]:
    """The research sessions that a campaign's events tell of, oldest first."""
    sessions: dict[str, pb.ResearchSession] = {}
    for entry in entries:
        match entry.event:
            case events.ResearchStarted(session=name, after_trial=after):
                sessions[name] = pb.ResearchSession(name=name, after_trial=after)
            case events.RoundFinished(session=name, round=round_, turn=turn):
                sessions[name].turns.append(turn_to_proto(turn, round_))
            case events.MechanismJudged(session=name, report=report):
                sessions[name].reports.append(report_to_proto(report))
            case events.ResearchFinished(session=name) as finished:
                message = event_to_proto(finished)
                session = sessions[name]
                session.outcome, session.message = message.outcome, message.message
                session.mechanism = message.mechanism
    return list(sessions.values())


def _reasons(entries: Iterable[events.FreezeReason]) -> list[trace_pb2.FreezeReason]:
    return [trace_pb2.FreezeReason(parameter=entry.parameter, reason=entry.reason) for entry in entries]


def _offer(offer: Offer) -> pb.LibraryOffer:
    return pb.LibraryOffer(**asdict(offer))
