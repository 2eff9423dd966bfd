"""A run as a table in the columns of Karpathy's autoresearch, and as JSON with every event.

results.tsv has the columns commit, METRIC, memory_gb, status (keep, discard, crash), description. Two things differ on
purpose: a configuration has no commit, so the first column holds a short hash of the complete configuration; and a
failed trial has no metric, so its fields stay empty where that format writes 0.000000.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from bilevel.v1 import common_pb2, outer_pb2, trace_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from clients import wording
from clients.report.record import RunRecord

FORMAT = "bilevel-run/1"


def results_tsv(record: RunRecord) -> str:
    """The run's decided trials, the baseline first."""
    history = record.history
    rows = [("commit", history.task.objective.metric or "metric", "memory_gb", "status", "description")]
    for number in sorted(history.trials):
        trial = history.trials[number]
        if trial.state not in (trace_pb2.TRIAL_STATE_KEPT, trace_pb2.TRIAL_STATE_DISCARDED):
            continue
        base = history.trials.get(history.bases.get(number, -1))
        memory = trial.side_metrics.get("peak_memory_mb")
        rows.append(
            (
                configuration_hash(trial.configuration),
                f"{trial.metric:.6f}" if trial.HasField("metric") else "",
                f"{memory / 1024:.1f}" if memory is not None else "",
                _status(trial),
                _description(trial, base),
            )
        )
    return "".join("\t".join(row) + "\n" for row in rows)


def configuration_hash(configuration: common_pb2.Configuration) -> str:
    """Seven hexadecimal digits that identify a complete configuration."""
    values = {name: wording.value(value) for name, value in configuration.values.items()}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:7]


def run_json(record: RunRecord) -> str:
    """Summary and every event of trace and campaign, in the protocol's JSON form."""
    document = {
        "format": FORMAT,
        "summary": record.summary().to_json(),
        "events": [to_json(event) for event in record.events],
        "campaign_events": [to_json(event) for event in record.campaign_events],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def to_json(message: Message) -> dict[str, Any]:
    """A message in the protocol's JSON form, with the field names of the .proto files."""
    return MessageToDict(message, preserving_proto_field_name=True)


def head_json(head: trace_pb2.Run | outer_pb2.Campaign) -> dict[str, Any]:
    """A run or a campaign in that form, with a null as its cost where no price applies to it."""
    document = to_json(head)
    if head.usage.HasField("cost_usd"):
        document["usage"]["cost_usd"] = wording.dollars(head.usage.cost_usd, scripted=head.scripted)
    return document


def _status(trial: trace_pb2.Trial) -> str:
    if not trial.HasField("metric"):
        return "discard" if trial.outcome == common_pb2.OUTCOME_STOPPED_EARLY else "crash"
    return "keep" if trial.state == trace_pb2.TRIAL_STATE_KEPT else "discard"


def _description(trial: trace_pb2.Trial, base: trace_pb2.Trial | None) -> str:
    what = ", ".join(wording.changes(trial, base)) or "baseline"
    failure = "" if trial.HasField("metric") else f" [{wording.outcome(trial.outcome)}]"
    text = f"{what}: {trial.hypothesis}" if trial.hypothesis else what
    return " ".join((text + failure).split())
