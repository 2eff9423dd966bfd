"""Rows of tokens in the order in which they train, and the fixed rows that evaluation measures on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gpt_trainer.dataset import Rows

EVALUATION_ORDER = 20_240_229
"""Seed of the one order in which validation rows are taken; a constant, so that every trial sees the same text."""


class TrainingBatches:
    """An endless stream of rows, each epoch in a new order that only the seed decides.

    The stream does not depend on how many rows are asked for at a time, so DEVICE_BATCH_SIZE changes no data.
    """

    def __init__(self, rows: Rows, seed: int, device: torch.device) -> None:
        self._rows, self._device = rows, device
        self._generator = np.random.Generator(np.random.PCG64([seed & (2**64 - 1), 1]))
        self._order = np.empty(0, dtype=np.int64)
        self.epoch = 0
        """Times that the corpus has been started; 1 from the first batch."""

    def take(self, count: int) -> tuple[Tensor, Tensor]:
        """The next ``count`` rows as inputs and targets, int64 [count, context] each."""
        while len(self._order) < count:
            self._order = np.concatenate([self._order, self._generator.permutation(len(self._rows))])
            self.epoch += 1
        chosen, self._order = self._order[:count], self._order[count:]
        return _inputs_and_targets(self._rows[chosen], self._device)


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
