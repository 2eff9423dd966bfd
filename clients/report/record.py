"""Everything that a report says about one run, read through RPC only, and its summary in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bilevel.v1 import common_pb2, outer_pb2, trace_pb2

from clients import wording
from clients.campaign_history import CampaignHistory
from clients.history import RunHistory, Spending
from clients.inner import InnerClient
from clients.outer import OuterClient
from clients.waiting import Waiting

if TYPE_CHECKING:
    import optuna
    import pandas

_LEVEL_WORDS = {outer_pb2.LEVEL_CONFIGURATION: "1.5", outer_pb2.LEVEL_MECHANISM: "2"}


@dataclass(slots=True)
class RunRecord:
    """One run: its trace, and its campaign's events where one supervised it."""

    events: list[trace_pb2.TraceEvent]
    campaign_events: list[outer_pb2.CampaignEvent] = field(default_factory=list)
    endpoint: str = ""
    """Address of the model endpoint, where the writer of the report knows it."""
    history: RunHistory = field(init=False)
    campaign: CampaignHistory | None = field(init=False)

    def __post_init__(self) -> None:
        self.history = RunHistory.of(self.events)
        self.campaign = CampaignHistory.of(self.campaign_events) if self.campaign_events else None

    @property
    def name(self) -> str:
        """The run's id."""
        return self.history.name.rpartition("/")[2]

    @property
    def title(self) -> str:
        """What people call it."""
        return self.history.spec.display_name or self.name

    @property
    def levels(self) -> str:
        """The levels that searched: "1", "1 + 1.5 + 2"."""
        above = [_LEVEL_WORDS[level] for level in self.campaign.policy.levels] if self.campaign is not None else []
        return " + ".join(["1", *sorted(above)])

    @property
    def spending(self) -> Spending:
        """Of both loops together."""
        return self.history.spending + (self.campaign.spending if self.campaign is not None else Spending())

    @property
    def scripted(self) -> bool:
        """Whether the scripted researcher answered at least once, by the events' own flags."""
        return self.spending.scripted_calls > 0

    @property
    def answered_by(self) -> str:
        """Which models answered; the scripted researcher is called what it is."""
        names = answered_by(self.spending)
        return f"{names} at {self.endpoint}" if self.endpoint and self.spending.models and not self.scripted else names

    def trials_dataframe(self) -> pandas.DataFrame:
        """One row a trial; see :func:`clients.dataframe.trials_dataframe`. Needs the extra ``pandas``."""
        from clients.dataframe import trials_dataframe

        return trials_dataframe(self.history)

    def to_optuna(self, *, storage: Any = None, study_name: str | None = None) -> optuna.Study:
        """The run as an Optuna study; see :func:`clients.optuna_study.to_optuna` for ``storage`` and ``study_name``."""
        from clients.optuna_study import to_optuna

        return to_optuna(self, storage=storage, study_name=study_name)

    def log_to_mlflow(self, *, tracking_uri: str | None = None, experiment: str = "bilevel") -> str:
        """Log the run; see :func:`clients.mlflow_log.log_to_mlflow` for ``tracking_uri`` and ``experiment``."""
        from clients.mlflow_log import log_to_mlflow

        return log_to_mlflow(self, tracking_uri=tracking_uri, experiment=experiment)

    def _repr_html_(self) -> str:
        from clients.notebook import run_html

        return run_html(self)

    def summary(self) -> Summary:
        """The run in numbers."""
        history, spending = self.history, self.spending
        generated = [m for m in history.mechanisms.values() if m.generated]
        confirmation = history.confirmation
        bounded = confirmation is not None and confirmation.HasField("gain_low")
        baseline = trace_pb2.TRIAL_ORIGIN_BASELINE
        decided = [t for t in history.trials.values() if t.origin != baseline and t.state in _DECIDED]
        waiting = Waiting.of(self.events)
        return Summary(
            run=history.name,
            title=self.title,
            task=history.spec.task,
            levels=self.levels,
            state=wording.run_state(history.state),
            metric=history.task.objective.metric,
            unit=history.task.objective.unit,
            maximize=history.maximize,
            seed=history.spec.seed,
            baseline=history.baseline_metric,
            best=history.best_metric,
            best_trial=history.best,
            search_gain=history.search_gain,
            confirmed_gain=confirmation.mean_gain if confirmation is not None else None,
            confirmed_low=confirmation.gain_low if confirmation is not None and bounded else None,
            confirmed_high=confirmation.gain_high if confirmation is not None and bounded else None,
            confirmed_split=_split(confirmation),
            confirmation_seeds=len(confirmation.seeds) if confirmation is not None else 0,
            trials=history.decided,
            kept=sum(1 for trial in decided if trial.state == trace_pb2.TRIAL_STATE_KEPT),
            failed=sum(1 for trial in decided if trial.outcome not in _MEASURED),
            stopped_early=history.stopping.stopped,
            audited_stops=len(history.stopping.measured),
            wrong_stops=len(history.stopping.errors),
            noise=history.noise_floor.standard_deviation if history.noise_floor is not None else None,
            gains_checked=len(history.gain_checks),
            gains_held=sum(1 for check in history.gain_checks if check.held),
            refused=sum(1 for t in history.trials.values() if t.state == trace_pb2.TRIAL_STATE_REJECTED),
            mechanisms_installed=len(generated),
            mechanisms_effective=sum(1 for mechanism in generated if mechanism.changes),
            changed_decisions=sum(len(mechanism.changes) for mechanism in generated),
            configuration_updates=len(history.updates),
            model_calls=spending.calls,
            prompt_tokens=spending.prompt_tokens,
            completion_tokens=spending.completion_tokens,
            cost_usd=spending.cost_usd,
            answered_by=self.answered_by,
            scripted=self.scripted,
            wall_seconds=waiting.wall,
            waiting_share=waiting.share,
            paused_share=waiting.paused / waiting.wall if waiting.wall else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in numbers. Gains are positive when better, in the objective's unit."""

    run: str
    title: str
    task: str
    levels: str
    state: str
    metric: str
    unit: str
    maximize: bool
    seed: int
    baseline: float | None
    best: float | None
    best_trial: int | None
    search_gain: float | None
    """What the search itself reports: on the seed and the data that it searched on."""
    confirmed_gain: float | None
    """Mean paired gain on fresh seeds; None where nothing was re-measured."""
    confirmed_low: float | None
    confirmed_high: float | None
    confirmed_split: str
    confirmation_seeds: int
    trials: int
    """Kept or discarded, without the baseline."""
    kept: int
    failed: int
    """Decided trials without a metric that nobody stopped."""
    stopped_early: int
    audited_stops: int
    """Trials that would have been stopped, were drawn to run to the end, and have a metric."""
    wrong_stops: int
    """Of those, the ones that were better than the incumbent after all: the rule's errors."""
    noise: float | None
    """Standard deviation of the baseline over seeds; None where it was not measured."""
    gains_checked: int
    """Small gains that were measured on a second seed."""
    gains_held: int
    refused: int
    """Trials refused before they ran; they cost no budget."""
    mechanisms_installed: int
    """Generated ones; standard mechanisms are not counted."""
    mechanisms_effective: int
    """Generated mechanisms that changed at least one decision, by their own events."""
    changed_decisions: int
    configuration_updates: int
    model_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    answered_by: str
    scripted: bool
    wall_seconds: float = 0.0
    """From the run's first start to its end."""
    waiting_share: float = 0.0
    """Share of it in which no evaluation ran."""
    paused_share: float = 0.0
    """Share of it in which the run was paused and no evaluation ran: a synchronous outer loop thought."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"cost_usd": wording.dollars(self.cost_usd, scripted=self.scripted)}


def answered_by(spending: Spending) -> str:
    """The models that answered, the scripted researcher labelled as such."""
    if not spending.models:
        return "no model"
    names = ", ".join(sorted(spending.models))
    return f"{names} (scripted, no language model)" if spending.scripted_calls else names


async def collect(inner: InnerClient, outer: OuterClient | None, run: str, endpoint: str = "") -> RunRecord:
    """Read a run's whole trace so far and, where ``outer`` knows a campaign of it, that campaign's events."""
    events = [event async for event in inner.watch_trace(run, follow=False)]
    campaign = await outer.campaign_of(run) if outer is not None else None
    if outer is None or campaign is None:
        return RunRecord(events, endpoint=endpoint)
    campaign_events = [event async for event in outer.watch_campaign(campaign.name, follow=False)]
    return RunRecord(events, campaign_events, endpoint)


_MEASURED = {common_pb2.OUTCOME_UNSPECIFIED, common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_STOPPED_EARLY}
_DECIDED = {trace_pb2.TRIAL_STATE_KEPT, trace_pb2.TRIAL_STATE_DISCARDED}


def _split(confirmation: trace_pb2.Confirmation | None) -> str:
    if confirmation is None:
        return ""
    return "held-out data" if confirmation.split == common_pb2.SPLIT_HELD_OUT else "the search's data"
