"""A run as an Optuna study, for optuna-dashboard and Optuna's plots; a study's best trials as candidates of a run.

Export copies everything that a study can hold: see :func:`to_optuna`. Import believes nothing: a run's metrics come
from its own evaluations and from nowhere else, so a study's trials are proposed and measured again, see
:func:`warm_start` and docs/decisions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

from bilevel.v1 import common_pb2, trace_pb2

from clients import wording
from service_kit.errors import InvalidArgument
from service_kit.extras import optional
from service_kit.parameters import Kind, Parameter, ParameterSpace, Scale, Value, value_to_json
from service_kit.translate import configuration_from_proto, space_from_proto

if TYPE_CHECKING:
    import optuna

    from clients.inner import InnerClient
    from clients.report.record import RunRecord


def to_optuna(record: RunRecord, *, storage: Any = None, study_name: str | None = None) -> optuna.Study:
    """The run as a new study.

    Each trial is one of Optuna's with its parameters, times and user attributes (``bilevel:…``: hypothesis, origin,
    outcome, message, side metrics). Measured at full budget is COMPLETE; measured at less is PRUNED with its value as
    intermediate, since it must not pass for the best; what has no metric, refused ones included, is FAIL; what is still
    open is left out. Texts, lists and sources become categories, lists written as JSON.

    Args:
        record: The run.
        storage: Where Optuna keeps it, for example ``sqlite:///studies.db``; in memory by default.
        study_name: By default the run's resource name; it must be new in the storage.

    Raises :class:`ServiceError` where Optuna is not installed, and what Optuna raises for a name that exists.
    """
    library = optional("optuna", "optuna", "to export a study")
    history = record.history
    space = space_from_proto(history.task.space)
    study: optuna.Study = library.create_study(
        study_name=study_name or history.name,
        storage=storage,
        direction="maximize" if history.maximize else "minimize",
    )
    trials = [trial for _, trial in sorted(history.trials.items()) if trial.state not in _OPEN]
    distributions = distributions_of(space, trials)
    for name, fact in {
        "bilevel:run": history.name,
        "bilevel:task": history.task.name,
        "bilevel:metric": history.task.objective.metric,
        "bilevel:answered_by": record.answered_by,
        "bilevel:scripted": record.scripted,
    }.items():
        study.set_user_attr(name, fact)
    study.add_trials([_frozen(library, trial, space, distributions) for trial in trials])
    return study


def distributions_of(space: ParameterSpace, trials: Sequence[trace_pb2.Trial]) -> dict[str, Any]:
    """Optuna's distribution of each parameter, wide enough for every value that occurs in ``trials``."""
    seen: dict[str, list[Any]] = {name: [] for name in space.names}
    for trial in trials:
        for name, value in configuration_from_proto(trial.configuration).items():
            if name in seen:
                seen[name].append(value)
    return {parameter.name: _distribution(parameter, seen[parameter.name]) for parameter in space.parameters}


async def warm_start(inner: InnerClient, run: str, study: optuna.Study, count: int = 5) -> list[trace_pb2.Trial]:
    """Propose, measure and decide the baseline and then the ``count`` best completed trials of ``study`` in ``run``.

    Their values in the study are not believed: the run's task measures them. Parameters that the study does not know
    keep the incumbent's value. Start the run afterwards to search on from the best of them.

    Args:
        inner: A client of the run's service.
        run: A run in state CREATED or PAUSED that nobody drives.
        study: A single-objective study over parameters of the same names.
        count: Trials to take over; they count towards the run's ``max_trials``.

    Returns the decided trials. Raises :class:`InvalidArgument` for a study that shares no parameter with the task, and
    RemoteError where the run's state does not allow it; a trial outside the task's space is an INVALID_ARGUMENT too.
    """
    decided: list[trace_pb2.Trial] = []
    if not (await inner.get_run(run)).incumbent_trial:
        decided += [await _measured(inner, trial) for trial in await inner.propose(run)]
    names = {parameter.name for parameter in (await inner.get_run(run)).task.space.parameters}
    for trial in best_trials(study, count):
        changes = {name: _value(value) for name, value in trial.params.items() if name in names}
        if not changes:
            known = ", ".join(sorted(names))
            raise InvalidArgument.of("study", f"must have a parameter of the task's; the task has {known}")
        incumbent = configuration_from_proto(
            (await inner.get_trial((await inner.get_run(run)).incumbent_trial)).configuration
        )
        if all(incumbent.get(name) == value for name, value in changes.items()):
            continue
        why = f"warm start: trial {trial.number} of the Optuna study {study.study_name}, {trial.value:g} there"
        for proposed in await inner.propose(run, changes=changes, hypothesis=why):
            decided.append(await _measured(inner, proposed))
    return decided


