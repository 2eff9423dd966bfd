"""From the wire's requests to the domain's types, checked."""

from __future__ import annotations

from datetime import timedelta

from bilevel.v1 import inner_pb2, trace_pb2

from inner_service.control import ConfigChange
from inner_service.early_stopping import EarlyStopping, EarlyStoppingRule
from inner_service.noise import MULTIPLE, NoiseRule
from inner_service.run import ParallelMode, RunSpec, Values
from inner_service.trace import FreezeReason
from service_kit.errors import InvalidArgument
from service_kit.translate import configuration_from_proto, duration_from_proto

MAX_PROPOSALS = 64
_RULES = {
    trace_pb2.EARLY_STOPPING_RULE_MEDIAN: EarlyStoppingRule.MEDIAN,
    trace_pb2.EARLY_STOPPING_RULE_LEARNING_CURVE: EarlyStoppingRule.LEARNING_CURVE,
}
_MODES = {
    trace_pb2.PARALLEL_MODE_UNSPECIFIED: ParallelMode.BATCH,
    trace_pb2.PARALLEL_MODE_BATCH: ParallelMode.BATCH,
    trace_pb2.PARALLEL_MODE_ASYNCHRONOUS: ParallelMode.ASYNCHRONOUS,
}
HEARTBEAT = 5.0
"""Seconds between signs of life on an idle watch, unless the client asks for something else."""


def spec_from_proto(message: trace_pb2.RunSpec) -> RunSpec:
    """Raises :class:`InvalidArgument` for values that have no meaning; ranges are checked at creation."""
    if message.parallel_mode not in _MODES:
        raise InvalidArgument.of("spec.parallel_mode", f"must be BATCH or ASYNCHRONOUS; got {message.parallel_mode}")
    limited, bounded = message.HasField("max_duration"), message.HasField("max_evaluation_time")
    return RunSpec(
        task=message.task,
        max_trials=message.max_trials,
        seed=message.seed,
        checkpoint_every=message.checkpoint_every,
        parallelism=message.parallelism,
        start=configuration_from_proto(message.start, "spec.start"),
        use_lessons=message.use_lessons,
        confirmation_seeds=message.confirmation_seeds,
        display_name=message.display_name,
        labels=dict(message.labels),
        max_duration=timedelta(seconds=duration_from_proto(message.max_duration)) if limited else None,
        max_tokens=message.max_tokens,
        compare_lessons=message.compare_lessons,
        parallel_mode=_MODES[message.parallel_mode],
        max_evaluation_time=timedelta(seconds=duration_from_proto(message.max_evaluation_time)) if bounded else None,
        max_cost_usd=message.max_cost_usd,
        early_stopping=_early_stopping(message.early_stopping) if message.HasField("early_stopping") else None,
        noise=_noise(message.noise) if message.HasField("noise") else None,
    )


def _early_stopping(message: trace_pb2.EarlyStopping) -> EarlyStopping:
    if message.rule not in _RULES:
        raise InvalidArgument.of("spec.early_stopping.rule", f"must be MEDIAN or LEARNING_CURVE; got {message.rule}")
    default = EarlyStopping(_RULES[message.rule])
    return EarlyStopping(
        default.rule,
        message.grace_fraction if message.HasField("grace_fraction") else default.grace_fraction,
        message.min_curves or default.min_curves,
        message.audit_fraction if message.HasField("audit_fraction") else default.audit_fraction,
        message.confidence or default.confidence,
    )


def _noise(message: trace_pb2.NoiseRule) -> NoiseRule:
    return NoiseRule(message.baseline_repeats, message.multiple or MULTIPLE)


def changes_from_proto(request: inner_pb2.ProposeRequest) -> Values | None:
    """The client's own candidate; None when the proposer is to propose."""
    return configuration_from_proto(request.changes, "changes") if request.HasField("changes") else None


def count_from_proto(request: inner_pb2.ProposeRequest) -> int:
    """How many trials to propose."""
    if not 0 <= request.count <= MAX_PROPOSALS:
        raise InvalidArgument.of("count", f"must be from 0 to {MAX_PROPOSALS}, where 0 is 1; got {request.count}")
    if request.HasField("changes") and request.count > 1:
        raise InvalidArgument.of("count", f"must be 1 with changes of your own; got {request.count}")
    return request.count or 1


def change_from_proto(request: inner_pb2.UpdateSearchConfigRequest) -> ConfigChange:
    """The wanted change of the control surface."""
    if request.expected_revision < 0:
        raise InvalidArgument.of("expected_revision", f"must be at least 0; got {request.expected_revision}")
    return ConfigChange(
        freeze=[FreezeReason(item.parameter, item.reason) for item in request.freeze],
        unfreeze=[FreezeReason(item.parameter, item.reason) for item in request.unfreeze],
        strategy=request.strategy if request.HasField("strategy") else None,
        guidance=request.guidance if request.HasField("guidance") else None,
        author=request.author,
        clear_history=request.clear_history,
        expected_revision=request.expected_revision if request.expected_revision or request.check_revision else None,
    )


def heartbeat_from_proto(request: inner_pb2.WatchTraceRequest) -> float:
    """Seconds."""
    seconds = duration_from_proto(request.heartbeat) if request.HasField("heartbeat") else HEARTBEAT
    if not 0.1 <= seconds <= 3600:
        raise InvalidArgument.of("heartbeat", f"must be from 0.1 s to 3600 s; got {seconds:g} s")
    return seconds
