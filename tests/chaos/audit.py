"""What a storm must not have done: the logs in the databases against what was acknowledged outside of them.

Everything here is a function of plain values, so that each check can be shown damaged logs (``test_audit.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bilevel.v1 import common_pb2, outer_pb2, trace_pb2

Event = trace_pb2.TraceEvent | outer_pb2.CampaignEvent
EventT = TypeVar("EventT", trace_pb2.TraceEvent, outer_pb2.CampaignEvent)
ONCE = {outer_pb2.RESEARCH_ROUND_EXPLORE, outer_pb2.RESEARCH_ROUND_CRITIQUE, outer_pb2.RESEARCH_ROUND_SPECIFY}
BY_ITSELF = {"checkpoint"}
"""Reasons for which a run may pause without anything being wrong."""


@dataclass(frozen=True)
class Received:
    """An event that a watcher was sent."""

    watcher: str
    stream: str
    sequence: int
    digest: str


@dataclass(frozen=True)
class Acknowledged:
    """What an RPC answered: ``what`` names the call, ``facts`` what it promised."""

    what: str
    stream: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """A request that reached the model endpoint, in wall-clock seconds."""

    at: float
    purpose: str
    prompt: str
    """Digest of its messages."""


@dataclass
class Evidence:
    """Everything that the audit looks at."""

    logs: dict[str, list[Event]] = field(default_factory=dict)
    """Events of each stream, read from the databases after the storm, in the order of their rows."""
    last_numbers: dict[str, int] = field(default_factory=dict)
    """The number that each stream gave out last."""
    received: list[Received] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What the stores' own verification found: rows that the log does not bear out."""
    orphans: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Finding:
    """Something that must not be. ``kind`` is one of the table's columns."""

    kind: str
    text: str


KINDS = ("lost", "duplicated", "renumbered", "gaps", "evaluated again", "attempts", "rounds asked again",
         "replay differs", "rows differ", "stopped", "cancelled", "crashed", "orphans", "unfinished")  # fmt: skip
"""Every way in which a storm can do harm."""


def digest(event: Event) -> str:
    """The same for the same event, whoever sent it."""
    return hashlib.sha256(event.SerializeToString(deterministic=True)).hexdigest()[:24]


def prompt_digest(messages: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(list(messages)).encode()).hexdigest()[:24]


def audit(evidence: Evidence) -> list[Finding]:
    """Everything that is wrong; empty when nothing is."""
    findings: list[Finding] = []
    for stream, log in sorted(evidence.logs.items()):
        findings += _numbers(stream, log, evidence.last_numbers.get(stream, 0))
        if stream.startswith("runs/"):
            trace = _all(trace_pb2.TraceEvent, log)
            findings += _trials(stream, trace) + _replays(stream, trace) + _pauses(stream, trace)
        else:
            history = _all(outer_pb2.CampaignEvent, log)
            findings += _rounds(stream, history) + _given_up(stream, history)
    findings += _asked_again(evidence) + _watchers(evidence.received) + _receipts(evidence) + _answers(evidence)
    findings += [Finding("rows differ", text) for text in evidence.problems]
    findings += [Finding("orphans", text) for text in evidence.orphans]
    findings += [Finding("unfinished", text) for text in evidence.unfinished]
    return findings


def _all(kind: type[EventT], log: Sequence[Event]) -> list[EventT]:
    """A log whose events are all of one kind, as every stream's are."""
    found = [event for event in log if isinstance(event, kind)]
    assert len(found) == len(log), f"a log mixes {kind.__name__} with others"
    return found


def _numbers(stream: str, log: Sequence[Event], last: int) -> list[Finding]:
    findings = []
    numbers = Counter(event.sequence for event in log)
    findings += [Finding("duplicated", f"{stream}: number {n} is there {c} times") for n, c in numbers.items() if c > 1]
    missing = sorted(set(range(1, max([last, *numbers]) + 1)) - set(numbers))
    findings += [Finding("gaps", f"{stream}: number {n} is missing") for n in missing]
    if log and max(numbers) != last:
        findings.append(Finding("gaps", f"{stream}: the newest event is {max(numbers)}, the last number given {last}"))
    return findings


