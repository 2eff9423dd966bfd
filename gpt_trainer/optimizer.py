"""Muon for the matrices inside the blocks, AdamW for everything else.

Notable:
- Muon: Nesterov momentum, then the nearest semi-orthogonal matrix (https://kellerjordan.github.io/posts/muon/)
- Polar Express: a different quintic for each of five iterations, so that no singular value lags (arXiv 2505.16932)
- NorMuon: neurons whose updates are persistently large are scaled down, the update's norm is kept (arXiv 2510.05491)
- cautious weight decay: only weights that the update shrinks anyway are decayed (arXiv 2510.12402)
- AdamW learning rates were tuned at width 768 and scale with (width/768)^-0.5
- learning rates, momentum and decay follow the share of the budget spent, so that every budget is used to its end
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from gpt_trainer.device import compiled
from gpt_trainer.hyperparameters import Hyperparameters
from gpt_trainer.model import GPT

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Coefficients (a, b, c) of x → a·x + b·x³ + c·x⁵ for each iteration, as published with the method."""

MUON_BETA2 = 0.95
"""Decay rate of the second moment in Muon's variance reduction."""

X0_BETA1 = 0.96
"""First-moment decay of the x0 scalars, which are few and noisy; ADAM_BETAS does not apply to them."""

ADAM_EPSILON = 1e-10


def learning_rate_factor(progress: float, h: Hyperparameters) -> float:
    """Share of the peak learning rate after ``progress`` of the budget: linear warm-up, plateau, linear warm-down."""
    if progress < h.warmup_ratio:
        return progress / h.warmup_ratio
    if progress < 1.0 - h.warmdown_ratio or h.warmdown_ratio == 0.0:
        return 1.0
    remaining = (1.0 - progress) / h.warmdown_ratio
    return remaining + (1.0 - remaining) * h.final_lr_frac


def muon_momentum(step: int) -> float:
    """Momentum rises from 0.85 to 0.95 over the first 300 steps."""
    share = min(step / 300, 1.0)
    return 0.85 + 0.10 * share


Scalar = float | Tensor
"""A number; on a GPU a tensor on the host, because a compiled function is compiled anew for every new float."""


@dataclass(frozen=True, slots=True)
class Updates:
    """How the two update rules are carried out."""

    adamw: Callable[..., None]
    muon: Callable[..., Tensor]
    scalar: Callable[[float], Scalar]


@dataclass(slots=True)
class AdamGroup:
    """One parameter under AdamW without weight decay."""

    parameter: Tensor
    peak_lr: float
    beta1: float
    beta2: float
    updates: Updates
    first: Tensor = field(init=False)
    second: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.first, self.second = torch.zeros_like(self.parameter), torch.zeros_like(self.parameter)

    def step(self, count: int, factor: float) -> None:
        """Update the parameter from its gradient; ``count`` is 1 at the first step."""
        assert self.parameter.grad is not None
        adamw(
            self.parameter,
            self.parameter.grad,
            self.first,
            self.second,
            lr=self.peak_lr * factor,
            betas=(self.beta1, self.beta2),
            count=count,
            updates=self.updates,
        )


