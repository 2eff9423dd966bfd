"""How fast a training step is beside other trainers', on this CPU, at the laptop preset's shapes.

    python benchmarks/trainer_peers.py --autoresearch ../autoresearch --nanochat ../nanochat --threads 1 2

Every contestant trains on the same batches, one optimiser step at a time in turn, so that a busy moment of the machine
hits all of them; medians and ratios follow. The same turns time the step's matrix products alone, which bound any
implementation, and at the end a profile says where our step's time goes. Wall-clock time decides; with one thread the
CPU time of the step, which a neighbour disturbs less, is shown too.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from peers import Peer, load_autoresearch, load_nanochat
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from gpt_trainer.allocator import keep_freed_memory
from gpt_trainer.architecture import MLP_RATIO, Architecture
from gpt_trainer.device import cpu_name
from gpt_trainer.hyperparameters import Hyperparameters, check
from gpt_trainer.kernels import LOSS_CHUNK, SCORE_CHUNK
from gpt_trainer.model import GPT
from gpt_trainer.optimizer import MuonAdamW
from gpt_trainer.presets import find_preset

Step = Callable[[list[tuple[Tensor, Tensor]]], float]

OURS, PLAIN, BOUND, KARPATHY = "ours", "ours, plain path", "matrix products alone", "autoresearch"

KINDS = {
    "matrix products": "mm addmm bmm baddbmm",
    "exponentials and roots": "exp exp_ log log_ rsqrt_ reciprocal_ sigmoid_ sqrt sqrt_ _softmax _log_softmax",
    "copies and conversions": "copy_ cat clone zero_ fill_",
    "sums and norms": "sum mean linalg_vector_norm linalg_vecdot",
    "table look-ups": "embedding index_select gather scatter_ embedding_dense_backward",
    "elementwise arithmetic": "mul mul_ add add_ sub sub_ div div_ addcmul addcmul_ lerp lerp_ square pow pow_ neg "
    "neg_ relu_ clamp_min clamp_min_ ge",
}
"""Operations by what they spend time on; what is in none of them is overhead."""
"""Operations by what they spend time on; what is in none of them is elementwise arithmetic or overhead."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoresearch", type=Path, help="checkout of karpathy/autoresearch")
    parser.add_argument("--nanochat", type=Path, help="checkout of karpathy/nanochat")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15, help="timed optimiser steps of each contestant")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16", help="of our own steps")
    parser.add_argument("--json", type=Path, help="write every number to this file too")
    arguments = parser.parse_args()
    if len(arguments.threads) > 1:  # torch settles its thread pool once, so each count gets a process of its own
        sys.exit(max(subprocess.call(_one_count(sys.argv[1:], count)) for count in arguments.threads))
    threads = arguments.threads[0]
    torch.set_num_threads(threads)
    keep_freed_memory()  # as our workers do; everyone here gains by it
    steps, h, a = contestants(arguments)
    seconds, cpu = race(steps, h, a, arguments.rounds)
    report(seconds, cpu, h, a, threads, arguments)
    shares = where_time_goes(steps[OURS], h, a)
    print(
        "\nour step's own CPU time, by operation: " + ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
    )
    if arguments.json:
        record = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"), "cpu": cpu_name(), "torch": torch.__version__,
            "threads": threads, "tokens_a_step": h.total_batch_size, "seconds": seconds, "cpu_seconds": cpu,
            "shares": shares, "load": os.getloadavg(),
        }  # fmt: skip
        with arguments.json.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _one_count(argv: list[str], count: int) -> list[str]:
    start = argv.index("--threads")
    end = next((i for i in range(start + 1, len(argv)) if argv[i].startswith("-")), len(argv))
    return [sys.executable, __file__, *argv[:start], *argv[end:], "--threads", str(count)]


def contestants(arguments: argparse.Namespace) -> tuple[dict[str, Step], Hyperparameters, Architecture]:
    """One step function each, by name, and the shapes that they share."""
    preset = find_preset("laptop")
    h = Hyperparameters.from_configuration(check(preset, {}))
    a = h.architecture(preset)
    cpu, compute = torch.device("cpu"), getattr(torch, arguments.precision)
    steps: dict[str, Step] = {OURS: ours(a, h, compute, fused=True), PLAIN: ours(a, h, compute, fused=False)}
    if arguments.autoresearch:
        steps[KARPATHY] = load_autoresearch(arguments.autoresearch, a, h, cpu, None).step
    if arguments.nanochat:
        for precision in ("float32", "bfloat16"):
            peer: Peer = load_nanochat(arguments.nanochat, a, h, cpu, precision)
            steps[peer.name] = peer.step
    steps[BOUND] = matrix_products(a, h, compute)
    return steps, h, a


def ours(a: Architecture, h: Hyperparameters, compute: torch.dtype, fused: bool) -> Step:
    """Our optimiser step, as :func:`gpt_trainer.training.train` takes it."""
    model = GPT(a, compute)
    model.initialise(0)
    optimizer = MuonAdamW(model, h)
    loss_of = model.fused_loss if fused else model.loss

    def step(batches: list[tuple[Tensor, Tensor]]) -> float:
        total = torch.zeros(())
        for tokens, targets in batches:
            loss = loss_of(tokens, targets) / len(batches)
            loss.backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        optimizer.step(0.25)
        return total.item()

    return step


