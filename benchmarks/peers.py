"""Training steps of other people's trainers, loaded from a checkout given by path; nothing of theirs is kept here.

Each loader returns the peer's own model and optimiser, built for the shapes that are compared. What they need around
them and is not at hand (a kernel downloaded from a hub, their tokeniser) is replaced by the nearest part of torch.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor

from gpt_trainer.architecture import Architecture
from gpt_trainer.hyperparameters import Hyperparameters
from gpt_trainer.model import window_mask


@dataclass(frozen=True, slots=True)
class Peer:
    """A trainer that can take optimiser steps beside ours."""

    name: str
    loss: Callable[[Tensor, Tensor], Tensor]
    """Mean cross-entropy of tokens and targets [B, T], with its graph."""
    optimizer: Any
    model: Any
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def step(self, batches: list[tuple[Tensor, Tensor]]) -> float:
        """One optimiser step that accumulates ``batches``; returns the mean loss, as each peer's own script does."""
        total = 0.0
        for tokens, targets in batches:
            with self.autocast():
                loss = self.loss(tokens, targets)
            total += loss.detach() / len(batches)
            (loss / len(batches)).backward()
        self.optimizer.step()
        self.model.zero_grad(set_to_none=True)
        return float(total)


def load_autoresearch(
    checkout: Path, a: Architecture, h: Hyperparameters, device: torch.device, attention: Callable[..., Tensor] | None
) -> Peer:
    """Karpathy's autoresearch: ``train.py``'s model and optimiser under bfloat16 autocast, its hyperparameters ours.

    The script trains as it is imported, so only its definitions are executed. ``attention`` stands in for the
    FlashAttention 3 interface; None takes torch's scaled dot product.
    """
    source = checkout / "train.py"
    kept = (ast.ClassDef, ast.FunctionDef, ast.Import)
    body = [
        node
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, kept) or _imports_standard_names(node) or _assigns(node, "polar_express_coeffs")
    ]
    module = types.ModuleType("autoresearch_train")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    flash = types.SimpleNamespace(flash_attn_func=attention or ScaledDotProduct())
    module.__dict__.update(fa3=flash)
    with compilation(device.type == "cuda"):
        exec(compile(ast.Module(body, []), str(source), "exec"), module.__dict__)
    config = module.GPTConfig(
        sequence_len=a.context,
        vocab_size=a.vocabulary,
        n_layer=a.depth,
        n_head=a.heads,
        n_kv_head=a.heads,
        n_embd=a.width,
        window_pattern=a.window_pattern,
    )
    with redirect_stdout(sys.stderr):
        model = module.GPT(config).to(device)
        model.init_weights()
        optimizer = model.setup_optimizer(
            h.unembedding_lr, h.embedding_lr, h.matrix_lr, h.weight_decay, h.adam_betas, h.scalar_lr
        )
    return Peer("autoresearch", model, optimizer, model, lambda: torch.autocast(device.type, dtype=torch.bfloat16))


def load_nanochat(checkout: Path, a: Architecture, h: Hyperparameters, device: torch.device, precision: str) -> Peer:
    """nanochat's model and optimiser in ``precision``. It also smears embeddings and backs out the middle layer."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "nanochat"]:
        del sys.modules[name]
    os.environ["NANOCHAT_DTYPE"] = precision  # read once, as the package is imported
    sys.path.insert(0, str(checkout))
    try:
        with compilation(device.type == "cuda"):
            gpt = importlib.import_module("nanochat.gpt")
    finally:
        sys.path.remove(str(checkout))
    config = gpt.GPTConfig(
        sequence_len=a.context,
        vocab_size=a.vocabulary,
        n_layer=a.depth,
        n_head=a.heads,
        n_kv_head=a.heads,
        n_embd=a.width,
        window_pattern=a.window_pattern,
    )
    with redirect_stdout(sys.stderr):
        model = gpt.GPT(config).to(device)
        model.init_weights()
        optimizer = model.setup_optimizer(h.unembedding_lr, h.embedding_lr, h.matrix_lr, h.weight_decay, h.scalar_lr)
    return Peer(f"nanochat {precision}", model, optimizer, model)


class ScaledDotProduct:
    """FlashAttention 3's interface on torch's scaled dot product, with a dense mask for windows (no other way)."""

    def __init__(self) -> None:
        self._masks: dict[tuple[int, int], Tensor] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, causal: bool, window_size: tuple[int, int]) -> Tensor:
        """Attention on q, k, v [B, T, H, D]."""
        assert causal
        length, window = q.shape[1], window_size[0]
        mask = None
        if 0 <= window < length:
            key = (length, window)
            if key not in self._masks:
                self._masks[key] = window_mask(length, window).to(q.device)
            mask = self._masks[key]
        q, k, v = (z.transpose(1, 2) for z in (q, k, v.to(q.dtype)))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2)


@contextmanager
def compilation(wanted: bool) -> Iterator[None]:
    """Unless ``wanted``, functions decorated with torch.compile in this block stay as written: eager."""
    if wanted:
        yield
        return
    with mock.patch.object(torch, "compile", lambda *functions, **_: functions[0] if functions else lambda f: f):
        yield


def _imports_standard_names(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module in ("dataclasses", "functools", "math", "typing")


def _assigns(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)
