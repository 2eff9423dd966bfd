"""The GPT of the benchmark, written plainly.

Notable:
- rotary position embeddings, no learned positions (RoFormer, arXiv 2104.09864)
- queries and keys are RMS-normalised after rotation (QK norm, arXiv 2010.04245), so scores are bounded
- RMS norm without parameters, no biases anywhere
- squared ReLU in the MLP (Primer, arXiv 2109.08668)
- value embeddings on every second layer, mixed in by an input-dependent gate (after ResFormer, arXiv 2410.17897)
- per-layer scalars for the residual stream and for the input embedding (x0)
- untied embedding and unembedding; logits softly capped at ±15 (Gemma 2, arXiv 2408.00118)
- sliding windows by pattern; the last layer always attends to the whole context

Matrices of one shape live stacked in one parameter, because Muon works on stacks: ``attention[layer, 0..3]`` are the
query, key, value and output matrices. Shapes: B rows, T tokens a row, C width, H heads, D head channels, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from gpt_trainer import kernels
from gpt_trainer.architecture import MLP_RATIO, Architecture
from gpt_trainer.kernels import EPSILON, SOFT_CAP

ROTARY_BASE = 10_000.0

Attention = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""From a layer's number and its q, k, v [B, H, T, D]: what its heads found, of the same shape."""