def best_trials(study: optuna.Study, count: int) -> list[optuna.trial.FrozenTrial]:
    """The ``count`` best completed trials of a study with one objective, best first.

    Raises :class:`InvalidArgument` for a study with several.
    """
    if len(study.directions) != 1:
        raise InvalidArgument.of("study", f"must have one objective; it has {len(study.directions)}")
    finished = [trial for trial in study.trials if trial.state.name == "COMPLETE" and trial.value is not None]
    sign = -1.0 if study.direction.name == "MAXIMIZE" else 1.0
    return sorted(finished, key=lambda trial: sign * (trial.value or 0.0))[:count]


_OPEN = {
    trace_pb2.TRIAL_STATE_PROPOSED,
    trace_pb2.TRIAL_STATE_RUNNING,
    trace_pb2.TRIAL_STATE_EVALUATED,
}


async def _measured(inner: InnerClient, trial: trace_pb2.Trial) -> trace_pb2.Trial:
    if trial.state == trace_pb2.TRIAL_STATE_REJECTED:
        return trial
    async for _ in inner.evaluate(trial.name):
        pass
    return await inner.accept(trial.name)


def _distribution(parameter: Parameter, seen: Sequence[Any]) -> Any:
    library = optional("optuna", "optuna", "to export a study")
    kinds = library.distributions
    match parameter.kind:
        case Kind.INTEGER | Kind.REAL:
            low, high = _ends(parameter, seen)
            log = parameter.scale is not Scale.LINEAR and low > 0
            step = parameter.step if not log else None
            if parameter.kind is Kind.REAL:
                return kinds.FloatDistribution(low, high, log=log, step=step)
            return kinds.IntDistribution(int(low), int(high), log=log, step=int(step or 1))
        case Kind.BOOLEAN:
            return kinds.CategoricalDistribution((False, True))
        case Kind.CATEGORICAL:
            return kinds.CategoricalDistribution(parameter.choices)
        case _:
            values = [category(value) for value in (parameter.default, *seen)]
            return kinds.CategoricalDistribution(tuple(dict.fromkeys(values)))


def _ends(parameter: Parameter, seen: Sequence[Any]) -> tuple[float, float]:
    """The bounds; where one is missing, the values that occur."""
    known = [float(value) for value in (parameter.default, *seen)]
    low = parameter.minimum if parameter.minimum is not None else min(known)
    high = parameter.maximum if parameter.maximum is not None else max(known)
    if parameter.kind is Kind.INTEGER:
        return float(math.ceil(low)), float(math.floor(high))
    return low, high


def category(value: Value) -> str:
    """A text as it is, a list as JSON: Optuna's categories are scalars."""
    return value if isinstance(value, str) else json.dumps(value_to_json(value))


def _value(value: Any) -> Value:
    """A study's value as a parameter's; what looks like a JSON list is one."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return tuple(json.loads(value))
        except ValueError:
            return value
    checked: Value = value
    return checked


def _frozen(library: Any, trial: trace_pb2.Trial, space: ParameterSpace, distributions: Mapping[str, Any]) -> Any:
    configuration = configuration_from_proto(trial.configuration)
    params = {
        name: category(value) if space[name].kind in (Kind.TEXT, Kind.SOURCE, Kind.LIST) else value
        for name, value in configuration.items()
        if name in space
    }
    measured = trial.metric if trial.HasField("metric") else None
    full = trial.budget_fraction in (0.0, 1.0)
    states = library.trial.TrialState
    began, ended = trial.start_time, trial.decide_time
    started = began if began.seconds else trial.create_time
    return library.trial.FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=states.FAIL if measured is None else states.COMPLETE if full else states.PRUNED,
        value=measured if full else None,
        datetime_start=_local(started if started.seconds else ended),
        datetime_complete=_local(ended if ended.seconds else started),
        params=params,
        distributions={name: distributions[name] for name in params},
        user_attrs=_facts(trial),
        system_attrs={},
        intermediate_values={} if measured is None or full else {round(1000 * trial.budget_fraction): measured},
    )


def _local(moment: Any) -> Any:
    """Optuna keeps naive local times."""
    return moment.ToDatetime(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _facts(trial: trace_pb2.Trial) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "number": trial.number,
        "name": trial.name,
        "state": wording.member(trace_pb2.TrialState.Name(trial.state), "TRIAL_STATE_"),
        "outcome": wording.outcome(trial.outcome) if trial.outcome != common_pb2.OUTCOME_UNSPECIFIED else "",
        "origin": wording.origin(trial),
        "hypothesis": trial.hypothesis,
        "message": trial.message,
        "budget_fraction": trial.budget_fraction,
        "changed_by": ", ".join(trial.changed_by),
        "side_metrics": dict(trial.side_metrics),
    }
    return {f"bilevel:{name}": fact for name, fact in facts.items() if fact not in ("", {})}
