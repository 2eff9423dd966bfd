"""What a campaign's events add up to: cycles, analyses, research sessions, verdicts, spending."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bilevel.v1 import common_pb2, outer_pb2, trace_pb2

from clients import wording
from clients.history import Spending

TERMINAL = {
    outer_pb2.CAMPAIGN_STATE_FINISHED,
    outer_pb2.CAMPAIGN_STATE_CANCELLED,
    outer_pb2.CAMPAIGN_STATE_FAILED,
}
"""Campaign states after which nothing happens any more."""


@dataclass(slots=True)
class Research:
    """One research session: its rounds, the gate's reports, and how it ended."""

    name: str
    after_trial: int
    rounds: list[outer_pb2.RoundFinished] = field(default_factory=list)
    judged: list[outer_pb2.MechanismJudged] = field(default_factory=list)
    finished: outer_pb2.ResearchFinished | None = None


@dataclass(slots=True)
class CampaignHistory:
    """A campaign as its events tell it. Feed it events in order with :meth:`apply`."""

    name: str = ""
    last_sequence: int = 0
    run: str = ""
    policy: outer_pb2.CampaignPolicy = field(default_factory=outer_pb2.CampaignPolicy)
    state: outer_pb2.CampaignState.ValueType = outer_pb2.CAMPAIGN_STATE_UNSPECIFIED
    state_reason: str = ""
    cycle: outer_pb2.CycleStarted | None = None
    """The cycle that goes on now."""
    cycles: list[outer_pb2.CycleStarted] = field(default_factory=list)
    errors: list[outer_pb2.CycleFinished] = field(default_factory=list)
    """Cycles that failed."""
    analyses: list[tuple[int, outer_pb2.AnalysisFinished]] = field(default_factory=list)
    """Level 1.5's answers, each with the number of trials decided by then."""
    research: list[Research] = field(default_factory=list)
    verdicts: list[outer_pb2.VerdictReached] = field(default_factory=list)
    spending: Spending = field(default_factory=Spending)
    activity: str = "waiting for the first checkpoint"
    """What the outer loop is doing, in a few words."""

    @classmethod
    def of(cls, events: Iterable[outer_pb2.CampaignEvent]) -> CampaignHistory:
        """The history of a whole event stream."""
        history = cls()
        for event in events:
            history.apply(event)
        return history

    def apply(self, event: outer_pb2.CampaignEvent) -> None:
        """Take the next event. Kinds that this client does not know are left alone."""
        kind = event.WhichOneof("event")
        self.name, self.last_sequence = event.campaign, event.sequence
        handler: Callable[[Any], None] | None = getattr(self, f"on_{kind}", None)
        if handler is not None and kind is not None:
            handler(getattr(event, kind))

    # One method an event kind, called on_KIND

    def on_campaign_created(self, what: outer_pb2.CampaignCreated) -> None:
        self.run, self.policy, self.state = what.run, what.policy, outer_pb2.CAMPAIGN_STATE_ACTIVE

    def on_campaign_state_changed(self, what: outer_pb2.CampaignStateChanged) -> None:
        self.state, self.state_reason = what.to_state, what.reason
        if what.to_state != outer_pb2.CAMPAIGN_STATE_ACTIVE:
            label = outer_pb2.CampaignState.Name(what.to_state).removeprefix("CAMPAIGN_STATE_").lower()
            self.activity = f"{label}: {what.reason}" if what.reason else label

    def on_cycle_started(self, what: outer_pb2.CycleStarted) -> None:
        self.cycle = what
        self.cycles.append(what)
        self.activity = f"reads the trace after {what.decided_trials} trials"

    def on_cycle_finished(self, what: outer_pb2.CycleFinished) -> None:
        self.cycle = None
        if what.error:
            self.errors.append(what)
        self.activity = f"cycle {what.cycle} failed: {what.error}" if what.error else "waits for the next checkpoint"

    def on_analysis_finished(self, what: outer_pb2.AnalysisFinished) -> None:
        self.analyses.append((self._decided(), what))
        self.spending.add(what.turn)
        self.activity = "level 1.5 " + ("changed the search configuration" if what.applied else "changed nothing")

    def on_research_started(self, what: outer_pb2.ResearchStarted) -> None:
        self.research.append(Research(what.session, what.after_trial))
        self.activity = "level 2 explores"

    def on_round_finished(self, what: outer_pb2.RoundFinished) -> None:
        if (session := self._session(what.session)) is not None:
            session.rounds.append(what)
        self.spending.add(what.turn)
        self.activity = f"level 2 {_AFTER.get(what.turn.round, 'works')}"

    def on_mechanism_judged(self, what: outer_pb2.MechanismJudged) -> None:
        if (session := self._session(what.session)) is not None:
            session.judged.append(what)
        accepted = what.report.verdict == trace_pb2.GATE_VERDICT_ACCEPTED
        self.activity = "level 2 installs a mechanism" if accepted else "level 2 repairs what the gate rejected"

    def on_research_finished(self, what: outer_pb2.ResearchFinished) -> None:
        if (session := self._session(what.session)) is not None:
            session.finished = what
        installed = what.outcome == outer_pb2.RESEARCH_OUTCOME_INSTALLED
        self.activity = f"level 2 installed {what.mechanism}" if installed else f"level 2 ended: {what.message}"

    def on_availability_changed(self, what: common_pb2.AvailabilityChanged) -> None:
        self.activity = wording.availability(what)

    def on_verdict_reached(self, what: outer_pb2.VerdictReached) -> None:
        self.verdicts.append(what)
        self.activity = f"{_VERDICTS.get(what.verdict, 'judges')} {what.mechanism}"

    def on_library_entry_chosen(self, what: outer_pb2.LibraryEntryChosen) -> None:
        self.activity = f"level 2 tries {what.offer.choice} again"

    def on_procedure_judged(self, what: outer_pb2.ProcedureJudged) -> None:
        self.spending.add(what.turn)
        self.activity = "level 2 looked at its own procedure"

    def _session(self, name: str) -> Research | None:
        return next((session for session in self.research if session.name == name), None)

    def _decided(self) -> int:
        return self.cycles[-1].decided_trials if self.cycles else 0


_VERDICTS = {
    outer_pb2.VERDICT_KEEP: "keeps",
    outer_pb2.VERDICT_RETIRE: "retires",
    outer_pb2.VERDICT_REPLACE: "replaces",
}
_AFTER = {
    outer_pb2.RESEARCH_ROUND_EXPLORE: "criticises its candidates",
    outer_pb2.RESEARCH_ROUND_CRITIQUE: "specifies the chosen mechanism",
    outer_pb2.RESEARCH_ROUND_SPECIFY: "writes the mechanism",
    outer_pb2.RESEARCH_ROUND_GENERATE: "asks the gate",
    outer_pb2.RESEARCH_ROUND_REPAIR: "asks the gate again",
}
"""What comes after each round."""
