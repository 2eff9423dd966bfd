"""The model against an independent float64 implementation, and the fused kernels against the plain path."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gpt_trainer.architecture import Architecture
from gpt_trainer.model import GPT

TINY = Architecture(depth=3, width=48, head_dim=12, context=16, vocabulary=50, window_pattern="SL")


def build(architecture: Architecture = TINY, dtype: torch.dtype = torch.float64) -> GPT:
    """A model with every parameter away from its initial value, so that every path carries gradient."""
    model = GPT(architecture, dtype).to(dtype)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2)
        model.resid_lambdas += 1.0
    return model


def batch(rows: int = 3, architecture: Architecture = TINY) -> tuple[Tensor, Tensor]:
    ids = torch.randint(
        0, architecture.vocabulary, (rows, architecture.context + 1), generator=torch.Generator().manual_seed(3)
    )
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def reference_loss(model: GPT, tokens: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every target, [B, T], by loops over positions and heads; shares nothing with the package."""
    a = model.architecture
    half = a.head_dim // 2

    def norm(v: Tensor) -> Tensor:
        return v / torch.sqrt((v * v).sum() / v.numel() + 1e-6)

    def turn(v: Tensor, position: int) -> Tensor:
        out = torch.empty_like(v)
        for i in range(half):
            angle = position / 10_000 ** (2 * i / a.head_dim)
            out[i] = v[i] * math.cos(angle) + v[i + half] * math.sin(angle)
            out[i + half] = -v[i] * math.sin(angle) + v[i + half] * math.cos(angle)
        return out

    losses = []
    for row, answer in zip(tokens.tolist(), targets.tolist(), strict=True):
        x = [norm(model.embedding[token]) for token in row]
        x0 = list(x)
        for layer in range(a.depth):
            letter = (a.window_pattern * a.depth)[layer]
            window = a.context if layer == a.depth - 1 or letter == "L" else a.context // 2
            x = [model.resid_lambdas[layer] * v + model.x0_lambdas[layer] * v0 for v, v0 in zip(x, x0, strict=True)]
            normed = [norm(v) for v in x]
            wq, wk, wv, wo = model.attention[layer]
            mixed = [[torch.zeros(0, dtype=torch.float64)] * a.heads for _ in row]
            for head in range(a.heads):
                rows = slice(head * a.head_dim, (head + 1) * a.head_dim)
                q = [norm(turn(wq[rows] @ h, t)) for t, h in enumerate(normed)]
                k = [norm(turn(wk[rows] @ h, t)) for t, h in enumerate(normed)]
                v = [wv[rows] @ h for h in normed]
                if (a.depth - 1 - layer) % 2 == 0:
                    table = a.value_layers.index(layer)
                    for t, token in enumerate(row):
                        opened = 2 / (1 + torch.exp(-(model.gates[table][head] @ normed[t][: a.gate_channels])))
                        v[t] = v[t] + opened * model.value_embeddings[table][token][rows]
                for t in range(len(row)):
                    seen = [s for s in range(t + 1) if t - s <= window]
                    weights = torch.softmax(torch.stack([q[t] @ k[s] for s in seen]) / math.sqrt(a.head_dim), 0)
                    mixed[t][head] = sum(w * v[s] for w, s in zip(weights, seen, strict=True))  # type: ignore[call-overload]
            x = [v + wo @ torch.cat(m) for v, m in zip(x, mixed, strict=True)]
            x = [v + model.mlp_down[layer] @ (model.mlp_up[layer] @ norm(v)).clamp(min=0) ** 2 for v in x]
        logits = torch.stack([15 * torch.tanh(model.unembedding @ norm(v) / 15) for v in x])
        losses.append(
            torch.stack([torch.logsumexp(z, 0) - z[target] for z, target in zip(logits, answer, strict=True)])
        )
    return torch.stack(losses)


def gradients(
    model: GPT, loss_of: Callable[[Tensor, Tensor], Tensor], tokens: Tensor, targets: Tensor
) -> dict[str, Tensor]:
    model.zero_grad()
    loss_of(tokens, targets).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("path", ["loss", "fused_loss"])
def test_loss_and_every_gradient_agree_with_an_independent_float64_implementation(path: str) -> None:
    model, (tokens, targets) = build(), batch(rows=2)
    expected = gradients(model, lambda x, y: reference_loss(model, x, y).mean(), tokens, targets)
    found = gradients(model, getattr(model, path), tokens, targets)
    assert getattr(model, path)(tokens, targets).item() == pytest.approx(
        reference_loss(model, tokens, targets).mean().item(), rel=1e-9
    )
    assert set(found) == set(expected) == {name for name, _ in model.named_parameters()}
    for name, gradient in found.items():
        assert difference(gradient, expected[name]) < 1e-6, name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_the_fused_path_in_short_formats_stays_close_to_float64(dtype: torch.dtype, tolerance: float) -> None:
    exact, short = build(), GPT(TINY, dtype)
    short.load_state_dict({name: value.float() for name, value in exact.state_dict().items()})
    tokens, targets = batch(rows=8)
    expected = gradients(exact, exact.loss, tokens, targets)
    for name, gradient in gradients(short, short.fused_loss, tokens, targets).items():
        assert difference(gradient.double(), expected[name]) < tolerance, name


def test_chunked_kernels_agree_with_the_plain_path_beyond_one_chunk() -> None:
    architecture = Architecture(depth=2, width=32, head_dim=8, context=40, vocabulary=30, window_pattern="S")
    model, (tokens, targets) = build(architecture), batch(rows=9, architecture=architecture)  # 360 tokens, 36 heads
    expected = gradients(model, model.loss, tokens, targets)
    for name, gradient in gradients(model, model.fused_loss, tokens, targets).items():
        assert difference(gradient, expected[name]) < 1e-6, name
    assert torch.allclose(model.fused_token_losses(tokens, targets), model.token_losses(tokens, targets), atol=1e-9)


def test_an_untrained_model_knows_nothing() -> None:
    model = GPT(TINY)
    model.initialise(seed=1)
    assert model.loss(*batch()).item() == pytest.approx(math.log(TINY.vocabulary), abs=1e-3)


def test_a_token_never_sees_what_follows_it_nor_what_its_window_hides() -> None:
    architecture = Architecture(depth=2, width=16, head_dim=8, context=16, vocabulary=20, window_pattern="S")
    model, (tokens, _) = build(architecture), batch(rows=1, architecture=architecture)
    changed = tokens.clone()
    changed[0, 9] = (changed[0, 9] + 1) % 20
    moved = (model(tokens) - model(changed)).abs().amax(-1)[0] > 1e-12
    assert not moved[:9].any()
    assert moved[9:].all()
    assert architecture.windows == (8, 16)
    assert model.mask(0).sum(1).tolist() == [min(t, 8) + 1 for t in range(16)]


def test_initialisation_depends_on_the_seed_alone() -> None:
    first, second, other = (GPT(TINY) for _ in range(3))
    first.initialise(5)
    torch.rand(100)
    second.initialise(5)
    other.initialise(6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.embedding, other.embedding)


@pytest.mark.parametrize(("depth", "width", "head_dim"), [(1, 32, 8), (2, 64, 32), (5, 48, 12)])
def test_the_architecture_counts_the_parameters_that_are_built(depth: int, width: int, head_dim: int) -> None:
    architecture = Architecture(depth, width, head_dim, 16, 50, "SSSL")
    assert sum(p.numel() for p in GPT(architecture).parameters()) == architecture.parameters
