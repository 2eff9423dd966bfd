"""A campaign: how it works, where it is, and what it remembers between cycles. Plain values; the fold changes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from outer_service.observed import GateReport
from service_kit.llm.failures import Message
from service_kit.llm.usage import Usage

CONFIGURATION_EVERY = 5
MECHANISM_EVERY = 10
REPAIRS = 2
MAX_FAILURES = 3
MAX_MECHANISMS = 3
MAX_CYCLE_SECONDS = 3600.0
PROCEDURE_PROBATION = 3


class Level(StrEnum):
    """The levels of search above the inner loop."""

    CONFIGURATION = "configuration"
    """Level 1.5."""
    MECHANISM = "mechanism"
    """Level 2."""


class Mode(StrEnum):
    """Whether the run waits for the outer loop."""

    SYNCHRONOUS = "synchronous"
    CONCURRENT = "concurrent"


class Control(StrEnum):
    """What takes the place of real research."""

    NONE = "none"
    NOOP = "noop"
    """A mechanism that does nothing."""
    RESTART = "restart"
    """The proposer's history is cleared, and the incumbent measured again."""


class LibraryUse(StrEnum):
    """What level 2 may do with the library."""

    NONE = "none"
    OFFERED = "offered"


class AfterFailures(StrEnum):
    """What becomes of the run when the campaign pauses after too many failures."""

    GO_ON = "go_on"
    PAUSE_RUN = "pause_run"


