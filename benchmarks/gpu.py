"""Speed, memory and correctness of the training step on a GPU, at the published model's real shapes.

    python benchmarks/gpu.py                     # on a machine with an NVIDIA GPU; no network, about five minutes
    python benchmarks/gpu.py --autoresearch ../autoresearch
    python benchmarks/gpu.py --tiny              # on a CPU, in seconds: shows that the script runs, measures nothing

Run it from the repository's root; it needs torch 2.11 or later, numpy and tokenizers. The text is Python's standard
library in 8,192 tokens. Compared are our step (compiled, FlexAttention windows, chunked loss), the plain step of the
same architecture (the same model as written, operation by operation), that model compiled as a whole, and, where a
checkout is given, Karpathy's, compiled as in its script, with FlexAttention in the place of the FlashAttention 3 that
it downloads. Steps are timed in turns by events of the device; the median counts. A contestant that runs out of memory
is tried again with half the rows, and says so. Correctness is the relative error of the loss and of all gradients
against float64. The last line is everything as JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package need not be installed there

import torch
from peers import load_autoresearch
from torch import Tensor

from gpt_trainer.architecture import Architecture
from gpt_trainer.batches import TrainingBatches
from gpt_trainer.corpus import find_corpus
from gpt_trainer.dataset import prepare_corpus
from gpt_trainer.device import Device, Precision, compiled, open_device
from gpt_trainer.hyperparameters import Hyperparameters, check
from gpt_trainer.model import GPT
from gpt_trainer.optimizer import MuonAdamW
from gpt_trainer.paths import Losses, LossPath, chunked_path, flex_windows, plain_path
from gpt_trainer.presets import STANDARD_LIBRARY, find_preset

OURS, PLAIN, WHOLE, PEER = "ours", "plain step", "plain step, compiled", "autoresearch"


@dataclass(slots=True)
class Contestant:
    """A training step to be timed."""

    name: str
    take_step: Callable[[], None]
    rows: int
    """Rows of one pass."""
    first_seconds: float
    """Of the first step: compilation is in it."""
    seconds: list[float] = field(default_factory=list)
    peak_memory_gb: float = 0.0
    """Of its steps, with its own parameters and without those of the others."""
    own_mb: float = 0.0
    """What it holds between steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoresearch", type=Path, help="checkout of karpathy/autoresearch, as a peer")
    parser.add_argument("--rows", type=int, default=128, help="rows of one pass; halved where memory does not do")
    parser.add_argument("--steps", type=int, default=10, help="timed optimiser steps of each contestant, at most")
    parser.add_argument("--minutes", type=float, default=8.0, help="nothing more is begun after this time")
    parser.add_argument("--cache", type=Path, help="folder of prepared data and compiled code; else a temporary one")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU, nothing compiled")
    arguments = parser.parse_args()
    ends_at = time.monotonic() + 60 * arguments.minutes
    if not arguments.tiny and not torch.cuda.is_available():
        sys.exit("device: no CUDA GPU that torch can use; run with --tiny to see the script work on a CPU")
    with tempfile.TemporaryDirectory() as temporary:
        measure(arguments, arguments.cache or Path(temporary), ends_at)