def _watchers(received: Sequence[Received]) -> list[Finding]:
    """Every watcher got every number once and in order, over all its reconnections."""
    findings, newest = [], dict[tuple[str, str], int]()
    for item in received:
        key = (item.watcher, item.stream)
        expected = newest.get(key, 0) + 1
        if item.sequence < expected:
            findings.append(Finding("duplicated", f"{key}: got {item.sequence} again"))
        elif item.sequence > expected:
            findings.append(Finding("gaps", f"{key}: got {item.sequence} in place of {expected}"))
        newest[key] = max(item.sequence, newest.get(key, 0))
    return findings


def _receipts(evidence: Evidence) -> list[Finding]:
    """What was sent is in the log, under the same number and unchanged."""
    findings, known = [], dict[str, dict[int, str]]()
    for stream, log in evidence.logs.items():
        known[stream] = {event.sequence: digest(event) for event in log}
    for item in {(r.stream, r.sequence, r.digest) for r in evidence.received}:
        stream, sequence, mark = item
        at = known.get(stream, {}).get(sequence)
        if at is None:
            findings.append(Finding("lost", f"{stream}: event {sequence} was sent and is not in the log"))
        elif at != mark:
            findings.append(Finding("renumbered", f"{stream}: event {sequence} is another one than was sent"))
    return findings


def _answers(evidence: Evidence) -> list[Finding]:
    """What RPCs answered is in the log."""
    findings = []
    for answer in evidence.acknowledged:
        log = evidence.logs.get(answer.stream, [])
        if not any(_bears_out(event, answer) for event in log):
            findings.append(Finding("lost", f"{answer.stream}: {answer.what} {dict(answer.facts)} was acknowledged"))
    created = Counter(a.facts["request"] for a in evidence.acknowledged if "request" in a.facts)
    streams = defaultdict(set)
    for answer in evidence.acknowledged:
        if "request" in answer.facts:
            streams[answer.facts["request"]].add(answer.stream)
    findings += [
        Finding("duplicated", f"request {request} created {sorted(streams[request])}")
        for request in created
        if len(streams[request]) > 1
    ]
    return findings


def _bears_out(event: Event, answer: Acknowledged) -> bool:
    facts, body = answer.facts, getattr(event, event.WhichOneof("event") or "", None)
    match answer.what:
        case "created":
            return event.WhichOneof("event") in ("run_created", "campaign_created")
        case "proposed":
            return isinstance(body, trace_pb2.TrialProposed) and body.trial.number == facts["number"] and (
                body.trial.hypothesis == facts["hypothesis"])  # fmt: skip
        case "evaluated":
            return isinstance(body, trace_pb2.TrialEvaluated) and body.number == facts["number"] and (
                body.result.outcome == facts["outcome"])  # fmt: skip
        case "decided":
            return isinstance(body, trace_pb2.TrialDecided) and body.number == facts["number"] and (
                body.kept == facts["kept"])  # fmt: skip
        case "remarked":
            return isinstance(body, trace_pb2.Remarked) and (event.sequence, body.text) == (
                facts["sequence"], facts["text"])  # fmt: skip
        case "started":
            return event.WhichOneof("event") == "run_state_changed"
    raise ValueError(f"nobody knows how to check {answer.what!r}")


