"""Numbers, values and enum members as people read them: the same words on the terminal and in reports."""

from __future__ import annotations

import unicodedata

from bilevel.v1 import common_pb2, trace_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from service_kit.parameters import brief

UNKNOWN = "unknown"
NOTHING = "\N{EN DASH}"
"""Stands where there is no value."""

_HIDDEN = {"Cc", "Cf", "Zl", "Zp"}
"""Unicode's categories of control and format characters and of its own line ends."""


def visible(text: str) -> str:
    """``text`` with its control and format characters spelled out, as ⟨U+202E⟩, so that none of them can hide or turn
    round what stands beside it; tabs and line ends stay."""
    if text.isprintable():
        return text
    return "".join(
        f"⟨U+{ord(each):04X}⟩" if each not in "\t\n\r" and unicodedata.category(each) in _HIDDEN else each
        for each in text
    )


def metric(value: float | None) -> str:
    """A metric with five significant digits after the leading ones; a dash where there is none."""
    return NOTHING if value is None else f"{value:.5f}" if abs(value) < 100 else f"{value:.6g}"


def signed(value: float | None) -> str:
    """A difference with its sign."""
    return NOTHING if value is None else f"{value:+.5f}" if abs(value) < 100 else f"{value:+.6g}"


def gain(value: float | None) -> str:
    """A gain, positive is better, in words where it is nothing."""
    return NOTHING if value is None else "none" if value == 0 else signed(value)


def interval(confirmation: trace_pb2.Confirmation | None) -> str:
    """The confirmed mean gain with its 95 % interval."""
    if confirmation is None:
        return NOTHING
    mean = signed(confirmation.mean_gain)
    if not confirmation.HasField("gain_low"):
        return mean
    return f"{mean} [{signed(confirmation.gain_low)}, {signed(confirmation.gain_high)}]"


def value(message: common_pb2.Value) -> str:
    """A parameter's value the way a person types it."""
    kind = message.WhichOneof("kind")
    match kind:
        case "list_value":
            return "(" + ", ".join(value(element) for element in message.list_value.values) + ")"
        case "bool_value":
            return "true" if message.bool_value else "false"
        case "double_value":
            return f"{message.double_value:.6g}"
        case "string_value":
            return brief(message.string_value)
        case None:
            return NOTHING
        case _:
            return str(getattr(message, kind))


def member(name: str, prefix: str) -> str:
    """An enum member's name in lower-case words, without the prefix that it carries on the wire."""
    return name.removeprefix(prefix).lower().replace("_", " ")


def run_state(number: trace_pb2.RunState.ValueType) -> str:
    return member(trace_pb2.RunState.Name(number), "RUN_STATE_")


def outcome(number: common_pb2.Outcome.ValueType) -> str:
    return member(common_pb2.Outcome.Name(number), "OUTCOME_")


def hook(number: trace_pb2.MechanismHook.ValueType) -> str:
    return member(trace_pb2.MechanismHook.Name(number), "MECHANISM_HOOK_")


def origin(trial: trace_pb2.Trial) -> str:
    """Who proposed a trial."""
    if trial.origin == trace_pb2.TRIAL_ORIGIN_MECHANISM:
        return f"mechanism {trial.proposer}"
    return member(trace_pb2.TrialOrigin.Name(trial.origin), "TRIAL_ORIGIN_")


def status(trial: trace_pb2.Trial) -> str:
    """What became of a trial, in one word or two."""
    if trial.number == 0 and trial.state == trace_pb2.TRIAL_STATE_KEPT:
        return "baseline"
    if trial.outcome not in (common_pb2.OUTCOME_UNSPECIFIED, common_pb2.OUTCOME_SUCCEEDED):
        return outcome(trial.outcome)
    return member(trace_pb2.TrialState.Name(trial.state), "TRIAL_STATE_")


def changes(trial: trace_pb2.Trial, base: trace_pb2.Trial | None = None) -> list[str]:
    """What a trial changed: ``NAME old → new`` where the trial it started from is known, else ``NAME=new``."""
    lines = []
    for name in sorted(trial.changes.values):
        new = value(trial.changes.values[name])
        known = base is not None and name in base.configuration.values
        old = value(base.configuration.values[name]) if base is not None and known else ""
        lines.append(f"{name} {old} → {new}" if known else f"{name}={new}")
    return lines


def seconds(message: Duration) -> float:
    return message.seconds + message.nanos / 1e9


def duration(span: float) -> str:
    """Seconds as people say them."""
    if span < 1e-3:
        return f"{1e6 * span:.0f} µs"
    if span < 1:
        return f"{1000 * span:.0f} ms"
    if span < 100:
        return f"{span:.1f} s"
    minutes, rest = divmod(round(span), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def availability(change: common_pb2.AvailabilityChanged) -> str:
    """What was lost and how long it is waited for, or what answers again."""
    if change.available:
        return f"{change.dependency} answers again after {duration(seconds(change.away))}"
    limit = f" for up to {duration(seconds(change.patience))}" if change.HasField("patience") else ""
    return f"waits{limit} for {change.dependency}: {change.reason}"


def moment(message: Timestamp) -> str:
    """A time in UTC, to the second; a dash where there is none."""
    return f"{message.ToDatetime():%Y-%m-%d %H:%M:%S} UTC" if message.seconds else NOTHING


def cost(dollars: float | None, *, scripted: bool = False) -> str:
    """A cost; unknown is not the same as free. To the scripted researcher no price applies."""
    if scripted and dollars == 0:
        return "none (scripted)"
    return UNKNOWN if dollars is None else f"${dollars:.4f}"


def dollars(cost: float | None, *, scripted: bool) -> float | None:
    """A cost as a number for machines: None where a price is unknown, and where none applies."""
    return None if scripted and cost == 0 else cost


def count(number: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
