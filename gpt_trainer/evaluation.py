"""The metric: validation loss in bits per byte, which does not depend on the tokeniser."""

from __future__ import annotations

import math

import torch

from gpt_trainer.batches import evaluation_batches
from gpt_trainer.dataset import Dataset
from gpt_trainer.device import Device
from gpt_trainer.model import GPT

ROWS_AT_A_TIME = 32
"""Rows of one forward pass: constant, so that the metric does not depend on DEVICE_BATCH_SIZE."""


@torch.no_grad()
def bits_per_byte(model: GPT, dataset: Dataset, split: str, tokens: int, device: Device) -> float:
    """Nats of every target that stands for text, over ln 2 and the bytes of those targets.

    BOS stands for no text and is in neither sum. ``split`` is ``search`` or ``held_out``; the same ``tokens`` are
    measured every time.
    """
    token_bytes = torch.tensor(dataset.token_bytes, device=device.torch_device)
    losses_of = model.fused_token_losses if device.is_cpu else model.token_losses
    nats = torch.zeros((), dtype=torch.float64 if device.torch_device.type != "mps" else torch.float32)
    total_bytes = 0
    for inputs, targets in evaluation_batches(dataset.rows(split), tokens, ROWS_AT_A_TIME, device.torch_device):
        count = token_bytes[targets.flatten()]
        nats += (losses_of(inputs, targets) * (count > 0)).sum(dtype=nats.dtype).cpu()
        total_bytes += int(count.sum())
    return float(nats) / (math.log(2) * total_bytes)
