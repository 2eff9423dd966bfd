"""TensorBoard event files of a trial, written without torch: ``tensorboard --logdir FOLDER`` shows them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gpt_trainer.trial import Progress, TrialResult
from service_kit.errors import InvalidArgument, ServiceError

FLUSH_EVERY = 2
"""Seconds after which what was recorded is on disk."""


def check_tensorboard() -> None:
    """Raises ServiceError, with the remedy, where the optional package is missing."""
    try:
        import tensorboard  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise ServiceError(
            "event files need the package tensorboard",
            hint="Install it: pip install 'bilevel-autoresearch[tensorboard]'. Or leave --tensorboard out.",
        ) from error


class EventFiles:
    """One trial's folder of event files. Scalars are over tokens, so that batch sizes can be compared."""

    def __init__(self, folder: Path) -> None:
        check_tensorboard()
        from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-untyped]

        try:
            self._writer = EventFileWriter(str(folder), flush_secs=FLUSH_EVERY)
        except OSError as error:
            raise InvalidArgument.of(
                "--tensorboard",
                f"must be a folder that can be written; {folder}: {(error.strerror or str(error)).lower()}",
                hint="Give --tensorboard another folder.",
            ) from error
        self._tokens = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._writer.close()

    def record(self, event: Progress | TrialResult) -> None:
        """Record a report or the result."""
        if isinstance(event, Progress):
            self.progress(event)
        else:
            self.result(event)

    def progress(self, event: Progress) -> None:
        """Record what a report says. Training only: the metric itself comes with the result."""
        self._tokens = event.tokens
        if event.phase == "training":
            self._add("train/loss", event.train_loss)
            self._add("train/budget_spent", event.fraction)
            if event.wall_seconds > 0:
                self._add("train/tokens_per_second", event.tokens / event.wall_seconds)
            if event.val_bpb_estimate is not None:
                self._add("validation/bpb_estimate", event.val_bpb_estimate)

    def result(self, result: TrialResult) -> None:
        """Record how the trial ended: the metric where there is one, and every side metric."""
        if result.val_bpb is not None:
            self._add("validation/bpb", result.val_bpb)
        for name, value in result.side_metrics.items():
            self._add(f"result/{name}", value)

    def _add(self, tag: str, value: float) -> None:
        self._writer.add_event(_scalar(tag, value, self._tokens))


def _scalar(tag: str, value: float, step: int) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

    return Event(wall_time=time.time(), step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))


def trial_folder(root: Path, label: str, number: int) -> Path:
    """Where a server's trial writes: its label as a folder name, and a number that tells repetitions apart."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.") or "trial"
    return root / f"{slug}-{number:04d}"
