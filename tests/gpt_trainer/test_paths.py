"""The GPU's path, whose operations run one by one here: the same numbers as the plain path, for any shape."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from torch import Tensor

from gpt_trainer.architecture import Architecture
from gpt_trainer.device import Device
from gpt_trainer.hyperparameters import Hyperparameters, check
from gpt_trainer.model import GPT
from gpt_trainer.optimizer import MuonAdamW
from gpt_trainer.paths import LossPath, chunked_path, flex_windows, kernel_path, open_model, plain_path
from gpt_trainer.peak_flops import PEAK_FLOPS
from gpt_trainer.presets import PRESETS, Preset

TINY = Architecture(depth=3, width=48, head_dim=12, context=20, vocabulary=50, window_pattern="SL")


def build(dtype: torch.dtype = torch.float64) -> GPT:
    model = GPT(TINY, dtype).to(dtype)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2)
    return model


def batch(rows: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, TINY.vocabulary, (rows, TINY.context + 1), generator=torch.Generator().manual_seed(3))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def loss_and_gradients(model: GPT, path: LossPath, rows: int) -> list[Tensor]:
    model.zero_grad()
    loss = path.loss(*batch(rows))
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("logits", [200, 2**26], ids=["several chunks", "one chunk"])
def test_the_loss_in_chunks_changes_no_number(logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt_trainer.paths.CHUNK_LOGITS", logits)
    model = build()
    expected = loss_and_gradients(model, plain_path(model), rows=3)
    path = chunked_path(model, model.dense_attention, compile_parts=False)
    found = loss_and_gradients(model, path, rows=3)
    assert len(found) == len(expected) == 1 + len(list(model.parameters()))
    for a, b in zip(found, expected, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-9
    losses = path.token_losses(*batch(3))
    assert torch.allclose(losses, model.token_losses(*batch(3)))
    assert not losses.requires_grad


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_windows_by_blocks_change_no_number() -> None:
    model = build()
    path = chunked_path(model, flex_windows(model), compile_parts=False)
    assert model.architecture.windows == (10, 20, 20)
    assert torch.allclose(path.token_losses(*batch(3)), model.token_losses(*batch(3)))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler")
def test_the_compiled_step_takes_the_step_of_the_plain_one(laptop: Preset) -> None:
    h = Hyperparameters.from_configuration(check(laptop, {}))
    plain, compiled = build(torch.float32), build(torch.float32)
    for model, path, compile_updates in (
        (plain, plain_path(plain), False),
        (compiled, chunked_path(compiled, compiled.dense_attention, compile_parts=True), True),
    ):
        optimizer = MuonAdamW(model, h, compile_updates)
        for step in range(3):
            path.loss(*batch(4)).backward()
            optimizer.step(step / 3)
    for a, b in zip(compiled.parameters(), plain.parameters(), strict=True):
        assert float((a - b).detach().norm() / b.detach().norm()) < 1e-3


def test_a_cpu_takes_the_kernels_and_compiles_nothing(laptop: Preset, cpu: Device) -> None:
    h = Hyperparameters.from_configuration(check(laptop, {}))
    opened = open_model(TINY, h, 2, cpu)
    opened.model.initialise(0)
    assert opened.path == kernel_path(opened.model)
    assert opened.compile_seconds is None
    assert opened.path.loss(*batch(2)).item() == pytest.approx(math.log(TINY.vocabulary), rel=0.01)


@pytest.mark.parametrize(
    ("name", "compute", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, 989.5e12),
        ("NVIDIA H100 PCIe", torch.bfloat16, 756.5e12),
        ("NVIDIA H100 80GB HBM3", torch.float32, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", torch.bfloat16, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", torch.bfloat16, None),
        ("AMD EPYC", torch.bfloat16, None),
    ],
)
def test_a_peak_is_known_for_exactly_the_listed_devices(name: str, compute: torch.dtype, peak: float | None) -> None:
    assert Device(torch.device("cpu"), compute, name).peak_flops == peak
    assert all(listed.startswith("NVIDIA ") and 50e12 < flops < 3e15 for listed, flops in PEAK_FLOPS.items())


def test_the_published_model_has_the_published_size() -> None:
    preset = PRESETS["karpathy"]
    h = Hyperparameters.from_configuration(check(preset, {}))
    a = h.architecture(preset)
    assert a.parameters == pytest.approx(50.3e6, rel=0.01)
    assert (a.depth, a.width, a.heads, h.micro_steps(preset)) == (8, 512, 4, 2)