class GPT(nn.Module):
    """The model. ``compute`` is the number format of activations and matrix products; parameters stay as created."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, architecture: Architecture, compute: torch.dtype = torch.float32) -> None:
        super().__init__()
        a = architecture
        self.architecture, self.compute = a, compute
        self.embedding = nn.Parameter(torch.empty(a.vocabulary, a.width))
        self.unembedding = nn.Parameter(torch.empty(a.vocabulary, a.width))
        self.value_embeddings = nn.Parameter(torch.empty(len(a.value_layers), a.vocabulary, a.width))
        self.attention = nn.Parameter(torch.empty(a.depth, 4, a.width, a.width))
        self.mlp_up = nn.Parameter(torch.empty(a.depth, MLP_RATIO * a.width, a.width))
        self.mlp_down = nn.Parameter(torch.empty(a.depth, a.width, MLP_RATIO * a.width))
        self.gates = nn.Parameter(torch.empty(len(a.value_layers), a.heads, a.gate_channels))
        self.resid_lambdas = nn.Parameter(torch.empty(a.depth))
        self.x0_lambdas = nn.Parameter(torch.empty(a.depth))
        cosine, sine = rotary_tables(a.context, a.head_dim)
        self.register_buffer("cosine", cosine.to(compute), persistent=False)
        self.register_buffer("sine", sine.to(compute), persistent=False)
        self._masks: dict[int, Tensor] = {}

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Fill every parameter from ``seed`` alone, the same on every device.

        Output projections start at zero, so each block starts as the identity; the unembedding starts near zero, so the
        first loss is ln(vocabulary); gates start at zero, which is a factor of one.
        """
        generator = torch.Generator().manual_seed(seed)
        bound = math.sqrt(3.0 / self.architecture.width)  # uniform with standard deviation width^-0.5

        def normal(parameter: Tensor, deviation: float) -> None:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)

        def uniform(parameter: Tensor) -> None:
            parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)

        normal(self.embedding, 1.0)
        normal(self.unembedding, 0.001)
        uniform(self.value_embeddings)
        uniform(self.attention)
        self.attention[:, 3].zero_()
        uniform(self.mlp_up)
        self.mlp_down.zero_()
        self.gates.zero_()
        self.resid_lambdas.fill_(1.0)
        self.x0_lambdas.fill_(0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, T, V] for ``tokens`` [B, T], before the soft cap: the plain path."""
        x = self.hidden(tokens, self.dense_attention)
        return F.linear(x, self.unembedding.to(x.dtype))

    def hidden(self, tokens: Tensor, attention: Attention) -> Tensor:
        """The normalised last residual stream, [B, T, C]."""
        a = self.architecture
        x = rms_norm(F.embedding(tokens, self.embedding).to(self.compute))  # [B, T, C]
        x0 = x
        weights, up, down = (z.to(x.dtype).unbind(0) for z in (self.attention, self.mlp_up, self.mlp_down))
        resid, inject = self.resid_lambdas.to(x.dtype).unbind(0), self.x0_lambdas.to(x.dtype).unbind(0)
        for layer in range(a.depth):
            x = resid[layer] * x + inject[layer] * x0
            x = x + self._attend(layer, rms_norm(x), tokens, weights[layer], attention)
            hidden = F.linear(rms_norm(x), up[layer])  # [B, T, 4C]
            x = x + F.linear(F.relu(hidden).square(), down[layer])
        return rms_norm(x)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats: the plain path."""
        return self.token_losses(tokens, targets).mean()

    def token_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of every target in nats, [B·T]: the plain path."""
        logits = self(tokens)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        capped = SOFT_CAP * torch.tanh(logits / SOFT_CAP)
        return F.cross_entropy(capped.flatten(0, 1), targets.flatten(), reduction="none")

    def mask(self, layer: int) -> Tensor:
        """True where a layer's query t may see key s, [T, T]; made when first asked for."""
        window = self.architecture.windows[layer]
        if window not in self._masks:
            self._masks[window] = window_mask(self.architecture.context, window).to(self.embedding.device)
        return self._masks[window]

    def _attend(self, layer: int, h: Tensor, tokens: Tensor, weights: Tensor, attention: Attention) -> Tensor:
        a = self.architecture
        wq, wk, wv, wo = weights.unbind(0)
        q, k, v = (F.linear(h, w).view(*h.shape[:2], a.heads, a.head_dim) for w in (wq, wk, wv))  # [B, T, H, D]
        if layer in a.value_layers:
            index = a.value_layers.index(layer)
            gate = 2 * torch.sigmoid(F.linear(h[..., : a.gate_channels], self.gates[index].to(h.dtype)))  # [B, T, H]
            values = F.embedding(tokens, self.value_embeddings[index]).to(h.dtype)
            v = v + gate.unsqueeze(-1) * values.view_as(v)
        q, k = (rms_norm(rotate(z, self.cosine, self.sine)) for z in (q, k))
        y = attention(layer, q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))  # [B, H, T, D]
        return F.linear(y.transpose(1, 2).flatten(2), wo)

    def dense_attention(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention with every score computed, and those outside of the layer's window hidden by a mask [T, T]."""
        if self.architecture.windows[layer] >= self.architecture.context:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask(layer))

    def fused_loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats by the hand-written kernels: what :meth:`loss` computes, faster on a CPU."""
        hidden = self._fused_hidden(tokens)
        return kernels.softcap_cross_entropy(hidden, self.unembedding, targets.flatten())

    @torch.no_grad()
    def fused_token_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """What :meth:`token_losses` computes, by the kernels and without gradients."""
        return kernels.token_cross_entropy(self._fused_hidden(tokens), self.unembedding, targets.flatten())

    def _fused_hidden(self, tokens: Tensor) -> Tensor:
        """The normalised last residual stream, [B·T, C]."""
        a = self.architecture
        ids = tokens.flatten()
        x = rms_norm(F.embedding(ids, self.embedding).to(self.compute))
        x0 = x
        attention, up, down = self.attention.unbind(0), self.mlp_up.unbind(0), self.mlp_down.unbind(0)
        gates, tables = self.gates.unbind(0), self.value_embeddings.unbind(0)
        resid, inject = self.resid_lambdas.unbind(0), self.x0_lambdas.unbind(0)
        geometry = kernels.Geometry.of(tokens.shape[0], tokens.shape[1], a.heads, a.head_dim, self.cosine, self.sine)
        for layer in range(a.depth):
            gate = values = None
            if layer in a.value_layers:
                index = a.value_layers.index(layer)
                gate, values = gates[index], F.embedding(ids, tables[index]).to(self.compute)
            x = kernels.attention_block(
                x, x0, resid[layer], inject[layer], attention[layer], gate, values, self.mask(layer), geometry
            )
            x = kernels.mlp_block(x, up[layer], down[layer])
        return rms_norm(x)


def rms_norm(x: Tensor) -> Tensor:
    """``x`` divided by its root mean square over the last dimension."""
    return F.rms_norm(x, (x.shape[-1],), eps=EPSILON)


def rotary_tables(context: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's angle, [T, 1, D/2] each."""
    frequency = ROTARY_BASE ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.outer(torch.arange(context, dtype=torch.float64), frequency)[:, None, :]
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate channel pairs (i, i + D/2) of ``x`` [B, T, H, D] by their position's angle."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine + second * sine, second * cosine - first * sine], dim=-1)


def window_mask(context: int, window: int) -> Tensor:
    """True where query t may see key s, [T, T]: t - window <= s <= t. A window counts the tokens before t."""
    distance = torch.arange(context)[:, None] - torch.arange(context)[None, :]
    return (distance >= 0) & (distance <= window)
