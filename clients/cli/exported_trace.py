"""A run as ``bilevel report`` exported it, read back as what the gate replays: space, objective, decided trials.

The file may come from anywhere: it is read up to a size, as JSON of the protocol's messages, and every value is checked
like one of a request.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilevel.v1 import trace_pb2
from google.protobuf.json_format import ParseDict, ParseError

from clients.history import RunHistory
from clients.report.export import FORMAT
from mechanisms.interface import Origin, TrialRecord
from service_kit.errors import InvalidArgument, InvalidConfiguration
from service_kit.given_files import read_given
from service_kit.parameters import Objective, ParameterSpace
from service_kit.translate import configuration_from_proto, objective_from_proto, outcome_from_proto, space_from_proto

MAX_BYTES = 256 * 1024 * 1024
"""A trace of some thousand trials with every prompt stays far below."""
_OPTION = "--trace"
_HINT = "`bilevel report RUN --out FOLDER` writes run.json."


@dataclass(frozen=True, slots=True)
class ExportedTrace:
    """What a gate needs of a run."""

    space: ParameterSpace
    objective: Objective
    history: tuple[TrialRecord, ...]
    """Every decided trial in the order of the decisions, the baseline first."""
    seed: int


def read_trace(file: Path) -> ExportedTrace:
    """The run in ``file``. Raises :class:`InvalidArgument` that says what is wrong with it."""
    document = _document(file)
    events = [_event(data, place) for place, data in enumerate(document)]
    try:
        return _run(events)
    except InvalidArgument as error:
        raise _wrong(f"holds a run that does not fit together: {error.message}") from None
    except (InvalidConfiguration, ValueError) as error:
        raise _wrong(f"holds a run that does not fit together: {str(error)[:300]}") from None


def _document(file: Path) -> list[Any]:
    content = read_given(file, _OPTION, MAX_BYTES, hint=_HINT)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"must name a run.json; {file} is not JSON: {str(error)[:200]}") from None
    found = document.get("format") if type(document) is dict else None
    if found != FORMAT:
        raise _wrong(f"must name a run.json in the format {FORMAT}; the format of {file} is {str(found)[:80]!r}")
    events = document.get("events")
    if type(events) is not list or not events:
        raise _wrong(f"must name a run.json with the events of a run; {file} has none")
    return events


def _event(data: Any, place: int) -> trace_pb2.TraceEvent:
    try:
        # A newer service may know kinds of events and fields that this client does not; they are no part of a replay.
        return ParseDict(data, trace_pb2.TraceEvent(), ignore_unknown_fields=True)
    except (ParseError, AttributeError, TypeError, ValueError) as error:
        raise _wrong(f"holds events[{place}], which is no event of a trace: {str(error)[:300]}") from None


def _run(events: Iterable[trace_pb2.TraceEvent]) -> ExportedTrace:
    decisions: list[int] = []
    history = RunHistory()
    for event in events:
        history.apply(event)
        if event.WhichOneof("event") == "trial_decided":
            decisions.append(event.trial_decided.number)
    if not history.task.HasField("space"):
        raise _wrong("must begin with the event run_created, which describes the task")
    space = space_from_proto(history.task.space)
    missing = [number for number in decisions if number not in history.trials]
    if missing or len(set(decisions)) < len(decisions):
        raise _wrong("holds decisions about trials that were never proposed, or two about one")
    trials = tuple(_record(history.trials[number], space) for number in decisions)
    if trials and not trials[0].kept:
        trials = ()  # a run without a measured baseline has nothing to replay
    return ExportedTrace(space, objective_from_proto(history.task.objective), trials, history.spec.seed)


def _record(trial: trace_pb2.Trial, space: ParameterSpace) -> TrialRecord:
    numbers = (trial.metric, trial.incumbent_metric, trial.budget_fraction, *trial.side_metrics.values())
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"trial {trial.number} has a number that is not finite")
    origin = trace_pb2.TrialOrigin.Name(trial.origin).removeprefix("TRIAL_ORIGIN_").lower()
    return TrialRecord(
        number=trial.number,
        configuration=space.validate(configuration_from_proto(trial.configuration)),
        changes=configuration_from_proto(trial.changes),
        hypothesis=trial.hypothesis,
        origin=Origin(origin),
        proposer=trial.proposer,
        outcome=outcome_from_proto(trial.outcome),
        metric=trial.metric if trial.HasField("metric") else None,
        kept=trial.state == trace_pb2.TRIAL_STATE_KEPT,
        incumbent_metric=trial.incumbent_metric if trial.HasField("incumbent_metric") else None,
        budget_fraction=trial.budget_fraction or 1.0,
        side_metrics=dict(trial.side_metrics),
        message=trial.message,
    )


def _wrong(description: str) -> InvalidArgument:
    return InvalidArgument.of(_OPTION, description, hint=_HINT)
