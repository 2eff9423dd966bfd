"""From the trace's types to the wire's messages.

Events, runs and their parts have the same field names here and in ``proto/``, so one walk along a message's descriptor
serves them all. What differs, resource names above all, is said one by one in :data:`_SPECIAL`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeVar, cast

from bilevel.v1 import trace_pb2
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from inner_service.lessons.lesson import Lesson
from inner_service.mechanism import GateReport, Mechanism
from inner_service.run import Confirmation, Run, SearchConfig, Trial
from inner_service.store import Entry
from inner_service.task import TaskDescription
from inner_service.task_messages import description_to_proto
from inner_service.trace import TrialProposed
from inner_service.trace_codec import kind_of
from service_kit.llm.usage import Usage
from service_kit.translate import configuration_to_proto, duration_to_proto, timestamp_to_proto, usage_to_proto
from service_kit.waits import Wait

M = TypeVar("M", bound=Message)


def run_to_proto(run: Run, wait: Wait | None = None) -> trace_pb2.Run:
    """``wait`` is how the run waits for the database here; it stands where otherwise is why the run is in its state."""
    message = _fill(trace_pb2.Run(), run, run.id)
    if wait is not None:
        message.state_reason = str(wait)
    for field, number in (("incumbent_trial", run.incumbent), ("best_trial", run.best)):
        if number is not None:
            setattr(message, field, _trial_name(run.id, number))
    message.etag = f'"{run.last_sequence}"'
    idle = run.idle_time + (datetime.now(UTC) - run.idle_since if run.idle_since is not None else timedelta())
    message.idle_time.CopyFrom(duration_to_proto(idle.total_seconds()))
    return message


def trial_to_proto(run_id: str, trial: Trial) -> trace_pb2.Trial:
    message = _fill(trace_pb2.Trial(), trial, run_id)
    message.name = _trial_name(run_id, trial.number)
    if trial.incumbent is not None:
        message.incumbent_trial = _trial_name(run_id, trial.incumbent)
    return message


def mechanism_to_proto(run_id: str, mechanism: Mechanism) -> trace_pb2.Mechanism:
    message = _fill(trace_pb2.Mechanism(), mechanism, run_id)
    message.name = f"runs/{run_id}/mechanisms/{mechanism.name}"
    return message


def report_to_proto(report: GateReport) -> trace_pb2.GateReport:
    return _fill(trace_pb2.GateReport(), report, "")


def lesson_to_proto(lesson: Lesson) -> trace_pb2.Lesson:
    return _fill(trace_pb2.Lesson(), lesson, "")


def search_config_to_proto(config: SearchConfig) -> trace_pb2.SearchConfig:
    return _fill(trace_pb2.SearchConfig(), config, "")


def entry_to_proto(entry: Entry) -> trace_pb2.TraceEvent:
    message = trace_pb2.TraceEvent(run=f"runs/{entry.run}", sequence=entry.sequence)
    message.time.CopyFrom(timestamp_to_proto(entry.time))
    kind = kind_of(entry.event)
    body = getattr(message, kind)
    body.SetInParent()  # an event without fields is an event all the same
    _fill(body, entry.event, entry.run)
    if isinstance(entry.event, TrialProposed):
        body.trial.create_time.CopyFrom(message.time)
    return message


def _confirmation_to_proto(run_id: str, confirmation: Confirmation) -> trace_pb2.Confirmation:
    message = trace_pb2.Confirmation(trial=_trial_name(run_id, confirmation.trial))
    return _fill(message, confirmation, run_id, leave={"trial"})


_LESSON_IDS = frozenset({"lesson", "lessons", "cited_lessons", "pruned"})
"""Fields that hold ids of lessons here and their resource names on the wire."""
_SPECIAL: dict[type, Callable[[str, Any], Message]] = {
    datetime: lambda _, moment: timestamp_to_proto(moment),
    timedelta: lambda _, span: duration_to_proto(span.total_seconds()),
    dict: lambda _, values: configuration_to_proto(values),
    Usage: lambda _, usage: usage_to_proto(usage),
    TaskDescription: lambda _, task: description_to_proto(task),
    Trial: trial_to_proto,
    Mechanism: mechanism_to_proto,
    Confirmation: _confirmation_to_proto,
}
"""How a value of each of these types becomes a message; the first argument is the run's id."""


def _fill(message: M, value: Any, run_id: str, leave: set[str] | None = None) -> M:
    """Copy every field of ``message`` that ``value`` has, None being absent."""
    for field in message.DESCRIPTOR.fields:
        found = getattr(value, field.name, None)
        if found is not None and field.name not in (leave or ()):
            _set(message, field, found, run_id)
    return message


def _set(message: Message, field: Any, value: Any, run_id: str) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(message, field.name).update(value)
    elif field.is_repeated:
        getattr(message, field.name).extend(_element(field, element, run_id) for element in value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(_element(field, value, run_id))
    else:
        setattr(message, field.name, _element(field, value, run_id))


def _element(field: Any, value: Any, run_id: str) -> Any:
    if field.enum_type is not None:
        # The enum's own prefix, as in TRIAL_STATE_ of TRIAL_STATE_UNSPECIFIED.
        prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
        return field.enum_type.values_by_name[prefix + cast(Enum, value).name].number
    if field.message_type is None:
        return f"lessons/{value}" if field.name in _LESSON_IDS else value
    special = _SPECIAL.get(type(value))
    if special is not None:
        return special(run_id, value)
    if isinstance(value, Mapping):
        return configuration_to_proto(value)
    return _fill(GetMessageClass(field.message_type)(), value, run_id)


def _trial_name(run_id: str, number: int) -> str:
    return f"runs/{run_id}/trials/{number}"
