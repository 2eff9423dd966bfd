"""Rows of tokens in the order in which they train, and the fixed rows that evaluation measures on."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from gpt_trainer.dataset import Rows

EVALUATION_ORDER = 20_240_229
"""Seed of the one order in which validation rows are taken; a constant, so that every trial sees the same text."""

RESIDENT_BYTES = 2**28
"""A corpus up to this size stays in the system's page cache: taking rows from it costs microseconds."""


class Batches(Protocol):
    """What training takes its rows from."""

    epoch: int
    """Times that the corpus has been started; 1 from the first batch."""

    def take(self, count: int) -> tuple[Tensor, Tensor]:
        """The next ``count`` rows as inputs and targets, int64 [count, context] each."""


class TrainingBatches:
    """An endless stream of rows, each epoch in a new order that only the seed decides.

    The stream does not depend on how many rows are asked for at a time, so DEVICE_BATCH_SIZE changes no data.
    """

    def __init__(self, rows: Rows, seed: int, device: torch.device) -> None:
        self._rows, self._device = rows, device
        self._generator = np.random.Generator(np.random.PCG64([seed & (2**64 - 1), 1]))
        self._order = np.empty(0, dtype=np.int64)
        self.epoch = 0

    def take(self, count: int) -> tuple[Tensor, Tensor]:
        while len(self._order) < count:
            self._order = np.concatenate([self._order, self._generator.permutation(len(self._rows))])
            self.epoch += 1
        chosen, self._order = self._order[:count], self._order[count:]
        return _inputs_and_targets(self._rows[chosen], self._device)


class PrefetchedBatches:
    """The same stream, taken ahead by a thread, so that no step waits for a disk or for a copy to the device.

    Every batch has ``count`` rows. Leaving the context ends the thread.
    """

    def __init__(self, batches: TrainingBatches, count: int, ahead: int = 4) -> None:
        self._batches, self._count = batches, count
        self._ready: queue.Queue[tuple[tuple[Tensor, Tensor], int] | Exception] = queue.Queue(ahead)
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._fetch, name="prefetch", daemon=True)
        self.epoch = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        while self._thread.is_alive():  # a thread that waits for room finds some and sees that it is over
            self._drain()
            self._thread.join(0.01)
        self._drain()

    def take(self, count: int) -> tuple[Tensor, Tensor]:
        """The next batch. Raises what reading it raised, and ValueError for a count other than the announced one."""
        if count != self._count:
            raise ValueError(f"count must be {self._count}, as announced; got {count}")
        item = self._ready.get()
        if isinstance(item, Exception):
            raise item
        batch, self.epoch = item
        return batch

    def _fetch(self) -> None:
        try:
            while not self._leaving.is_set():
                batch = self._batches.take(self._count)
                self._ready.put((batch, self._batches.epoch))
        except Exception as error:  # noqa: BLE001 (raised again where the batch is taken)
            self._ready.put(error)

    def _drain(self) -> None:
        while not self._ready.empty():
            self._ready.get_nowait()


@contextlib.contextmanager
def open_batches(rows: Rows, seed: int, device: torch.device, count: int) -> Iterator[Batches]:
    """The stream of ``seed``, ``count`` rows a time; loaded ahead where a step could notice the loading."""
    batches = TrainingBatches(rows, seed, device)
    if not worth_prefetching(rows, device):
        yield batches
        return
    with PrefetchedBatches(batches, count) as prefetched:
        yield prefetched


def worth_prefetching(rows: Rows, device: torch.device) -> bool:
    """Whether a step could notice the loading: on an accelerator always, on a CPU for a corpus beyond memory's reach.

    The thread would cost a one-core CPU more than the microseconds that rows of a small corpus take.
    """
    return device.type != "cpu" or rows.nbytes > RESIDENT_BYTES


def evaluation_batches(
    rows: Rows, tokens: int, rows_at_a_time: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same ``tokens`` validation tokens for every trial (all there are, when there are fewer), in batches."""
    context = rows.shape[1] - 1
    order = np.random.Generator(np.random.PCG64(EVALUATION_ORDER)).permutation(len(rows))[: max(1, tokens // context)]
    for start in range(0, len(order), rows_at_a_time):
        yield _inputs_and_targets(rows[np.sort(order[start : start + rows_at_a_time])], device)


def _inputs_and_targets(rows: Rows, device: torch.device) -> tuple[Tensor, Tensor]:
    ids = torch.from_numpy(rows.astype(np.int64))
    ids = ids.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else ids.to(device)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