def measure(arguments: argparse.Namespace, cache: Path, ends_at: float) -> None:
    """Everything, printed as a table and as JSON."""
    device = open_device("cpu" if arguments.tiny else arguments.device, 1, Precision.AUTO, cache)
    a, h = shapes(arguments.tiny, arguments.rows)
    said: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "device": device.name, "torch": str(torch.__version__),
        "precision": str(device.compute).removeprefix("torch."), "tiny": arguments.tiny,
        "parameters": a.parameters, "context": a.context, "tokens_a_step": h.total_batch_size,
    }  # fmt: skip
    print(f"{said['date']}  {device.name}, torch {torch.__version__}, {said['precision']}")
    dataset = prepare_corpus(find_corpus(STANDARD_LIBRARY, cache), a.vocabulary, a.context, cache, say)
    said["relative_error"] = correctness(a, device, compile_parts=not arguments.tiny)
    contestants, failures = [], {}
    for name, opener in openers(arguments, a, h, device).items():
        say(f"opening {name}; the first step compiles what is to be compiled")
        batches, held = TrainingBatches(dataset.rows("train"), 0, device.torch_device), held_mb(device)
        if time.monotonic() > ends_at:
            failures[name] = "not begun: the time was over"
            continue
        try:
            contestants.append(open_contestant(name, opener, h, a, device, batches))
        except Exception as error:  # noqa: BLE001 (a contestant that cannot run must not hide what the others measured)
            failures[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        release(device)
        if name not in failures:
            contestants[-1].own_mb = held_mb(device) - held
    race(contestants, device, arguments.steps, ends_at)
    report(contestants, failures, a, h, device, said)


def shapes(tiny: bool, rows: int) -> tuple[Architecture, Hyperparameters]:
    """The published model's, or for ``tiny`` some that a CPU runs in no time."""
    preset = find_preset("karpathy")
    h = replace(Hyperparameters.from_configuration(check(preset, {})), device_batch_size=rows)
    if tiny:
        h = replace(h, depth=2, aspect_ratio=16, head_dim=16, device_batch_size=4, total_batch_size=2 * 4 * 64)
        preset = replace(preset, context=64, vocabulary=512)
    return h.architecture(preset), h


def openers(
    arguments: argparse.Namespace, a: Architecture, h: Hyperparameters, device: Device
) -> dict[str, Callable[[], tuple[Losses, Callable[[], None]]]]:
    """For each contestant what makes its loss and its optimiser's step."""
    on_gpu = not arguments.tiny

    def own(path_of: Callable[[GPT], LossPath], compile_updates: bool) -> tuple[Losses, Callable[[], None]]:
        model = GPT(a, device.compute).to(device.torch_device)
        model.initialise(0)
        optimizer = MuonAdamW(model, h, compile_updates)
        return path_of(model).loss, lambda: optimizer.step(0.25)

    def ours(model: GPT) -> LossPath:
        return chunked_path(model, windows(model, device), compile_parts=on_gpu)

    def whole(model: GPT) -> LossPath:
        return LossPath(compiled(model.loss) if on_gpu else model.loss, model.token_losses)

    def peer() -> tuple[Losses, Callable[[], None]]:
        stand_in = flash_attention_by_blocks(a, device) if on_gpu else None
        found = load_autoresearch(arguments.autoresearch, a, h, device.torch_device, stand_in)
        loss = torch.compile(found.loss, dynamic=False) if on_gpu else found.loss  # as its script does

        def optimize() -> None:
            found.optimizer.step()
            found.model.zero_grad(set_to_none=True)

        def cast_loss(tokens: Tensor, targets: Tensor) -> Tensor:
            with found.autocast():
                answer: Tensor = loss(tokens, targets)
            return answer

        return cast_loss, optimize

    made = {
        OURS: lambda: own(ours, on_gpu),
        PLAIN: lambda: own(plain_path, False),
        WHOLE: lambda: own(whole, on_gpu),
    }
    return {**made, PEER: peer} if arguments.autoresearch else made


def windows(model: GPT, device: Device) -> Callable[..., Tensor]:
    """FlexAttention, which has no backward pass on a CPU: there the dense one."""
    return model.dense_attention if device.is_cpu else flex_windows(model)


def flash_attention_by_blocks(a: Architecture, device: Device) -> Callable[..., Tensor]:
    """FlashAttention 3's interface on our attention, so that a peer is not slowed down by what it cannot download."""
    attention = flex_windows(GPT(a).to(device.torch_device))
    layers = {window: layer for layer, window in enumerate(a.windows)}

    def flash(q: Tensor, k: Tensor, v: Tensor, causal: bool, window_size: tuple[int, int]) -> Tensor:
        q, k, v = (z.to(v.dtype).transpose(1, 2) for z in (q, k, v))
        return attention(layers[window_size[0]], q, k, v).transpose(1, 2)

    return flash


def open_contestant(
    name: str,
    opener: Callable[[], tuple[Losses, Callable[[], None]]],
    h: Hyperparameters,
    a: Architecture,
    device: Device,
    batches: TrainingBatches,
) -> Contestant:
    """A contestant after its first step, with as many rows a pass as memory allows. Raises what that step raises."""
    rows = h.device_batch_size
    while True:
        try:
            began = time.perf_counter()
            loss_of, optimize = opener()
            take_step = step_of(loss_of, optimize, batches, rows, h.total_batch_size // (rows * a.context))
            take_step()
            device.synchronise()
            return Contestant(name, take_step, rows, time.perf_counter() - began)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            rows //= 2
        release(device)


def step_of(
    loss_of: Losses, optimize: Callable[[], None], batches: TrainingBatches, rows: int, micro_steps: int
) -> Callable[[], None]:
    def take_step() -> None:
        for _ in range(micro_steps):
            (loss_of(*batches.take(rows)) / micro_steps).backward()  # type: ignore[no-untyped-call]
        optimize()

    return take_step


def race(contestants: list[Contestant], device: Device, steps: int, ends_at: float) -> None:
    """Time one step of each in turn; every contestant's memory is measured alone in its turn."""
    gc.collect()
    gc.disable()
    for _ in range(steps):
        for contestant in contestants:
            if time.monotonic() > ends_at and contestant.seconds:
                return
            others_mb = held_mb(device) - contestant.own_mb
            device.reset_peak_memory()
            stopwatch = device.stopwatch()
            stopwatch.start()
            contestant.take_step()
            stopwatch.stop()
            device.synchronise()
            contestant.seconds.append(stopwatch.read()[0])
            contestant.peak_memory_gb = max(contestant.peak_memory_gb, (device.peak_memory_mb() - others_mb) / 2**10)


def correctness(a: Architecture, device: Device, compile_parts: bool) -> dict[str, float]:
    """Relative errors of our path against float64 on two rows: of the loss, and the largest of any gradient."""
    kind = torch.float32 if device.torch_device.type == "mps" else torch.float64
    exact = GPT(a, kind).to(device.torch_device, kind)
    exact.initialise(0)
    with torch.no_grad():
        for (
            parameter
        ) in exact.parameters():  # away from the zeros of a fresh model, so that every path carries gradient
            generator = torch.Generator().manual_seed(parameter.numel())
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator).to(parameter))
    short = GPT(a, device.compute).to(device.torch_device)
    short.load_state_dict(exact.state_dict())
    ids = torch.randint(0, a.vocabulary, (2, a.context + 1), generator=torch.Generator().manual_seed(1))
    tokens, targets = ids[:, :-1].to(device.torch_device), ids[:, 1:].to(device.torch_device)
    expected = exact.loss(tokens, targets)
    found = chunked_path(short, windows(short, device), compile_parts).loss(tokens, targets)
    expected.backward()  # type: ignore[no-untyped-call]
    found.backward()  # type: ignore[no-untyped-call]
    pairs = zip(short.named_parameters(), exact.parameters(), strict=True)
    errors = {name: relative_error(p.grad, q.grad) for (name, p), q in pairs}
    return {"loss": relative_error(found.detach(), expected.detach()), **errors}


