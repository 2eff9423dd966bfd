"""A run in MLflow: one parent run with the best-so-far curve, and one nested run for each trial.

See https://mlflow.org/docs/latest/ml/tracking/. It needs the extra ``mlflow`` (mlflow-skinny), and a database or a
server as tracking store: MLflow keeps its folder store in maintenance only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bilevel.v1 import trace_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from clients import wording
from service_kit.extras import optional
from service_kit.parameters import value_to_json
from service_kit.translate import configuration_from_proto

if TYPE_CHECKING:
    from clients.report.record import RunRecord

_PARENT = "mlflow.parentRunId"
_LONGEST_VALUE = 6_000
"""Of a parameter, in characters: MLflow's own limit."""
_UNFIT = re.compile(r"[^\w\-. /:]")


def log_to_mlflow(record: RunRecord, *, tracking_uri: str | None = None, experiment: str = "bilevel") -> str:
    """Log the run and its trials; returns the id of the parent run.

    Args:
        record: The run.
        tracking_uri: For example ``sqlite:///mlflow.db``; by default what MLflow itself is set to.
        experiment: Created where it does not exist.

    Logging a run again makes another parent run. Raises :class:`ServiceError` where MLflow is not installed, and what
    MLflow raises for a store that it cannot use.
    """
    tracking = optional("mlflow.tracking", "mlflow", "to log a run")
    entities = optional("mlflow.entities", "mlflow", "to log a run")
    client = tracking.MlflowClient(tracking_uri)
    known = client.get_experiment_by_name(experiment)
    experiment_id = known.experiment_id if known is not None else client.create_experiment(experiment)
    history, summary = record.history, record.summary()
    trials = [history.trials[number] for number in sorted(history.trials)]
    parent = client.create_run(
        experiment_id,
        start_time=_milliseconds(trials[0].create_time if trials else Timestamp()),
        run_name=record.title,
        tags=_texts(
            {
                "bilevel.run": history.name,
                "bilevel.task": history.task.name,
                "bilevel.levels": summary.levels,
                "bilevel.state": summary.state,
                "bilevel.answered_by": summary.answered_by,
                "bilevel.scripted": str(summary.scripted).lower(),
            }
        ),
    ).info.run_id
    spec = {"task": history.spec.task, "max_trials": history.spec.max_trials, "seed": history.spec.seed}
    client.log_batch(parent, params=[entities.Param(name, str(value)) for name, value in spec.items()])
    client.log_batch(parent, metrics=[entities.Metric(*point) for point in _curve(record, trials)])
    for trial in trials:
        _log_trial(client, entities, experiment_id, parent, trial, history.task.objective.metric)
    last = max((_milliseconds(trial.decide_time) for trial in trials), default=0)
    client.set_terminated(parent, status=_STATUS.get(summary.state, "RUNNING"), end_time=last or None)
    return str(parent)


_STATUS = {"finished": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


def _curve(record: RunRecord, trials: list[trace_pb2.Trial]) -> Iterator[tuple[str, float, int, int]]:
    """Name, value, time and step of the parent run's metrics."""
    history, best = record.history, None
    for trial in trials:
        if trial.HasField("metric") and trial.budget_fraction in (0.0, 1.0):
            if best is None or (history.gain(best, trial.metric) or 0.0) > 0.0:
                best = trial.metric
            yield f"best_{history.task.objective.metric}", best, _milliseconds(trial.decide_time), trial.number
    if (confirmation := history.confirmation) is not None:
        yield "confirmed_gain", confirmation.mean_gain, _milliseconds(trials[-1].decide_time), trials[-1].number


def _log_trial(
    client: Any, entities: Any, experiment_id: str, parent: str, trial: trace_pb2.Trial, metric: str
) -> None:
    started = trial.start_time if trial.start_time.seconds else trial.create_time
    tags = {
        _PARENT: parent,
        "bilevel.trial": trial.name,
        "bilevel.state": wording.status(trial),
        "bilevel.origin": wording.origin(trial),
        "bilevel.hypothesis": trial.hypothesis,
        "bilevel.message": trial.message,
    }
    nested = client.create_run(
        experiment_id, start_time=_milliseconds(started), run_name=f"trial {trial.number}", tags=_texts(tags)
    ).info.run_id
    configuration = configuration_from_proto(trial.configuration)
    params = [entities.Param(name, str(value_to_json(value))[:_LONGEST_VALUE]) for name, value in configuration.items()]
    numbers = {**dict(trial.side_metrics), **({metric: trial.metric} if trial.HasField("metric") else {})}
    at = _milliseconds(trial.decide_time)
    metrics = [entities.Metric(_UNFIT.sub("_", name), number, at, trial.number) for name, number in numbers.items()]
    client.log_batch(nested, metrics=metrics, params=params)
    ended = trial.state in (trace_pb2.TRIAL_STATE_KEPT, trace_pb2.TRIAL_STATE_DISCARDED)
    client.set_terminated(nested, status="FINISHED" if ended and trial.HasField("metric") else "FAILED", end_time=at)


def _texts(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: text[:_LONGEST_VALUE] for name, text in tags.items() if text}


def _milliseconds(moment: Timestamp) -> int:
    return moment.ToMilliseconds()
