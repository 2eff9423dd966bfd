"""Hand-written forward and backward passes for a CPU: the model's own arithmetic with fewer trips through memory.

Why they win over autograd and fused attention on a CPU:
- activations stay in the compute format (bfloat16 where it is fast); weights are cast once a pass
- attention is written out as matrix products: the CPU's flash backward is the slowest part of an eager step
- queries and keys have unit RMS, so a score is at most sqrt(D) and ``exp`` needs no running maximum
- the output layer, soft cap and cross-entropy work on a few hundred tokens at a time, so logits never leave the cache

Each function states its plain form; the tests compare both, gradients included. Shapes: N = B·T tokens, C width,
H heads, D head channels, V vocabulary, F hidden width of the MLP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

EPSILON = 1e-6
"""Added to a mean square before its root."""

SOFT_CAP = 15.0
"""Logits are squashed into ±SOFT_CAP."""

LOSS_CHUNK = 256
"""Tokens whose logits are held at once: 256 by 1,024 float32 is one megabyte, a core's second-level cache."""

SCORE_CHUNK = 16
"""Heads (of all rows together) whose attention scores are held at once, for the same reason."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How N tokens divide into rows and C channels into heads, and the rotary tables."""

    rows: int
    context: int
    heads: int
    head_dim: int
    cosine: Tensor
    """[T, 2, H, D]: of query and key, whole heads."""
    sine: Tensor
    """[T, 2, H, D]: negative for the second half of a head."""

    @classmethod
    def of(cls, rows: int, context: int, heads: int, head_dim: int, cosine: Tensor, sine: Tensor) -> Geometry:
        """From tables [T, 1, D/2], which are written out: a product that broadcasts takes twice as long."""
        shape = (context, 2, heads, head_dim)
        whole = (torch.cat(halves, -1)[:, None].expand(shape) for halves in ((cosine, cosine), (sine, -sine)))
        return cls(rows, context, heads, head_dim, *(table.contiguous() for table in whole))


def attention_block(
    x: Tensor,
    x0: Tensor,
    resid: Tensor,
    inject: Tensor,
    weights: Tensor,
    gate: Tensor | None,
    values: Tensor | None,
    mask: Tensor,
    geometry: Geometry,
) -> Tensor:
    """``s = resid·x + inject·x0; return s + attention(rms_norm(s))`` on x, x0 [N, C].

    ``weights`` [4, C, C] are query, key, value, output; ``gate`` [H, G] and ``values`` [N, C] belong to a value layer;
    ``mask`` [T, T] is True where attention may look.
    """
    return _AttentionBlock.apply(x, x0, resid, inject, weights, gate, values, mask, geometry)  # type: ignore[no-any-return, no-untyped-call]


