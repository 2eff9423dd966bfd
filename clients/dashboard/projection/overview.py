"""Runs and campaigns as the services list them: one row a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bilevel.v1 import common_pb2, outer_pb2, trace_pb2

from clients import wording
from clients.history import TERMINAL, short
from service_kit.errors import ServiceError


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of the overview."""

    id: str
    """Last segment of its resource name."""
    title: str
    task: str
    state: str
    """In words; "at a checkpoint" and such are not told apart here."""
    reason: str
    """Why it is in that state."""
    over: bool
    decided: int
    trials: int
    best: float | None
    gain: float | None
    """Best against baseline, positive is better."""
    metric: str
    unit: str
    confirmed: str
    """The confirmed gain with its interval, or a dash."""
    created: float
    """Unix time, in seconds."""
    model: str
    scripted: bool
    campaign: str
    """What the outer loop does, in words; empty without one."""
    campaign_id: str

    def mentions(self, text: str) -> bool:
        """Whether every word of ``text`` occurs in what the row says."""
        said = " ".join((self.id, self.title, self.task, self.state, self.model, self.campaign)).lower()
        return all(word in said for word in text.lower().split())


@dataclass(slots=True)
class Overview:
    """What the lists said last."""

    rows: list[RunRow] = field(default_factory=list)
    read: bool = False
    """Whether the lists were read at least once."""
    outer_problem: ServiceError | None = None
    """Why the outer service did not list its campaigns; the runs are shown all the same."""

    def update(
        self,
        runs: Sequence[trace_pb2.Run],
        campaigns: Sequence[outer_pb2.Campaign],
        outer_problem: ServiceError | None,
    ) -> bool:
        """Take the lists, newest first; says whether anything is different."""
        newest: dict[str, outer_pb2.Campaign] = {}
        for campaign in campaigns:
            newest.setdefault(campaign.run, campaign)
        rows = [_row(run, newest.get(run.name)) for run in runs]
        changed = not self.read or rows != self.rows or str(outer_problem) != str(self.outer_problem)
        self.rows, self.read, self.outer_problem = rows, True, outer_problem
        return changed

    def row(self, run_id: str) -> RunRow | None:
        """The row of a run by its id."""
        return next((row for row in self.rows if row.id == run_id), None)


def _row(run: trace_pb2.Run, campaign: outer_pb2.Campaign | None) -> RunRow:
    best = run.best_metric if run.HasField("best_metric") else None
    baseline = run.baseline_metric if run.HasField("baseline_metric") else None
    maximize = run.task.objective.direction == common_pb2.DIRECTION_MAXIMIZE
    gain = None if best is None or baseline is None else best - baseline if maximize else baseline - best
    return RunRow(
        id=short(run.name),
        title=run.spec.display_name or short(run.name),
        task=run.task.name or run.spec.task,
        state=wording.run_state(run.state),
        reason=run.state_reason,
        over=run.state in TERMINAL,
        decided=run.decided_trials,
        trials=run.spec.max_trials,
        best=best,
        gain=gain,
        metric=run.task.objective.metric,
        unit=run.task.objective.unit,
        confirmed=wording.interval(run.confirmation if run.HasField("confirmation") else None),
        created=run.create_time.ToNanoseconds() / 1e9,
        model=run.model,
        scripted=run.scripted,
        campaign=_campaign(campaign),
        campaign_id=short(campaign.name) if campaign is not None else "",
    )


def _campaign(campaign: outer_pb2.Campaign | None) -> str:
    if campaign is None:
        return ""
    state = wording.member(outer_pb2.CampaignState.Name(campaign.state), "CAMPAIGN_STATE_")
    return f"{state}, {wording.count(campaign.installed_mechanisms, 'mechanism')}"
