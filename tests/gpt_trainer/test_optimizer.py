"""Muon, AdamW and their schedules, each against a plain implementation."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from gpt_trainer.architecture import Architecture
from gpt_trainer.hyperparameters import Hyperparameters, check
from gpt_trainer.model import GPT
from gpt_trainer.optimizer import (
    MuonAdamW,
    adamw,
    learning_rate_factor,
    muon,
    muon_momentum,
    orthogonalise,
    reduce_variance,
)
from gpt_trainer.presets import PRESETS

H = Hyperparameters.from_configuration(check(PRESETS["laptop"], {}))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_adamw_takes_the_steps_of_torch() -> None:
    ours, first, second = noise(7, 5), torch.zeros(7, 5).double(), torch.zeros(7, 5).double()
    theirs = torch.nn.Parameter(ours.clone())
    peer = torch.optim.AdamW([theirs], lr=0.03, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0)
    for count in range(1, 6):
        theirs.grad = noise(7, 5, seed=count)
        adamw(ours, theirs.grad, first, second, lr=0.03, betas=(0.8, 0.95), count=count)
        peer.step()
    assert torch.allclose(ours, theirs.detach(), rtol=1e-9)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 64, 16), (2, 16, 64)])
def test_orthogonalisation_brings_every_singular_value_near_one(shape: tuple[int, ...]) -> None:
    matrices = noise(*shape)
    found = orthogonalise(matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.7
    assert values.max() < 1.3
    alignment = (found * (left @ right)).sum() / (found.norm() * (left @ right).norm())
    assert alignment > 0.98


@pytest.mark.parametrize("shape", [(2, 12, 5), (2, 5, 12)])
def test_variance_reduction_evens_out_neurons_and_keeps_the_norm(shape: tuple[int, int, int]) -> None:
    update = noise(*shape)
    along = 2 if shape[1] >= shape[2] else 1
    update.select(3 - along, 0).mul_(10)
    moment = torch.zeros_like(update.narrow(along, 0, 1))
    for _ in range(200):
        reduced = reduce_variance(update, moment)
    sizes = reduced.square().mean(dim=along)
    assert torch.allclose(reduced.norm(dim=(1, 2)), update.norm(dim=(1, 2)))
    assert (sizes.amax(-1) / sizes.amin(-1)).max() < 1.01
    assert moment.shape[along] == 1


def test_a_muon_step_is_momentum_then_orthogonalisation_then_cautious_decay() -> None:
    weights, gradients, lr, decay, momentum = noise(1, 6, 6), noise(1, 6, 6, seed=1), 0.1, 0.5, 0.9
    buffer, moment = noise(1, 6, 6, seed=2), torch.rand(1, 6, 1, dtype=torch.float64)
    averaged = buffer * momentum + gradients * (1 - momentum)
    direction = reduce_variance(orthogonalise(gradients * (1 - momentum) + averaged * momentum), moment.clone())
    expected = weights.clone()
    for i in range(6):
        for j in range(6):
            step = direction[0, i, j]
            shrinking = step * weights[0, i, j] >= 0
            expected[0, i, j] -= lr * step + (lr * decay * weights[0, i, j] if shrinking else 0.0)
    found = muon(weights, gradients, buffer, moment, lr=lr, momentum=momentum, weight_decay=decay)
    assert torch.allclose(found, expected)
    assert torch.allclose(buffer, averaged)


def test_learning_rates_warm_up_hold_and_warm_down_by_progress() -> None:
    h = dataclasses.replace(H, warmup_ratio=0.2, warmdown_ratio=0.5, final_lr_frac=0.1)
    points = {0.0: 0.0, 0.1: 0.5, 0.2: 1.0, 0.49: 1.0, 0.5: 1.0, 0.75: 0.55, 1.0: 0.1}
    for progress, factor in points.items():
        assert learning_rate_factor(progress, h) == pytest.approx(factor), progress
    flat = dataclasses.replace(H, warmup_ratio=0.0, warmdown_ratio=0.0)
    assert learning_rate_factor(0.0, flat) == learning_rate_factor(1.0, flat) == 1.0


def test_muon_momentum_rises_over_three_hundred_steps() -> None:
    assert [muon_momentum(step) for step in (0, 150, 300, 1000)] == pytest.approx([0.85, 0.90, 0.95, 0.95])


def test_every_parameter_moves_and_gradients_are_cleared() -> None:
    architecture = Architecture(2, 64, 32, 16, 50, "SSSL")
    model = GPT(architecture)
    model.initialise(0)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = MuonAdamW(model, H)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(progress=0.0)
    for (name, parameter), old in zip(model.named_parameters(), before, strict=True):
        assert not torch.equal(parameter, old), name
        assert parameter.grad is None, name


def test_a_tiny_model_learns_a_batch_by_heart() -> None:
    architecture = Architecture(2, 64, 32, 16, 50, "SSSL")
    model = GPT(architecture)
    model.initialise(0)
    optimizer = MuonAdamW(model, dataclasses.replace(H, unembedding_lr=0.04))
    ids = torch.randint(0, 50, (4, 17), generator=torch.Generator().manual_seed(1))
    for step in range(60):
        loss = model.fused_loss(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        loss.backward()
        optimizer.step(step / 60)
    assert loss.item() < 0.05 < math.log(50)