@dataclass(slots=True)
class MuonGroup:
    """Stacks of matrices of one shape under Muon, each parameter [..., m, n]."""

    parameters: Sequence[Tensor]
    peak_lr: float
    updates: Updates
    momentum_buffer: Tensor = field(init=False)
    """[K, m, n]: K matrices in all."""
    second_moment: Tensor = field(init=False)
    """[K, m, 1] or [K, 1, n]: mean square of each neuron's update, along the longer side."""

    def __post_init__(self) -> None:
        stacked = self._stack(self.parameters)
        self.momentum_buffer = torch.zeros_like(stacked)
        self.second_moment = torch.zeros_like(stacked.narrow(_reduced(stacked), 0, 1))

    def step(self, momentum: float, factor: float, weight_decay: float) -> None:
        """Update every matrix from its gradient."""
        gradients = self._stack([p.grad for p in self.parameters if p.grad is not None])
        weights = self._stack(self.parameters)
        rows, columns = weights.shape[-2:]
        lr = self.peak_lr * factor * max(1.0, rows / columns) ** 0.5
        updated = self.updates.muon(
            weights,
            gradients,
            self.momentum_buffer,
            self.second_moment,
            lr=self.updates.scalar(lr),
            momentum=self.updates.scalar(momentum),
            weight_decay=self.updates.scalar(weight_decay),
        )
        counts = [p.numel() // (rows * columns) for p in self.parameters]
        for parameter, matrices in zip(self.parameters, torch.split(updated, counts), strict=True):
            parameter.copy_(matrices.view_as(parameter))

    @staticmethod
    def _stack(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([t.detach().reshape(-1, *t.shape[-2:]) for t in tensors])


class MuonAdamW:
    """The optimiser of one model: AdamW groups, Muon groups and their schedules."""

    def __init__(self, model: GPT, h: Hyperparameters, compile_updates: bool = False) -> None:
        self._h = h
        updates = compiled_updates() if compile_updates else EAGER
        self._count = 0
        self._parameters = list(model.parameters())
        scale = (model.architecture.width / 768) ** -0.5
        beta1, beta2 = h.adam_betas
        self._adam = [
            AdamGroup(model.unembedding, h.unembedding_lr * scale, beta1, beta2, updates),
            AdamGroup(model.embedding, h.embedding_lr * scale, beta1, beta2, updates),
            AdamGroup(model.value_embeddings, h.embedding_lr * scale, beta1, beta2, updates),
            AdamGroup(model.resid_lambdas, h.scalar_lr * 0.01, beta1, beta2, updates),
            AdamGroup(model.x0_lambdas, h.scalar_lr, X0_BETA1, 0.95, updates),
        ]
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for matrix in (model.attention, model.mlp_up, model.mlp_down, model.gates):
            by_shape.setdefault(matrix.shape[-2:], []).append(matrix)
        self._muon = [MuonGroup(matrices, h.matrix_lr, updates) for matrices in by_shape.values()]

    @torch.no_grad()
    def step(self, progress: float) -> None:
        """Update every parameter from its gradient and clear gradients; ``progress`` is the share of budget spent."""
        factor = learning_rate_factor(progress, self._h)
        weight_decay = self._h.weight_decay * (1.0 - progress)
        for muon_group in self._muon:
            muon_group.step(muon_momentum(self._count), factor, weight_decay)
        self._count += 1
        for adam_group in self._adam:
            adam_group.step(self._count, factor)
        for parameter in self._parameters:
            parameter.grad = None


def adamw(
    parameter: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    count: int,
    updates: Updates | None = None,
) -> None:
    """One AdamW step in place (arXiv 1711.05101), without weight decay; the moments' bias is corrected."""
    (beta1, beta2), how = betas, updates or EAGER
    scalars = (1 - beta1, 1 - beta2, 1 - beta2**count, lr / (1 - beta1**count))
    how.adamw(parameter, gradient, first, second, *map(how.scalar, scalars))


def _adamw(
    parameter: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    toward_first: Scalar,
    toward_second: Scalar,
    correction: Scalar,
    step: Scalar,
) -> None:
    first.lerp_(gradient, toward_first)
    second.lerp_(gradient.square(), toward_second)
    root = (second / correction).sqrt() + ADAM_EPSILON
    parameter.sub_(first / root * step)


def muon(
    weights: Tensor,
    gradients: Tensor,
    momentum_buffer: Tensor,
    second_moment: Tensor,
    *,
    lr: Scalar,
    momentum: Scalar,
    weight_decay: Scalar,
) -> Tensor:
    """The weights [K, m, n] after one Muon step; both buffers are updated in place."""
    momentum_buffer.lerp_(gradients, 1 - momentum)
    update = gradients.lerp(momentum_buffer, momentum)  # Nesterov
    update = reduce_variance(orthogonalise(update), second_moment)
    shrinks = (update * weights) >= 0
    return weights - lr * (update + weight_decay * weights * shrinks)


EAGER = Updates(_adamw, muon, float)


@cache
def compiled_updates() -> Updates:
    """The same rules, each fused into a few kernels for the shapes that it meets."""
    return Updates(compiled(_adamw), compiled(muon), lambda value: torch.tensor(value, dtype=torch.float32))


def orthogonalise(matrices: Tensor) -> Tensor:
    """Each of ``matrices`` [K, m, n] with its singular values moved close to 1."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT  # the smaller side squared
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    found: Tensor = x.mT if tall else x
    return found.to(matrices.dtype)


def reduce_variance(update: Tensor, second_moment: Tensor) -> Tensor:
    """``update`` [K, m, n] with each neuron divided by its running root mean square, its overall norm unchanged."""
    dimension = _reduced(update)
    mean_square = update.square().mean(dim=dimension, keepdim=True)
    norm = mean_square.sum(dim=(-2, -1), keepdim=True).sqrt()
    second_moment.lerp_(mean_square, 1 - MUON_BETA2)
    scale = second_moment.clamp_min(1e-10).rsqrt()
    scaled_norm = (mean_square * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    return update * scale * (norm / scaled_norm.clamp_min(1e-10))


def _reduced(matrices: Tensor) -> int:
    """The dimension that a neuron's mean square is taken over: the shorter side's."""
    return -1 if matrices.shape[-2] >= matrices.shape[-1] else -2
