"""What is said in a campaign, drawn: each call of the model with both sides of the dialogue, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bilevel.v1 import common_pb2, outer_pb2
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from clients import wording
from clients.dashboard.elements import box, facts, link, notice, tag, text
from clients.dashboard.folding import fold
from clients.dashboard.panels.code import code, plain
from clients.dashboard.panels.gate_report import finding_lines, gate_report
from clients.dashboard.projection.research import Entry, passages, round_name
from clients.history import Spending, short

LEVELS = {outer_pb2.LEVEL_CONFIGURATION: "1.5", outer_pb2.LEVEL_MECHANISM: "2"}
_ROUNDS = {
    "explore": "Explore: what holds the search back?",
    "critique": "Critique: which idea, or none?",
    "specify": "Specify: what exactly does it do?",
    "generate": "Generate: the source",
    "repair": "Repair: after the gate's report",
    "procedure": "Procedure: should the research itself change?",
}


def offers(what: outer_pb2.ResearchStarted) -> None:
    """What a session begins with."""
    if what.replaces:
        text("p", f"It is to replace {', '.join(what.replaces)}.", "quiet")
    if what.offered:
        tried = sum(offer.judged > 0 for offer in what.offered)

        def listed() -> None:
            with box("ul", "findings"):
                for offer in what.offered:
                    with box("li"):
                        text("span", f"{offer.choice}: {offer.summary}")
                        text("span", offer.record, "sub")

        fold(
            f"The library offers {wording.count(len(what.offered), 'mechanism')}", listed, note=f"{tried} tried before"
        )


def say(entry: Entry, run_id: str) -> None:
    """Draw one entry."""
    draw = _DRAW.get(entry.kind)
    if draw is not None:
        draw(entry.what, entry.time, run_id)


def _turn(title: str, turn: outer_pb2.ResearchTurn, when: float) -> Element:
    """The frame of one call of the model: title, what it used, and both sides of the dialogue, folded."""
    with box("article", "turn"):
        with box("div", "turn-head"):
            text("h3", title)
            if turn.scripted:
                tag("scripted", "warning")
            text("span", f"{_tokens(turn)} · {wording.duration(wording.seconds(turn.latency))}", "sub number")
            _clock(when)
        if turn.error:
            notice("No answer", turn.error, kind="error")
        content = box("div", "turn-body")
        with box("div", "both-sides"):
            size = sum(len(message.content) for message in turn.prompt)
            fold("What was asked", lambda: _prompt(turn), note=f"{size:,} characters")
            fold("The answer as it came", lambda: _answer(turn), note=turn.model)
    return content


def _prompt(turn: outer_pb2.ResearchTurn) -> None:
    for message in turn.prompt:
        text("h3", message.role)
        plain(message.content, f"Message of the {message.role}")


def _answer(turn: outer_pb2.ResearchTurn) -> None:
    plain(turn.answer, "Answer")


def _analysis(what: outer_pb2.AnalysisFinished, when: float, run_id: str) -> None:
    with _turn("Level 1.5: how should the search be set up?", what.turn, when):
        if what.observation:
            text("p", what.observation)
        changed = [(f"froze {entry.parameter}", entry.reason) for entry in what.freeze]
        changed += [(f"unfroze {entry.parameter}", entry.reason) for entry in what.unfreeze]
        changed += [
            (name, value) for name, value in (("strategy", what.strategy), ("guidance", what.guidance)) if value
        ]
        changed += [("guard rails", sentence) for sentence in what.guarded]
        if changed:
            facts(changed, "stacked")
        if not what.applied and not what.turn.error:
            text("p", "It changed nothing.", "quiet")


def _round(what: outer_pb2.RoundFinished, when: float, run_id: str) -> None:
    name = round_name(what.turn)
    with _turn(_ROUNDS.get(name, name), what.turn, when):
        if what.summary:
            text("p", what.summary, "said")
        for passage in passages(what.turn.answer):
            if passage.source:
                code(passage.lines[0], label="Generated source")
                continue
            with box("div", "passage"):
                text("h3", passage.name)
                if len(passage.lines) == 1:
                    text("p", passage.lines[0])
                else:
                    with box("ul"):
                        for line in passage.lines:
                            text("li", line)


def _judged(what: outer_pb2.MechanismJudged, when: float, run_id: str) -> None:
    with box("article", "turn gate"):
        with box("div", "turn-head"):
            text("h3", f"The gate, attempt {what.attempt}")
            _clock(when)
        gate_report(what.report)
        fold("The judged source", lambda: code(what.source, finding_lines(what.report)))


def _chosen(what: outer_pb2.LibraryEntryChosen, when: float, run_id: str) -> None:
    with _event("From the library", when):
        text("p", f"It tries {what.offer.choice} again: {what.offer.summary}")
        facts([("So far", what.offer.record), ("Why", what.reason)], "stacked")


def _finished(what: outer_pb2.ResearchFinished, when: float, run_id: str) -> None:
    with _event(f"The session ended: {outcome(what)}", when):
        if what.message:
            text("p", what.message)
        with box("div", "line-up"):
            if what.outcome == outer_pb2.RESEARCH_OUTCOME_INSTALLED:
                link(f"See what {what.mechanism} does", f"/runs/{run_id}/mechanisms/{what.mechanism}")
            if what.derived_from:
                link("What it was derived from", f"/library/{short(what.derived_from)}")


def _verdict(what: outer_pb2.VerdictReached, when: float, run_id: str) -> None:
    verdict = wording.member(outer_pb2.Verdict.Name(what.verdict), "VERDICT_")
    with _event(f"Verdict on {what.mechanism}: {verdict}", when):
        text("p", what.reason)
        link(f"See what {what.mechanism} does", f"/runs/{run_id}/mechanisms/{what.mechanism}")


def _cycle(what: outer_pb2.CycleStarted, when: float, run_id: str) -> None:
    levels = " and ".join(LEVELS.get(level, str(level)) for level in what.levels)
    with box("div", "cycle"):
        text("h2", f"Cycle {what.cycle}")
        text("span", f"after {wording.count(what.decided_trials, 'trial')}, level {levels}", "sub")
        _clock(when)


def _cycle_finished(what: outer_pb2.CycleFinished, when: float, run_id: str) -> None:
    if what.error:
        notice(f"Cycle {what.cycle} failed", what.error, kind="error")


def _state(what: outer_pb2.CampaignStateChanged, when: float, run_id: str) -> None:
    with _event(f"Campaign {wording.member(outer_pb2.CampaignState.Name(what.to_state), 'CAMPAIGN_STATE_')}", when):
        if what.reason:
            text("p", what.reason)


def _cleared(what: outer_pb2.HistoryCleared, when: float, run_id: str) -> None:
    with _event("Restart control", when):
        text("p", f"What the proposer sees begins with trial {what.visible_from_trial}.")


def _procedure(what: outer_pb2.ProcedureJudged, when: float, run_id: str) -> None:
    with _turn(_ROUNDS["procedure"], what.turn, when):
        text("p", what.reason)
        if what.source:
            gate_report(what.report)
            fold("The proposed procedure", lambda: code(what.source, finding_lines(what.report)))


def _procedure_changed(what: outer_pb2.ProcedureChanged, when: float, run_id: str) -> None:
    state = wording.member(outer_pb2.ProcedureState.Name(what.state), "PROCEDURE_STATE_")
    with _event(f"Research procedure {what.procedure[:12]} is now {state}", when):
        text("p", what.reason)


def _availability(what: common_pb2.AvailabilityChanged, when: float, run_id: str) -> None:
    with _event("Availability", when):
        text("p", wording.availability(what))


def _event(title: str, when: float) -> Element:
    with box("article", "turn event") as element, box("div", "turn-head"):
        text("h3", title)
        _clock(when)
    return element


def _clock(when: float) -> TextElement:
    element = text("time", time.strftime("%H:%M:%S", time.gmtime(when)), "sub number clock")
    element.props["title"] = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(when))
    return element


def outcome(what: outer_pb2.ResearchFinished) -> str:
    """How a session ended, in a few words."""
    word = wording.member(outer_pb2.ResearchOutcome.Name(what.outcome), "RESEARCH_OUTCOME_")
    return f"{word} {what.mechanism}" if what.mechanism else word


def _tokens(turn: outer_pb2.ResearchTurn) -> str:
    usage = turn.usage
    cost = wording.cost(usage.cost_usd if usage.HasField("cost_usd") else None, scripted=turn.scripted)
    calls = f", {usage.calls} calls" if usage.calls > 1 else ""
    return f"{usage.prompt_tokens + usage.completion_tokens:,} tokens{calls}, cost {cost}"


def used(spending: Spending) -> str:
    """What calls used, in a few words."""
    tokens = spending.prompt_tokens + spending.completion_tokens
    cost = wording.cost(spending.cost_usd, scripted=bool(spending.scripted_calls))
    return f"{wording.count(spending.calls, 'call')}, {tokens:,} tokens, cost {cost}"


_DRAW: dict[str, Callable[[Any, float, str], None]] = {
    "cycle_started": _cycle,
    "cycle_finished": _cycle_finished,
    "analysis_finished": _analysis,
    "library_entry_chosen": _chosen,
    "round_finished": _round,
    "mechanism_judged": _judged,
    "research_finished": _finished,
    "verdict_reached": _verdict,
    "history_cleared": _cleared,
    "procedure_judged": _procedure,
    "procedure_changed": _procedure_changed,
    "availability_changed": _availability,
    "campaign_state_changed": _state,
}
