"""The metric: validation loss in bits per byte, which does not depend on the tokeniser."""

from __future__ import annotations

import math

import torch

from gpt_trainer.batches import evaluation_batches
from gpt_trainer.dataset import Dataset
from gpt_trainer.device import Device
from gpt_trainer.paths import LossPath

ROWS_AT_A_TIME = 32
"""Rows of one forward pass: constant, so that the metric does not depend on DEVICE_BATCH_SIZE."""


@torch.no_grad()
def bits_per_byte(path: LossPath, dataset: Dataset, split: str, tokens: int, device: Device) -> float:
    """Nats of every target that stands for text, over ln 2 and the bytes of those targets.

    BOS stands for no text and is in neither sum. ``split`` is ``search`` or ``held_out``; the same ``tokens`` are
    measured every time.
    """
    where = device.torch_device
    token_bytes = torch.tensor(dataset.token_bytes, device=where)
    nats = torch.zeros((), dtype=torch.float32 if where.type == "mps" else torch.float64, device=where)
    total_bytes = torch.zeros((), dtype=torch.int64, device=where)  # on the device: adding never waits for it
    for inputs, targets in evaluation_batches(dataset.rows(split), tokens, ROWS_AT_A_TIME, where):
        count = token_bytes[targets.flatten()]
        nats += (path.token_losses(inputs, targets) * (count > 0)).sum(dtype=nats.dtype)
        total_bytes += count.sum()
    return float(nats) / (math.log(2) * int(total_bytes))