def matrix_products(a: Architecture, h: Hyperparameters, compute: torch.dtype) -> Step:
    """Every product that a forward and backward pass cannot do without, on data that is already where it is needed."""
    rows = h.device_batch_size
    n, c, f = rows * a.context, a.width, MLP_RATIO * a.width

    def triple(tokens: int, inner: int, outer: int, times: int) -> list[tuple[Tensor, Tensor, int]]:
        x, w, dy = (torch.randn(*shape).to(compute) for shape in ((tokens, inner), (outer, inner), (tokens, outer)))
        return [(x, w.t(), times), (dy, w, times), (dy.t(), x, times)]

    products = triple(n, c, 3 * c, a.depth) + triple(n, c, c, a.depth)
    products += triple(n, c, f, a.depth) + triple(n, f, c, a.depth)
    products += triple(LOSS_CHUNK, c, a.vocabulary, n // LOSS_CHUNK)
    q, k = (torch.randn(SCORE_CHUNK, a.context, a.head_dim).to(compute) for _ in range(2))
    e = torch.randn(SCORE_CHUNK, a.context, a.context).to(compute)
    blocks = a.depth * rows * a.heads // SCORE_CHUNK
    batched = [(q, k.mT, 2 * blocks), (e, q, 2 * blocks), (e.mT, q, 2 * blocks)]  # scores, output and their gradients
    outputs = [torch.empty(*x.shape[:-1], y.shape[-1], dtype=compute) for x, y, _ in (*products, *batched)]

    def step(batches: list[tuple[Tensor, Tensor]]) -> float:
        for _ in batches:
            for (x, y, times), out in zip((*products, *batched), outputs, strict=True):
                for _ in range(times):
                    torch.matmul(x, y, out=out)
        return 0.0

    return step


def batches_of(h: Hyperparameters, a: Architecture, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Fresh random tokens of one optimiser step."""
    count = h.total_batch_size // (h.device_batch_size * a.context)
    ids = torch.randint(0, a.vocabulary, (count, h.device_batch_size, a.context + 1), generator=generator)
    return [(rows[:, :-1].contiguous(), rows[:, 1:].contiguous()) for rows in ids]


def race(
    steps: dict[str, Step], h: Hyperparameters, a: Architecture, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Wall-clock and CPU seconds of every step, after two that do not count."""
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    generator = torch.Generator().manual_seed(0)
    gc.collect()
    gc.disable()
    for turn in range(rounds + 2):
        batches = batches_of(h, a, generator)
        for name, step in steps.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            step(batches)
            if turn >= 2:
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - began_cpu)
    gc.enable()
    return wall, cpu


def report(
    wall: dict[str, list[float]],
    cpu: dict[str, list[float]],
    h: Hyperparameters,
    a: Architecture,
    threads: int,
    arguments: argparse.Namespace,
) -> None:
    """Print the table of one thread count."""
    print(
        f"\n{datetime.now(UTC):%Y-%m-%d}  {cpu_name()}, torch {torch.__version__}, {threads} thread(s), "
        f"{arguments.precision}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    print(
        f"laptop preset: {h.total_batch_size} tokens a step, {a.parameters:,} parameters, "
        f"{a.flops_per_token / 1e6:.2f} MFLOP a token; median of {arguments.rounds} interleaved steps"
    )
    base = KARPATHY if KARPATHY in wall else PLAIN
    columns = f"{'':24}{'k tokens/s':>11}{'fastest':>9}{f'x {base}':>18}{'quartiles':>14}"
    print(columns + (f"{'x by CPU time':>15}" if threads == 1 else ""))
    for name, seconds in wall.items():
        ratios = [theirs / mine for theirs, mine in zip(wall[base], seconds, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        line = f"{name:24}{h.total_batch_size / statistics.median(seconds) / 1e3:11.1f}"
        line += f"{h.total_batch_size / min(seconds) / 1e3:9.1f}{middle:18.2f}{f'{low:.2f}-{high:.2f}':>14}"
        if threads == 1:
            line += f"{statistics.median(cpu[base]) / statistics.median(cpu[name]):15.2f}"
        print(line)
    utilisation = statistics.median(b / o for b, o in zip(wall[BOUND], wall[OURS], strict=True))
    flops = a.flops_per_token * h.total_batch_size / statistics.median(wall[BOUND])
    print(f"our utilisation of what the products alone reach ({flops / 1e9:.0f} GFLOP/s): {utilisation:.1%}")


def where_time_goes(step: Step, h: Hyperparameters, a: Architecture) -> dict[str, float]:
    """Shares of our step's own CPU time by kind of operation."""
    batches = batches_of(h, a, torch.Generator().manual_seed(1))
    with profile(activities=[ProfilerActivity.CPU]) as measured:
        for _ in range(3):
            step(batches)
    times = {event.key: event.self_cpu_time_total for event in measured.key_averages()}
    total = sum(times.values())
    shares = {
        kind: sum(times.get(f"aten::{name}", 0.0) for name in names.split()) / total for kind, names in KINDS.items()
    }
    shares["rest"] = 1.0 - sum(shares.values())
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    main()