def _trials(stream: str, log: Sequence[trace_pb2.TraceEvent]) -> list[Finding]:
    """One proposal, one result and one decision a trial; a new attempt for every interruption."""
    findings = []
    proposed, attempts, results, decisions = 0, Counter[int](), Counter[int](), Counter[int]()
    for event in log:
        match event.WhichOneof("event"):
            case "trial_proposed":
                number = event.trial_proposed.trial.number
                if number != proposed:
                    findings.append(Finding("gaps", f"{stream}: trial {number} follows {proposed} trials"))
                proposed = number + 1
            case "trial_started":
                started = event.trial_started
                if results[started.number]:
                    findings.append(Finding("evaluated again", f"{stream}: trial {started.number} had a result"))
                attempts[started.number] += 1
                if started.attempt != attempts[started.number]:
                    text = f"trial {started.number} begins attempt {started.attempt}, not {attempts[started.number]}"
                    findings.append(Finding("attempts", f"{stream}: {text}"))
            case "trial_evaluated":
                evaluated = event.trial_evaluated
                results[evaluated.number] += 1
                if evaluated.result.outcome in (common_pb2.OUTCOME_CANCELLED, common_pb2.OUTCOME_CRASHED):
                    said = common_pb2.Outcome.Name(evaluated.result.outcome).removeprefix("OUTCOME_").lower()
                    text = f"{stream}: trial {evaluated.number} counts as {said}: {evaluated.result.message}"
                    findings.append(Finding(said, text))
            case "trial_decided":
                decisions[event.trial_decided.number] += 1
    for name, counted in (("result", results), ("decision", decisions)):
        findings += [Finding("duplicated", f"{stream}: trial {n} has {c} {name}s") for n, c in counted.items() if c > 1]
    return findings


def _replays(stream: str, log: Sequence[trace_pb2.TraceEvent]) -> list[Finding]:
    findings = []
    for event in log:
        if event.WhichOneof("event") == "mechanism_replayed" and not event.mechanism_replayed.matches:
            findings.append(Finding("replay differs", f"{stream}: {event.mechanism_replayed.mechanism}"))
        if event.WhichOneof("event") == "mechanism_suspended":
            gone = event.mechanism_suspended
            if gone.kind in ("died", "protocol"):
                findings.append(Finding("replay differs", f"{stream}: {gone.mechanism} {gone.kind}: {gone.message}"))
    return findings


def _pauses(stream: str, log: Sequence[trace_pb2.TraceEvent]) -> list[Finding]:
    """A run that pauses for anything but a checkpoint needs a person, and a failed one is past help."""
    findings = []
    for event in log:
        if event.WhichOneof("event") == "run_state_changed":
            change = event.run_state_changed
            if change.to_state == trace_pb2.RUN_STATE_FAILED or (
                change.to_state == trace_pb2.RUN_STATE_PAUSED and change.reason not in BY_ITSELF
            ):
                findings.append(Finding("stopped", f"{stream}: {change.reason}"))
    return findings


def _given_up(stream: str, log: Sequence[outer_pb2.CampaignEvent]) -> list[Finding]:
    findings = []
    for event in log:
        if event.WhichOneof("event") == "campaign_state_changed":
            change = event.campaign_state_changed
            if change.to_state in (outer_pb2.CAMPAIGN_STATE_FAILED, outer_pb2.CAMPAIGN_STATE_PAUSED):
                findings.append(Finding("stopped", f"{stream}: {change.reason}"))
    return findings


def _rounds(stream: str, log: Sequence[outer_pb2.CampaignEvent]) -> list[Finding]:
    """A session has each of its rounds once."""
    seen = Counter[tuple[str, int]]()
    for event in log:
        turn = event.round_finished.turn
        if event.WhichOneof("event") == "round_finished" and not turn.error and turn.round in ONCE:
            seen[event.round_finished.session, turn.round] += 1
    return [
        Finding("rounds asked again", f"{session}: {outer_pb2.ResearchRound.Name(number)} was stored {count} times")  # type: ignore[arg-type]
        for (session, number), count in seen.items()
        if count > 1
    ]


def _asked_again(evidence: Evidence) -> list[Finding]:
    """No prompt is sent again after its answer was stored: by the last of the campaigns that have the same prompt."""
    stored: dict[str, float] = {}
    for log in evidence.logs.values():
        for event in log:
            if isinstance(event, outer_pb2.CampaignEvent) and event.WhichOneof("event") == "round_finished":
                turn, at = event.round_finished.turn, event.time.ToNanoseconds() / 1e9
                mark = prompt_digest((message.role, message.content) for message in turn.prompt)
                if not turn.error:
                    stored[mark] = max(at, stored.get(mark, at))
    return [
        Finding("rounds asked again", f"{request.purpose} was asked again after its answer was stored")
        for request in evidence.asked
        if request.at > stored.get(request.prompt, request.at)
    ]
