"""A campaign as a conversation: what the outer loop saw, said, tried, and what came of it, in order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bilevel.v1 import outer_pb2

from clients import wording
from clients.campaign_history import CampaignHistory
from clients.history import Spending

SPOKEN = {
    "cycle_started", "cycle_finished", "analysis_finished", "research_started", "library_entry_chosen",
    "round_finished", "mechanism_judged", "research_finished", "verdict_reached", "history_cleared",
    "procedure_judged", "procedure_changed", "availability_changed", "campaign_state_changed",
}  # fmt: skip
"""Kinds of events that are part of the conversation."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was said or happened."""

    kind: str
    """Kind of the event."""
    what: Any
    """The event's own message."""
    time: float
    """Unix time, in seconds."""
    session: str = ""
    """Resource name of the research session that it belongs to; empty outside of one."""


@dataclass(slots=True)
class CampaignView(CampaignHistory):
    """Fold of one campaign's events that keeps their order."""

    entries: list[Entry] = field(default_factory=list)
    by_round: dict[str, Spending] = field(default_factory=dict)
    """What each kind of call used: analysis, explore, critique and so on."""
    by_session: dict[str, Spending] = field(default_factory=dict)
    """What each research session used, by its resource name."""

    def apply(self, event: outer_pb2.CampaignEvent) -> None:
        # Not super(): a dataclass with slots is a new class, which the bare form does not know.
        CampaignHistory.apply(self, event)
        kind = event.WhichOneof("event")
        if kind is None:
            return
        what = getattr(event, kind)
        if kind in SPOKEN:
            self.entries.append(Entry(kind, what, event.time.ToNanoseconds() / 1e9, getattr(what, "session", "")))
        if kind in ("analysis_finished", "round_finished", "procedure_judged"):
            name = "analysis" if kind == "analysis_finished" else round_name(what.turn)
            self.by_round.setdefault(name, Spending()).add(what.turn)
            if kind == "round_finished":
                self.by_session.setdefault(what.session, Spending()).add(what.turn)

    @property
    def installed(self) -> int:
        """Mechanisms that research installed."""
        return sum(s.finished is not None and bool(s.finished.mechanism) for s in self.research)


def round_name(turn: outer_pb2.ResearchTurn) -> str:
    """The round of a turn in one word."""
    return wording.member(outer_pb2.ResearchRound.Name(turn.round), "RESEARCH_ROUND_")


@dataclass(frozen=True, slots=True)
class Passage:
    """A named part of a structured answer: text, a list of texts, or source."""

    name: str
    lines: tuple[str, ...]
    source: bool = False
    """Whether it is Python."""


def passages(answer: str) -> list[Passage]:
    """A model's JSON answer as named passages; the answer whole where it is no JSON object."""
    try:
        parsed = json.loads(answer)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        return [Passage("answer", (answer,))] if answer else []
    found = []
    for name, value in parsed.items():
        lines = tuple(_lines(value))
        if lines:
            is_source = name == "source" and isinstance(value, str)
            found.append(Passage(name.replace("_", " "), (value,) if is_source else lines, is_source))
    return found


def _lines(value: Any) -> Iterator[str]:
    """A JSON value in lines of text."""
    if isinstance(value, dict):
        yield from (f"{name}: {_inline(inner)}" for name, inner in value.items() if inner not in (None, "", [], {}))
    elif isinstance(value, list):
        yield from (_inline(inner) for inner in value)
    elif value not in (None, ""):
        yield str(value)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        name = value.get("name")
        rest = "; ".join(f"{key}: {_inline(inner)}" for key, inner in value.items() if key != "name" or not name)
        return f"{name} \N{EN DASH} {rest}" if name else rest
    if isinstance(value, list):
        return ", ".join(_inline(inner) for inner in value)
    return str(value)
