"""The wall-clock time of a run in which no evaluation ran, and what it waited for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from bilevel.v1 import trace_pb2


@dataclass(frozen=True, slots=True)
class Waiting:
    """Seconds, from a run's first start to its end or its newest event."""

    wall: float = 0.0
    evaluating: float = 0.0
    """At least one evaluation ran."""
    paused: float = 0.0
    """The run was paused and no evaluation ran: a synchronous outer loop thought, or a person did."""

    @property
    def proposing(self) -> float:
        """The run was running and no evaluation was: proposals, mechanisms, bookkeeping."""
        return max(0.0, self.wall - self.evaluating - self.paused)

    @property
    def share(self) -> float:
        """Share of the wall clock in which no evaluation ran, in [0, 1]."""
        return max(0.0, 1 - self.evaluating / self.wall) if self.wall else 0.0

    @classmethod
    def of(cls, events: Iterable[trace_pb2.TraceEvent]) -> Self:
        """From a run's trace. Confirmations count as evaluating: they measure on fresh seeds."""
        clock = _Clock()
        for event in events:
            clock.see(event)
        return cls(clock.wall, clock.evaluating, clock.paused)


class _Clock:
    def __init__(self) -> None:
        self.wall = self.evaluating = self.paused = 0.0
        self._state = trace_pb2.RUN_STATE_CREATED
        self._open: set[int] = set()
        self._last: float | None = None
        """When the last event was, once the run was started."""

    def see(self, event: trace_pb2.TraceEvent) -> None:
        now = event.time.seconds + event.time.nanos / 1e9
        if self._last is not None and not _terminal(self._state):
            self._pass(now - self._last)
        kind = event.WhichOneof("event")
        if kind == "run_state_changed":
            self._state = event.run_state_changed.to_state
            if self._last is None and self._state == trace_pb2.RUN_STATE_RUNNING:
                self._last = now
        elif kind == "trial_started":
            self._open.add(event.trial_started.number)
        elif kind == "trial_evaluated":
            self._open.discard(event.trial_evaluated.number)
        self._last = now if self._last is not None else None

    def _pass(self, seconds: float) -> None:
        self.wall += seconds
        if self._open or self._state == trace_pb2.RUN_STATE_CONFIRMING:
            self.evaluating += seconds
        elif self._state == trace_pb2.RUN_STATE_PAUSED:
            self.paused += seconds


def _terminal(state: trace_pb2.RunState.ValueType) -> bool:
    return state in (trace_pb2.RUN_STATE_FINISHED, trace_pb2.RUN_STATE_CANCELLED, trace_pb2.RUN_STATE_FAILED)