class CampaignState(StrEnum):
    """Where a campaign is in its life."""

    ACTIVE = "active"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether nothing can happen to the campaign any more."""
        return self in (CampaignState.FINISHED, CampaignState.CANCELLED, CampaignState.FAILED)


class Round(StrEnum):
    """The rounds of a research session."""

    EXPLORE = "explore"
    CRITIQUE = "critique"
    SPECIFY = "specify"
    GENERATE = "generate"
    REPAIR = "repair"


class ResearchOutcome(StrEnum):
    """How a research session ended."""

    INSTALLED = "installed"
    NONE_CHOSEN = "none_chosen"
    REJECTED = "rejected"
    MODEL_FAILED = "model_failed"
    STOPPED = "stopped"
    RESTARTED = "restarted"
    NOT_SUPPORTED = "not_supported"
    """The inner service does not run mechanisms."""


class Verdict(StrEnum):
    """What becomes of a mechanism after its trial period."""

    KEEP = "keep"
    RETIRE = "retire"
    REPLACE = "replace"
    """It goes, and level 2 looks for another one in its place at once."""

    @property
    def removes(self) -> bool:
        """Whether the mechanism is uninstalled."""
        return self is not Verdict.KEEP


@dataclass(frozen=True, slots=True)
class Policy:
    """How a campaign works. Fixed at creation; every default is filled in."""

    levels: tuple[Level, ...] = ()
    configuration_every: int = CONFIGURATION_EVERY
    mechanism_every: int = MECHANISM_EVERY
    mode: Mode = Mode.SYNCHRONOUS
    repairs: int = REPAIRS
    probation_trials: int = MECHANISM_EVERY
    max_tokens: int = 0
    """0 is no limit."""
    max_cost_usd: float = 0.0
    """0 is no limit."""
    max_failures: int = MAX_FAILURES
    control: Control = Control.NONE
    max_mechanisms: int = MAX_MECHANISMS
    after_failures: AfterFailures = AfterFailures.GO_ON
    library: LibraryUse = LibraryUse.OFFERED
    reexamination_trials: int = 2 * MECHANISM_EVERY
    """Trials between two examinations of a kept mechanism."""
    max_cycle_seconds: float = MAX_CYCLE_SECONDS
    """Longest time that one look may take before it fails and the run goes on."""
    recursion: bool = False
    """Whether level 2 may propose a change of the research procedure."""
    procedure_probation: int = PROCEDURE_PROBATION
    """Campaigns after which a changed procedure is judged."""

    def every(self, level: Level) -> int:
        """Decided trials between two actions of ``level``."""
        return self.configuration_every if level is Level.CONFIGURATION else self.mechanism_every

    @property
    def checkpoint(self) -> int:
        """Decided trials between two moments at which a synchronous campaign has something to do; 0 without levels."""
        return math.gcd(*(self.every(level) for level in self.levels)) if self.levels else 0

    def due(self, acted: Mapping[Level, int], decided: int) -> tuple[Level, ...]:
        """Levels that should act after ``decided`` trials when they last acted after ``acted`` of them."""
        return tuple(
            level
            for level in (Level.CONFIGURATION, Level.MECHANISM)
            if level in self.levels and decided // self.every(level) > acted.get(level, 0) // self.every(level)
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """One call of the language model, complete."""

    prompt: tuple[Message, ...]
    answer: str
    usage: Usage
    latency: float
    """Seconds from request to answer."""
    model: str
    scripted: bool
    error: str = ""
    """Why it failed; empty when it did not."""
    prompt_version: str = ""
    """Version of the prompt templates."""


@dataclass(frozen=True, slots=True)
class CompletedRound:
    """A round with its answer in the schema's own JSON, from which an interrupted session goes on."""

    round: Round
    answer: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A generated source and what the gate said."""

    source: str
    report: GateReport


@dataclass(frozen=True, slots=True)
class Offer:
    """A mechanism of the library as a session may choose it."""

    choice: str
    """What the critique says to choose it: ``library:`` or ``standard:`` and a name."""
    entry: str
    """Resource name: libraryEntries/{entry}, or standardMechanisms/{name} before it was ever accepted."""
    summary: str
    record: str
    """Its measured effects so far, in a sentence."""
    standard: bool = False
    judged: int = 0
    """Times it was tried and judged."""
    kept: int = 0
    """Those after which it stayed."""

    @property
    def title(self) -> str:
        """What people call it."""
        return self.choice.partition(":")[2]


@dataclass(frozen=True, slots=True)
class ProcedureAdvice:
    """What the research procedure decided for a session."""

    procedure: str
    """SHA-256 of its source."""
    fields: tuple[str, ...] = ()
    hypotheses: int = 0
    """0 leaves the choice to the model."""


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A research session that has not ended."""

    name: str
    """Resource name: campaigns/{campaign}/researchSessions/{session}."""
    after_trial: int
    rounds: tuple[CompletedRound, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    offered: tuple[Offer, ...] = ()
    replaces: tuple[str, ...] = ()
    """Mechanisms, by id, in whose place it looks for another one."""
    advice: ProcedureAdvice | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    """What a research procedure was or would have been asked on."""

    def offer(self, choice: str) -> Offer | None:
        """What the library offered under that name."""
        return next((offer for offer in self.offered if offer.choice == choice), None)


@dataclass(frozen=True, slots=True)
class OpenCycle:
    """A look at the trace that has not ended."""

    number: int
    decided_trials: int
    levels: tuple[Level, ...]
    done: tuple[Level, ...] = ()


@dataclass(frozen=True, slots=True)
class Installed:
    """A mechanism that this campaign installed."""

    id: str
    source_sha256: str
    session: str
    after_decided: int
    """Trials decided when it was installed, the baseline not counted."""
    control: bool = False
    verdict: Verdict | None = None
    """The newest one."""
    examinations: int = 0
    """Verdicts so far."""
    examined_after: int = 0
    """Trials decided at the newest verdict."""
    changed_before: int = 0
    """Decisions that it had changed by the newest verdict."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """The supervision of one run: the fold of its events."""

    id: str
    run: str
    """Resource name of the run."""
    task: str
    """Configured name of the run's task."""
    policy: Policy
    create_time: datetime
    update_time: datetime
    last_sequence: int
    state: CampaignState = CampaignState.ACTIVE
    state_reason: str = ""
    cycles: int = 0
    failures: int = 0
    """Failed cycles in a row."""
    acted: Mapping[Level, int] = field(default_factory=dict)
    """Trials decided when each level last acted."""
    run_sequence: int = 0
    """Number of the trace event that caused the newest cycle: watching goes on after it."""
    cycle: OpenCycle | None = None
    session: OpenSession | None = None
    sessions: int = 0
    mechanisms: tuple[Installed, ...] = ()
    replacing: tuple[str, ...] = ()
    """Mechanisms, by id, that are gone and still to be replaced."""
    procedure: str = ""
    """SHA-256 of the research procedure that it works by; empty for the default."""
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    scripted: bool = False
    owner: str = ""
    """Name of the token that created it; empty where the service knew no tokens."""

    @property
    def name(self) -> str:
        return f"campaigns/{self.id}"

    @property
    def holds_run(self) -> bool:
        """Whether it gave up and keeps its run paused until someone acts."""
        given_up = self.state is CampaignState.PAUSED and self.failures >= self.policy.max_failures
        return given_up and self.policy.after_failures is AfterFailures.PAUSE_RUN

    @property
    def budget_spent(self) -> str:
        """Which of the policy's budgets is spent, in a sentence; empty while there is some left."""
        policy, usage = self.policy, self.usage
        if policy.max_tokens and usage.total_tokens >= policy.max_tokens:
            return f"the budget of {policy.max_tokens} tokens is spent ({usage.total_tokens} used)"
        if policy.max_cost_usd and (usage.cost_usd or 0.0) >= policy.max_cost_usd:
            return f"the budget of {policy.max_cost_usd:g} US dollars is spent ({usage.cost_usd:g} used)"
        return ""
