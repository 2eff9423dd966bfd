"""A run as its pages need it: the history that all clients fold, without what a long run could not keep."""

from __future__ import annotations

from dataclasses import dataclass

from bilevel.v1 import trace_pb2

from clients.history import RunHistory


@dataclass(slots=True)
class RunView(RunHistory):
    """Fold of one trace. Prompts and answers of model calls are counted and not kept: 10,000 trials have gigabytes."""

    def on_model_called(self, what: trace_pb2.ModelCalled, event: trace_pb2.TraceEvent) -> None:
        self.spending.add(what)