def relative_error(found: Tensor | None, expected: Tensor | None) -> float:
    assert found is not None
    assert expected is not None
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def held_mb(device: Device) -> float:
    """Memory in use on a GPU; 0 on a CPU, where only the whole process can be measured."""
    return torch.cuda.memory_allocated(device.torch_device) / 2**20 if device.torch_device.type == "cuda" else 0.0


def release(device: Device) -> None:
    gc.collect()
    device.release_memory()


def report(
    contestants: list[Contestant],
    failures: dict[str, str],
    a: Architecture,
    h: Hyperparameters,
    device: Device,
    said: dict[str, Any],
) -> None:
    """Print the table and the JSON line."""
    said |= {"contestants": {}, "failures": failures, "peak_flops": device.peak_flops}
    print(f"{a.parameters / 1e6:.1f} M parameters, context {a.context}, {h.total_batch_size} tokens a step")
    print(f"{'':24}{'tokens/s':>12}{'MFU %':>9}{'peak GB':>9}{'rows':>6}{'steps':>7}{'first s':>9}")
    for c in contestants:
        speed = h.total_batch_size / statistics.median(c.seconds)
        utilisation = 100 * a.flops_per_token * speed / device.peak_flops if device.peak_flops else None
        shown = f"{utilisation:9.1f}" if utilisation is not None else f"{'unknown':>9}"
        print(
            f"{c.name:24}{speed:12,.0f}{shown}{c.peak_memory_gb:9.2f}{c.rows:6}{len(c.seconds):7}{c.first_seconds:9.1f}"
        )
        said["contestants"][c.name] = {
            "tokens_per_second": speed, "mfu_percent": utilisation, "peak_memory_gb": c.peak_memory_gb, "rows": c.rows,
            "step_seconds": c.seconds, "first_step_seconds": c.first_seconds,
        }  # fmt: skip
    for name, failure in failures.items():
        print(f"{name:24} failed: {failure}")
    worst = max((name for name in said["relative_error"] if name != "loss"), key=said["relative_error"].__getitem__)
    print(
        f"relative error against float64: loss {said['relative_error']['loss']:.1e}, "
        f"gradients at most {said['relative_error'][worst]:.1e} ({worst})"
    )
    if said["tiny"]:
        print("tiny shapes on a CPU: these figures say nothing about a GPU")
    print(json.dumps(said))
    if failures:
        sys.exit(1)


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
