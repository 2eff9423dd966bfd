"""A campaign told in sentences: what was seen, considered, chosen and why, what was installed, what it did and cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bilevel.v1 import common_pb2, outer_pb2, trace_pb2

from clients import wording
from clients.report.export import head_json, to_json

_LEVELS = {outer_pb2.LEVEL_CONFIGURATION: "1.5", outer_pb2.LEVEL_MECHANISM: "2"}


def document(head: outer_pb2.Campaign, events: Sequence[outer_pb2.CampaignEvent]) -> dict[str, Any]:
    """The campaign and all of its events, kinds included that this client does not know."""
    return {"campaign": head_json(head), "events": [to_json(event) for event in events]}


def story(head: outer_pb2.Campaign, events: Sequence[outer_pb2.CampaignEvent]) -> Iterator[str]:
    """The campaign in lines, oldest first."""
    state = wording.member(outer_pb2.CampaignState.Name(head.state), "CAMPAIGN_STATE_")
    yield f"{head.name} supervises {head.run}: {state}" + (f" ({head.state_reason})" if head.state_reason else "")
    if head.scripted:
        yield "The scripted researcher answered: nothing here is evidence for the method."
    elif head.model:
        yield f"Answered by {head.model}."
    for event in events:
        yield from sentences(event)
    yield ""
    yield f"Cost: {cost(head.usage, scripted=head.scripted)}"


def sentences(event: outer_pb2.CampaignEvent) -> Iterator[str]:
    """One event in lines."""
    kind = event.WhichOneof("event")
    if kind is None:
        yield f"  (event {event.sequence} is of a kind that this client does not know)"
        return
    tell: Callable[[Any], Iterator[str]] = _TELL.get(kind, lambda what, kind=kind: _anything(kind, what))
    yield from tell(getattr(event, kind))


def cost(usage: common_pb2.TokenUsage, *, scripted: bool) -> str:
    """What calls used, in words. An unknown price is said to be unknown; to a script no price applies."""
    tokens = usage.prompt_tokens + usage.completion_tokens
    parts = [f"{usage.calls} calls", f"{tokens} tokens ({usage.prompt_tokens} read, {usage.completion_tokens} written)"]
    if usage.reasoning_tokens:
        parts.append(f"{usage.reasoning_tokens} of them reasoning")
    if usage.cached_tokens:
        parts.append(f"{usage.cached_tokens} read from a cache")
    if usage.estimated_calls:
        parts.append(f"tokens of {usage.estimated_calls} calls estimated")
    if scripted:
        parts.append("no price applies (scripted)")
    else:
        parts.append(f"{usage.cost_usd:.4f} US dollars" if usage.HasField("cost_usd") else "price unknown")
    return ", ".join(parts)


def _created(what: outer_pb2.CampaignCreated) -> Iterator[str]:
    levels = " and ".join(_LEVELS.get(level, str(level)) for level in what.policy.levels) or "none"
    mode = wording.member(outer_pb2.CampaignMode.Name(what.policy.mode), "CAMPAIGN_MODE_")
    control = what.policy.control
    instead = f", control {wording.member(outer_pb2.Control.Name(control), 'CONTROL_')} in place of research"
    recursion = ", may change its research procedure" if what.policy.recursion else ""
    yield f"Levels {levels}, {mode}{instead if control else ''}{recursion}."


def _cycle(what: outer_pb2.CycleStarted) -> Iterator[str]:
    levels = " and ".join(_LEVELS.get(level, str(level)) for level in what.levels)
    yield ""
    yield f"Cycle {what.cycle}, after {what.decided_trials} trials (level {levels})"


def _cycle_finished(what: outer_pb2.CycleFinished) -> Iterator[str]:
    if what.error:
        yield f"  failed: {what.error}"


def _analysis(what: outer_pb2.AnalysisFinished) -> Iterator[str]:
    if what.turn.error:
        yield f"  1.5 no answer: {_first(what.turn.error)}"
        return
    yield f"  1.5 saw: {what.observation}"
    for verb, entries in (("froze", what.freeze), ("unfroze", what.unfreeze)):
        for entry in entries:
            yield f"  1.5 {verb} {entry.parameter}" + (f": {entry.reason}" if entry.reason else "")
    if what.strategy:
        yield f"  1.5 strategy: {what.strategy}"
    if what.guidance:
        yield f"  1.5 guidance: {what.guidance}"
    for sentence in what.guarded:
        yield f"  1.5 guard rails: {sentence}"
    if not what.applied:
        yield "  1.5 changed nothing"


def _measured(what: outer_pb2.ConfigurationMeasured) -> Iterator[str]:
    for effect in what.revisions:
        yield (
            f"  1.5 under revision {effect.revision} so far: {wording.count(effect.trials, 'trial')},"
            f" {effect.kept} kept, {effect.failed} failed, gain {effect.gain_per_trial:+.4g} a trial"
        )


def _research(what: outer_pb2.ResearchStarted) -> Iterator[str]:
    instead = f" in place of {', '.join(what.replaces)}" if what.replaces else ""
    yield f"  2 research session {what.session.rpartition('/')[2]}{instead}"
    if what.offered:
        tried = sum(offer.judged > 0 for offer in what.offered)
        yield f"      the library offers {wording.count(len(what.offered), 'mechanism')}, {tried} of them tried before"


def _chosen(what: outer_pb2.LibraryEntryChosen) -> Iterator[str]:
    yield f"  2 tries {what.offer.choice} of the library again: {_first(what.offer.record)}"
    if what.reason:
        yield f"      because {_first(what.reason)}"


def _cleared(what: outer_pb2.HistoryCleared) -> Iterator[str]:
    yield f"  2 restart control: the proposer's history begins with trial {what.visible_from_trial}"


def _procedure_judged(what: outer_pb2.ProcedureJudged) -> Iterator[str]:
    said = what.report.text.partition("\n")[0] if what.source else "no change"
    yield f"  research procedure, attempt {what.attempt}: {said}. {_first(what.reason)} [{_spent(what.turn)}]"


def _procedure_changed(what: outer_pb2.ProcedureChanged) -> Iterator[str]:
    state = wording.member(outer_pb2.ProcedureState.Name(what.state), "PROCEDURE_STATE_")
    yield f"  research procedure changed, {what.procedure[:12]} is now {state}: {_first(what.reason)}"


def _round(what: outer_pb2.RoundFinished) -> Iterator[str]:
    name = wording.member(outer_pb2.ResearchRound.Name(what.turn.round), "RESEARCH_ROUND_")
    yield f"  2 {name}: {_first(what.summary)} [{_spent(what.turn)}]"
    try:
        answer = json.loads(what.turn.answer)
    except ValueError:
        return
    if what.turn.round == outer_pb2.RESEARCH_ROUND_EXPLORE and isinstance(answer, dict):
        if answer.get("evidence"):
            yield f"      seen: {_first(str(answer['evidence']))}"
        ideas = answer.get("candidates")
        for idea in ideas if isinstance(ideas, list) else ():
            if isinstance(idea, dict):
                yield f"      considered {idea.get('name')}: {_first(str(idea.get('idea')))}"


def _judged(what: outer_pb2.MechanismJudged) -> Iterator[str]:
    accepted = what.report.verdict == trace_pb2.GATE_VERDICT_ACCEPTED
    findings = "; ".join(finding.message for finding in what.report.findings)
    changed = sum(effect.changed for effect in what.report.replay)
    said = f"accepted, would have changed {changed} decisions in {what.report.replayed_trials} trials"
    yield f"  2 gate, attempt {what.attempt}: {said if accepted else f'rejected: {findings}'}"


def _researched(what: outer_pb2.ResearchFinished) -> Iterator[str]:
    outcome = wording.member(outer_pb2.ResearchOutcome.Name(what.outcome), "RESEARCH_OUTCOME_")
    yield f"  2 {outcome}{f' {what.mechanism}' if what.mechanism else ''}: {_first(what.message)}"


def _verdict(what: outer_pb2.VerdictReached) -> Iterator[str]:
    verdict = wording.member(outer_pb2.Verdict.Name(what.verdict), "VERDICT_")
    yield f"  verdict on {what.mechanism}: {verdict}. {what.reason}"
    effect = what.effect
    counted = (
        f"{effect.changed_decisions} decisions changed, {effect.proposed_trials} trials proposed, "
        f"{effect.kept_trials} kept trials go back to it"
    )
    yield f"      {counted}; gain a trial {what.gain_before:+.4g} before, {what.gain_during:+.4g} with it"


def _state(what: outer_pb2.CampaignStateChanged) -> Iterator[str]:
    state = wording.member(outer_pb2.CampaignState.Name(what.to_state), "CAMPAIGN_STATE_")
    yield f"  campaign {state}" + (f": {what.reason}" if what.reason else "")


def _availability(what: common_pb2.AvailabilityChanged) -> Iterator[str]:
    yield f"  {wording.availability(what)}"


def _anything(kind: str, what: Any) -> Iterator[str]:
    """A kind of event that is newer than this client's words: its plain fields."""
    fields = ", ".join(
        f"{field.name} {_first(str(value))}"
        for field, value in what.ListFields()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    )
    yield f"  {kind.replace('_', ' ')}" + (f": {fields}" if fields else "")


def _spent(turn: outer_pb2.ResearchTurn) -> str:
    seconds = turn.latency.seconds + turn.latency.nanos / 1e9
    tokens = turn.usage.prompt_tokens + turn.usage.completion_tokens
    return f"{turn.usage.calls} calls, {tokens} tokens, {seconds:.1f} s"


def _first(text: str, most: int = 300) -> str:
    """A text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


_TELL: dict[str, Callable[[Any], Iterator[str]]] = {
    "campaign_created": _created,
    "campaign_state_changed": _state,
    "cycle_started": _cycle,
    "cycle_finished": _cycle_finished,
    "analysis_finished": _analysis,
    "research_started": _research,
    "round_finished": _round,
    "mechanism_judged": _judged,
    "research_finished": _researched,
    "verdict_reached": _verdict,
    "configuration_measured": _measured,
    "library_entry_chosen": _chosen,
    "history_cleared": _cleared,
    "procedure_judged": _procedure_judged,
    "procedure_changed": _procedure_changed,
    "availability_changed": _availability,
}
