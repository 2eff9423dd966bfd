"""What a run may be asked for beside its task and its levels: budgets, how places are filled, early stopping, noise."""

from __future__ import annotations

from dataclasses import dataclass

from bilevel.v1 import trace_pb2

from service_kit.errors import InvalidArgument
from service_kit.translate import duration_to_proto

STOPPING_RULES = {
    "median": trace_pb2.EARLY_STOPPING_RULE_MEDIAN,
    "curve": trace_pb2.EARLY_STOPPING_RULE_LEARNING_CURVE,
}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Fields of a RunSpec as a person says them; what is 0 or empty is left out."""

    asynchronous: bool = False
    """Fill a place as soon as it is free, in place of whole batches."""
    max_seconds: float = 0.0
    max_evaluation_seconds: float = 0.0
    max_cost_usd: float = 0.0
    """Limit for each loop."""
    early_stopping: str = ""
    """``median`` or ``curve``; empty stops nothing."""
    audit_fraction: float | None = None
    noise_repeats: int = 0

    def __post_init__(self) -> None:
        if self.early_stopping and self.early_stopping not in STOPPING_RULES:
            raise InvalidArgument.of("--early-stopping", f"must be median or curve; got {self.early_stopping!r}")
        if self.audit_fraction is not None and not self.early_stopping:
            raise InvalidArgument.of("--audit", "needs --early-stopping: it is the share of stops that are not made")

        if self.noise_repeats != 0 and not 2 <= self.noise_repeats <= 1000:
            said = f"must be 0 for off, or from 2 to 1000; got {self.noise_repeats}"
            raise InvalidArgument.of("--noise-repeats", said)

    def fill(self, spec: trace_pb2.RunSpec) -> None:
        """Put the options into a spec."""
        if self.asynchronous:
            spec.parallel_mode = trace_pb2.PARALLEL_MODE_ASYNCHRONOUS
        if self.max_seconds:
            spec.max_duration.CopyFrom(duration_to_proto(self.max_seconds))
        if self.max_evaluation_seconds:
            spec.max_evaluation_time.CopyFrom(duration_to_proto(self.max_evaluation_seconds))
        spec.max_cost_usd = self.max_cost_usd
        if self.early_stopping:
            spec.early_stopping.rule = STOPPING_RULES[self.early_stopping]
        if self.audit_fraction is not None:
            spec.early_stopping.audit_fraction = self.audit_fraction
        if self.noise_repeats:
            spec.noise.baseline_repeats = self.noise_repeats