def mlp_block(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """``x + relu(rms_norm(x) @ up.T)² @ down.T`` on x [N, C], up [F, C], down [C, F]."""
    return _MLPBlock.apply(x, up, down)  # type: ignore[no-any-return, no-untyped-call]


ChunkGradient = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From hidden [n, C], unembedding [V, C] and targets [n]: their loss in nats, and a quarter of its gradient by the
logits [n, V], in hidden's format."""


def softcap_cross_entropy(
    hidden: Tensor,
    unembedding: Tensor,
    targets: Tensor,
    chunk: int = LOSS_CHUNK,
    chunk_gradient: ChunkGradient | None = None,
) -> Tensor:
    """Mean cross-entropy in nats of softly capped logits: hidden [N, C], unembedding [V, C], targets [N].

    Holds the logits of ``chunk`` tokens at a time. ``chunk_gradient`` replaces this file's CPU version.
    """
    return _SoftcapCrossEntropy.apply(hidden, unembedding, targets, chunk, chunk_gradient or _chunk_gradient)  # type: ignore[no-any-return, no-untyped-call]


def token_cross_entropy(hidden: Tensor, unembedding: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each target, [N], without gradients."""
    w = unembedding.to(hidden.dtype).t()
    losses = []
    for h, target in zip(torch.split(hidden, LOSS_CHUNK), torch.split(targets, LOSS_CHUNK), strict=True):
        capped = _below_cap(h, w).mul_(-2 * SOFT_CAP)
        losses.append(torch.log_softmax(capped, 1).gather(1, target[:, None])[:, 0].neg_())
    return torch.cat(losses)


def _below_cap(hidden: Tensor, w: Tensor) -> Tensor:
    """How far each logit stays below the cap: ``r = (1 - tanh(z / SOFT_CAP)) / 2`` in (0, 1), in a wide format.

    The capped logit is ``SOFT_CAP - 2·SOFT_CAP·r``, and softmax does not see the constant. A sigmoid is half the work
    of a tanh here, and its argument's factor costs nothing inside the product.
    """
    z = torch.addmm(hidden.new_empty(()), hidden, w, beta=0, alpha=-2 / SOFT_CAP)
    return z.to(wide(z)).sigmoid_()


def wide(x: Tensor) -> torch.dtype:
    """The format in which sums over ``x`` are kept: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def _sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """``(a·b).sum()`` in a wide format; torch's bfloat16 dot product is eight times slower."""
    return (a * b).sum(dtype=wide(a))


def _normalise(x: Tensor) -> tuple[Tensor, Tensor]:
    """RMS norm over the last dimension and the reciprocal root that it used."""
    mean_square = torch.linalg.vecdot(x, x).unsqueeze(-1).to(wide(x)).div_(x.shape[-1])
    r = mean_square.add_(EPSILON).rsqrt_().to(x.dtype)
    return x * r, r


def _normalise_backward(grad: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Gradient of :func:`_normalise`, given its output ``y`` and reciprocal root ``r``."""
    projection = torch.linalg.vecdot(grad, y).unsqueeze(-1).div_(-y.shape[-1])
    return torch.addcmul(grad, y, projection).mul_(r)


class _AttentionBlock(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        x0: Tensor,
        resid: Tensor,
        inject: Tensor,
        weights: Tensor,
        gate: Tensor | None,
        values: Tensor | None,
        mask: Tensor,
        geometry: Geometry,
    ) -> Tensor:
        g, dtype = geometry, x.dtype
        n, c = x.shape
        w = weights.to(dtype)
        s = (x * resid.to(dtype)).addcmul_(x0, inject.to(dtype))
        h, r = _normalise(s)
        qkv = (h @ w[:3].view(3 * c, c).t()).view(g.rows, g.context, 3, g.heads, g.head_dim)

        normed, qk_r = _normalise(qkv[:, :, :2])  # [B, T, 2, H, D]; norm and rotation commute
        qk = torch.empty(2, g.rows, g.heads, g.context, g.head_dim, dtype=dtype)
        _rotate_into(qk.permute(1, 3, 0, 2, 4), normed, g.cosine, g.sine)
        v = torch.empty(g.rows, g.heads, g.context, g.head_dim, dtype=dtype)
        opened = None
        if gate is not None and values is not None:
            opened = torch.sigmoid_(h[:, : gate.shape[1]] @ gate.to(dtype).t()).mul_(2)  # [N, H]
            spread = opened.view(g.rows, g.context, g.heads, 1)
            torch.addcmul(qkv[:, :, 2], spread, values.view_as(qkv[:, :, 2]), out=v.transpose(1, 2))
        else:
            v.transpose(1, 2).copy_(qkv[:, :, 2])

        shape = (g.rows * g.heads, g.context, g.head_dim)
        qk, v = qk.view(2, *shape), v.view(shape)
        o, e, inverse = _attend(qk, v, mask)
        merged = o.view(g.rows, g.heads, g.context, g.head_dim).transpose(1, 2).reshape(n, c)
        y = torch.addmm(s, merged, w[3].t())

        ctx.geometry = g
        ctx.save_for_backward(
            x, x0, resid, inject, w, gate, values, h, r, normed, qk_r, qk, v, o, e, inverse, merged, opened
        )
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        g: Geometry = ctx.geometry
        x, x0, resid, inject, w, gate, values, h, r, normed, qk_r, qk, v, o, e, inverse, merged, opened = (
            ctx.saved_tensors
        )
        n, c = x.shape
        dw = torch.empty_like(w)
        torch.mm(dy.t(), merged, out=dw[3])
        do = (dy @ w[3]).view(g.rows, g.context, g.heads, g.head_dim).transpose(1, 2).reshape_as(o)

        dqk, dv = _attend_backward(do, qk, v, o, e, inverse)
        split = (2, g.rows, g.heads, g.context, g.head_dim)
        dnormed = torch.empty_like(normed)
        _rotate_into(dnormed, dqk.view(split).permute(1, 3, 0, 2, 4), g.cosine, -g.sine)
        dqkv = torch.empty(g.rows, g.context, 3, g.heads, g.head_dim, dtype=x.dtype)
        dqkv[:, :, :2] = _normalise_backward(dnormed, normed, qk_r)
        dv = dv.view(split[1:]).transpose(1, 2)  # [B, T, H, D]
        dqkv[:, :, 2] = dv
        flat = dqkv.view(n, 3 * c)
        torch.mm(flat.t(), h, out=dw[:3].view(3 * c, c))
        dh = flat @ w[:3].view(3 * c, c)

        dgate = dvalues = None
        if opened is not None:
            spread = opened.view(g.rows, g.context, g.heads, 1)
            dvalues = (dv * spread).reshape(n, c)
            dopened = torch.linalg.vecdot(dv, values.view_as(dv)).view(n, g.heads)
            dopened = (
                dopened * opened * (1 - opened / 2)
            )  # opened = 2·sigmoid(a), so its slope is opened·(1 - opened/2)
            channels = gate.shape[1]
            dgate = (dopened.t() @ h[:, :channels]).to(gate.dtype)
            dh[:, :channels] += dopened @ gate.to(x.dtype)

        ds = _normalise_backward(dh, h, r).add_(dy)
        dresid, dinject = _sum_of_products(ds, x), _sum_of_products(ds, x0)
        dx, dx0 = ds * resid.to(x.dtype), ds * inject.to(x.dtype)
        return dx, dx0, dresid, dinject, dw.to(wide(w)), dgate, dvalues, None, None


def _rotate_into(out: Tensor, x: Tensor, cosine: Tensor, sine: Tensor) -> None:
    """Rotate channel pairs (i, i + D/2) of ``x`` into ``out``; with ``-sine`` it is its own inverse and transpose.

    Works on whole heads with the halves swapped: operations on half heads are too short for the vector unit.
    """
    first, second = x.chunk(2, dim=-1)
    swapped = torch.cat([second, first], dim=-1)
    torch.add(x * cosine, swapped.mul_(sine), out=out)


def _attend(qk: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax attention on qk [2, B·H, T, D] and v [B·H, T, D]: output, weights [B·H, T, T], their reciprocal sums."""
    q, k = qk
    visible, scale, unused = mask.to(q.dtype), q.shape[-1] ** -0.5, q.new_empty(())
    o, e = torch.empty_like(q), torch.empty(q.shape[0], q.shape[1], q.shape[1], dtype=q.dtype)
    inverse = torch.empty(*q.shape[:2], 1, dtype=q.dtype)
    for i in range(0, q.shape[0], SCORE_CHUNK):
        chunk = slice(i, i + SCORE_CHUNK)
        scores = torch.baddbmm(unused, q[chunk], k[chunk].transpose(1, 2), beta=0, alpha=scale, out=e[chunk])
        scores.exp_().mul_(visible)
        inverse[chunk] = scores.sum(-1, keepdim=True).reciprocal_()
        torch.bmm(scores, v[chunk], out=o[chunk]).mul_(inverse[chunk])
    return o, e, inverse


def _attend_backward(do: Tensor, qk: Tensor, v: Tensor, o: Tensor, e: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`_attend` with respect to qk [2, B·H, T, D] and v."""
    dqk, dv = torch.empty_like(qk), torch.empty_like(v)
    scale, unused = v.shape[-1] ** -0.5, v.new_empty(())
    do = do * inverse
    centre = torch.linalg.vecdot(do, o).unsqueeze(-1).neg_()
    for i in range(0, do.shape[0], SCORE_CHUNK):
        chunk = slice(i, i + SCORE_CHUNK)
        torch.bmm(e[chunk].transpose(1, 2), do[chunk], out=dv[chunk])
        ds = torch.bmm(do[chunk], v[chunk].transpose(1, 2)).add_(centre[chunk]).mul_(e[chunk])
        torch.baddbmm(unused, ds, qk[1, chunk], beta=0, alpha=scale, out=dqk[0, chunk])
        torch.baddbmm(unused, ds.transpose(1, 2), qk[0, chunk], beta=0, alpha=scale, out=dqk[1, chunk])
    return dqk, dv


class _MLPBlock(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        w1, w2 = up.to(x.dtype), down.to(x.dtype)
        h, r = _normalise(x)
        active = torch.relu_(h @ w1.t())  # [N, F]
        squared = active.square()
        ctx.save_for_backward(h, r, w1, w2, active, squared)
        return torch.addmm(x, squared, w2.t())

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, r, w1, w2, active, squared = ctx.saved_tensors
        kept = wide(h)
        ddown = (dy.t() @ squared).to(kept)
        dhidden = torch.addmm(dy.new_empty(()), dy, w2, beta=0, alpha=2).mul_(active)
        dup = (dhidden.t() @ h).to(kept)
        return _normalise_backward(dhidden @ w1, h, r).add_(dy), dup, ddown


class _SoftcapCrossEntropy(Function):
    """Computes both gradients in the forward pass, chunk by chunk, so that no logits are kept."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, unembedding: Tensor, targets: Tensor, chunk: int, chunk_gradient: ChunkGradient
    ) -> Tensor:
        kept = wide(hidden)
        w = unembedding.to(hidden.dtype)
        n = hidden.shape[0]
        dhidden, dw = torch.empty_like(hidden), torch.zeros_like(unembedding, dtype=kept)
        total, unused = torch.zeros((), dtype=torch.float64, device=hidden.device), hidden.new_empty(())
        for i in range(0, n, chunk):
            h = hidden[i : i + chunk]
            nats, quarter = chunk_gradient(h, w, targets[i : i + chunk])
            total += nats
            torch.addmm(unused, quarter, w, beta=0, alpha=4 / n, out=dhidden[i : i + chunk])
            dw.add_(quarter.t() @ h, alpha=4 / n)
        ctx.save_for_backward(dhidden, dw)
        return (total / n).to(kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dhidden, dw = ctx.saved_tensors
        return dhidden * grad.to(dhidden.dtype), dw * grad, None, None, None


def _chunk_gradient(h: Tensor, w: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    r = _below_cap(h, w.t())  # [n, V]
    p = torch.softmax(r * (-2 * SOFT_CAP), 1)
    at_target = p.gather(1, target[:, None])
    nats = at_target.log().sum().neg_()
    p.scatter_(1, target[:, None], at_target.sub_(1))
    return nats, p.mul_(r.addcmul_(r, r, value=-1)).to(h.dtype)  # the cap's slope, 1 - tanh², is 4·(r - r²)
