"""The fastest way to compute a model's losses on each device. All ways compute the same; the tests compare them.

Notable:
- a CPU takes the hand-written kernels: compiling would cost more than a short trial
- a CUDA GPU takes the plain model, compiled; sliding windows by FlexAttention, whose block masks skip what a window
  hides (arXiv 2412.05496); the output layer, soft cap and cross-entropy a few thousand tokens at a time
- any other device takes the plain path
- one compiled model is kept for the next trial of the same shapes; what the compiler made lies on disk for all others
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from gpt_trainer import kernels
from gpt_trainer.architecture import Architecture
from gpt_trainer.device import Device, compiled
from gpt_trainer.hyperparameters import Hyperparameters
from gpt_trainer.kernels import SOFT_CAP
from gpt_trainer.model import GPT, Attention
from gpt_trainer.optimizer import MuonAdamW

CHUNK_LOGITS = 2**26
"""Logits that a GPU holds at once: large enough products to fill it, a small part of its memory."""

Losses = Callable[[Tensor, Tensor], Tensor]
"""From tokens and targets [B, T] to one mean loss, or to one loss a target [B·T]; in nats."""


@dataclass(frozen=True, slots=True)
class LossPath:
    """One way to compute a model's losses."""

    loss: Losses
    """The mean over all targets, with gradients."""
    token_losses: Losses
    """Of every target, without gradients."""


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model with random parameters and everything compiled that training and evaluating it need."""

    model: GPT
    path: LossPath
    compile_seconds: float | None
    """What compiling took, or finding it compiled; None where nothing is compiled."""


def open_model(architecture: Architecture, h: Hyperparameters, evaluation_rows: int, device: Device) -> OpenModel:
    """The model of a trial. It may be an earlier trial's: every parameter has to be initialised by the caller."""
    if device.torch_device.type != "cuda":
        model = GPT(architecture, device.compute).to(device.torch_device)
        return OpenModel(model, kernel_path(model) if device.is_cpu else plain_path(model), None)
    began = time.perf_counter()
    model, path = _compiled_model(architecture, device.compute, device.torch_device, h.device_batch_size)
    _warm_up(model, path, h, evaluation_rows)
    device.synchronise()
    return OpenModel(model, path, time.perf_counter() - began)


def plain_path(model: GPT) -> LossPath:
    """The model as it is written."""
    return LossPath(model.loss, torch.no_grad()(model.token_losses))


def kernel_path(model: GPT) -> LossPath:
    """The hand-written kernels for a CPU."""
    return LossPath(model.fused_loss, model.fused_token_losses)


def flex_windows(model: GPT) -> Attention:
    """Attention that computes only the blocks of scores which a window shows. On a CPU torch has no backward of it."""
    a, device = model.architecture, model.embedding.device
    blocks = {window: _block_mask(a.context, window, device) for window in set(a.windows) if window < a.context}

    def attention(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if a.windows[layer] >= a.context:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        found: Tensor = flex_attention(q, k, v, block_mask=blocks[a.windows[layer]])
        return found

    return attention


def chunked_path(model: GPT, attention: Attention, compile_parts: bool) -> LossPath:
    """A GPU's path; with ``compile_parts`` False its operations run one by one, on any device."""
    chunk = max(1, CHUNK_LOGITS // model.architecture.vocabulary)

    def hidden(tokens: Tensor) -> Tensor:
        return model.hidden(tokens, attention).flatten(0, 1)

    def token_losses(h: Tensor, w: Tensor, targets: Tensor) -> Tensor:
        capped = (-2 * SOFT_CAP) * torch.sigmoid((h @ w.t()).to(kernels.wide(h)) * (-2 / SOFT_CAP))
        return F.cross_entropy(capped, targets, reduction="none")

    trunk, gradient, losses = hidden, chunk_gradient, token_losses
    if compile_parts:
        trunk, gradient, losses = compiled(hidden), compiled(chunk_gradient), compiled(token_losses)

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        return kernels.softcap_cross_entropy(trunk(tokens), model.unembedding, targets.flatten(), chunk, gradient)

    @torch.no_grad()
    def all_token_losses(tokens: Tensor, targets: Tensor) -> Tensor:
        h, w = trunk(tokens), model.unembedding.to(model.compute)
        pieces = zip(torch.split(h, chunk), torch.split(targets.flatten(), chunk), strict=True)
        return torch.cat([losses(piece, w, answers) for piece, answers in pieces])

    return LossPath(loss, all_token_losses)


def chunk_gradient(h: Tensor, w: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """As the CPU's, without gather and scatter, so that it compiles to reductions over logits that are read once."""
    r = torch.sigmoid((h @ w.t()).to(kernels.wide(h)) * (-2 / SOFT_CAP))  # [n, V]
    log_p = torch.log_softmax(r * (-2 * SOFT_CAP), 1)
    is_target = torch.arange(w.shape[0], device=h.device) == target[:, None]
    nats = -torch.where(is_target, log_p, 0.0).sum()
    return nats, ((log_p.exp() - is_target.to(log_p.dtype)) * (r - r * r)).to(h.dtype)


@lru_cache(maxsize=1)
def _compiled_model(
    architecture: Architecture, compute: torch.dtype, device: torch.device, rows: int
) -> tuple[GPT, LossPath]:
    """A model for batches of ``rows``. Compiling for other shapes forgets it, so that code never piles up."""
    torch.compiler.reset()
    model = GPT(architecture, compute).to(device)
    return model, chunked_path(model, flex_windows(model), compile_parts=True)


def _warm_up(model: GPT, path: LossPath, h: Hyperparameters, evaluation_rows: int) -> None:
    """One step and one evaluation on nothing, which compile whatever is not compiled yet."""
    model.initialise(0)
    optimizer = MuonAdamW(model, h, compile_updates=True)
    shape = (h.device_batch_size, model.architecture.context)
    nothing = torch.zeros(shape, dtype=torch.int64, device=model.embedding.device)
    path.loss(nothing, nothing).backward()  # type: ignore[no-untyped-call]
    optimizer.step(0.0)
    path.token_losses(*(nothing[:1].expand(evaluation_rows, -1).contiguous(),) * 2)


def _block_mask(context: int, window: int, device: torch.device) -> BlockMask:
    def visible(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key <= window)

    return create_block_mask(visible, None, None, context, context, device=str(device))
