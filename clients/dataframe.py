"""A run's trials as a pandas table: one row a trial, rejected ones included."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from bilevel.v1 import trace_pb2

from clients import wording
from clients.history import RunHistory
from service_kit.extras import optional
from service_kit.translate import configuration_from_proto

if TYPE_CHECKING:
    import pandas


def trials_dataframe(history: RunHistory) -> pandas.DataFrame:
    """The trials of a run, indexed by their number.

    Columns: ``state``, ``outcome``, ``metric`` (NaN without one), ``incumbent_metric``, ``best`` (the best so far),
    ``kept``, ``budget_fraction``, ``origin``, ``proposer``, ``hypothesis``, ``message``, ``seconds``, ``started`` and
    ``decided`` (UTC), ``changed_by``; ``param.NAME`` for each parameter, ``changed.NAME`` whether the trial changed it,
    ``side.NAME`` for each side metric. Raises :class:`ServiceError` where pandas is not installed.
    """
    frames = optional("pandas", "pandas", "for tables of trials")
    trials = [history.trials[number] for number in sorted(history.trials)]
    rows, best = [], None
    for trial in trials:
        measured = trial.metric if trial.HasField("metric") else None
        if measured is not None and trial.budget_fraction == 1.0 and (best is None or _gains(history, best, measured)):
            best = measured
        rows.append(_row(trial, measured, best))
    return frames.DataFrame(rows, index=frames.Index([trial.number for trial in trials], name="trial"))


def _gains(history: RunHistory, old: float, new: float) -> bool:
    return (history.gain(old, new) or 0.0) > 0.0


def _row(trial: trace_pb2.Trial, measured: float | None, best: float | None) -> dict[str, Any]:
    configuration = configuration_from_proto(trial.configuration)
    moments = {"started": trial.start_time, "decided": trial.decide_time}
    return {
        "state": wording.member(trace_pb2.TrialState.Name(trial.state), "TRIAL_STATE_"),
        "outcome": wording.outcome(trial.outcome) if trial.outcome else None,
        "metric": float("nan") if measured is None else measured,
        "incumbent_metric": trial.incumbent_metric if trial.HasField("incumbent_metric") else float("nan"),
        "best": float("nan") if best is None else best,
        "kept": trial.state == trace_pb2.TRIAL_STATE_KEPT,
        "budget_fraction": trial.budget_fraction,
        "origin": wording.member(trace_pb2.TrialOrigin.Name(trial.origin), "TRIAL_ORIGIN_"),
        "proposer": trial.proposer,
        "hypothesis": trial.hypothesis,
        "message": trial.message,
        "seconds": wording.seconds(trial.elapsed) if trial.HasField("elapsed") else float("nan"),
        **{name: moment.ToDatetime(tzinfo=UTC) if moment.seconds else None for name, moment in moments.items()},
        "changed_by": ", ".join(trial.changed_by),
        **{f"param.{name}": value for name, value in configuration.items()},
        **{f"changed.{name}": name in trial.changes.values for name in configuration},
        **{f"side.{name}": number for name, number in sorted(trial.side_metrics.items())},
    }
