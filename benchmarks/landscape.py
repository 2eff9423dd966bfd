"""How val_bpb answers to single changes of the baseline: the landscape that a search walks on.

    python benchmarks/landscape.py --seeds 3 --budget full

Each change is compared with the baseline of the same seed; the table gives the mean difference and its standard
deviation over seeds. Negative is better.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from gpt_trainer.clock import ClockKind
from gpt_trainer.dataset import Dataset, prepare
from gpt_trainer.device import Device, Precision, open_device
from gpt_trainer.execution import execute
from gpt_trainer.presets import Preset, budget_seconds, find_preset
from gpt_trainer.trial import TrialRequest
from service_kit.parameters import Value
from service_kit.settings import PathSettings

CHANGES: dict[str, dict[str, Value]] = {
    "TOTAL_BATCH_SIZE 2^14": {"TOTAL_BATCH_SIZE": 2**14},
    "TOTAL_BATCH_SIZE 2^12": {"TOTAL_BATCH_SIZE": 2**12},
    "TOTAL_BATCH_SIZE 2^11": {"TOTAL_BATCH_SIZE": 2**11, "DEVICE_BATCH_SIZE": 16},
    "TOTAL_BATCH_SIZE 2^10": {"TOTAL_BATCH_SIZE": 2**10, "DEVICE_BATCH_SIZE": 8},
    "WEIGHT_DECAY 0.1": {"WEIGHT_DECAY": 0.1},
    "WEIGHT_DECAY 0.4": {"WEIGHT_DECAY": 0.4},
    "WINDOW_PATTERN L": {"WINDOW_PATTERN": "L"},
    "EMBEDDING_LR 0.3": {"EMBEDDING_LR": 0.3},
    "EMBEDDING_LR 1.2": {"EMBEDDING_LR": 1.2},
    "UNEMBEDDING_LR 0.002": {"UNEMBEDDING_LR": 0.002},
    "UNEMBEDDING_LR 0.008": {"UNEMBEDDING_LR": 0.008},
    "UNEMBEDDING_LR 0.016": {"UNEMBEDDING_LR": 0.016},
    "MATRIX_LR 0.08": {"MATRIX_LR": 0.08},
    "SCALAR_LR 1.0": {"SCALAR_LR": 1.0},
    "ADAM_BETAS 0.9,0.95": {"ADAM_BETAS": (0.9, 0.95)},
    "WARMUP_RATIO 0.2": {"WARMUP_RATIO": 0.2},
    "WARMDOWN_RATIO 0.3": {"WARMDOWN_RATIO": 0.3},
    "WARMDOWN_RATIO 1.0": {"WARMDOWN_RATIO": 1.0},
    "HEAD_DIM 16": {"HEAD_DIM": 16},
    "HEAD_DIM 64": {"HEAD_DIM": 64},
}
"""Single moves from the laptop preset's baseline; those below 2^12 tokens need a smaller device batch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0 to N-1 of each configuration")
    parser.add_argument("--budget", default="full", help="short, full, or seconds of the virtual clock")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="run only changes whose name contains this text")
    arguments = parser.parse_args()
    preset = find_preset("laptop")
    budget = budget_seconds(preset, arguments.budget)
    cache = PathSettings.load().cache
    dataset = prepare(preset, cache, lambda sentence: print(sentence, file=sys.stderr))
    device = open_device("cpu", arguments.threads, Precision.AUTO, cache)
    seeds = range(arguments.seeds)

    def measure(configuration: dict[str, Value]) -> tuple[list[float], float]:
        return measured(preset, dataset, device, configuration, budget, seeds)

    baseline, steps = measure({})
    print(f"preset {preset.name}, budget {budget:g} s, {steps:g} baseline steps, seeds {len(seeds)}, {device.name}")
    print(f"{'baseline':24} val_bpb {statistics.mean(baseline):.4f}  sd {deviation(baseline):.4f}")
    for name, change in CHANGES.items():
        if arguments.only in name:
            values, steps = measure(change)
            differences = [value - base for value, base in zip(values, baseline, strict=True)]
            print(
                f"{name:24} {statistics.mean(differences):+.4f}  sd {deviation(differences):.4f}  steps {steps:g}",
                flush=True,
            )


def measured(
    preset: Preset, dataset: Dataset, device: Device, configuration: dict[str, Value], budget: float, seeds: range
) -> tuple[list[float], float]:
    """val_bpb for each seed, and the number of optimiser steps."""
    values, steps = list[float](), 0.0
    for seed in seeds:
        result = execute(
            preset, dataset, device, TrialRequest(configuration, seed, budget, ClockKind.VIRTUAL), lambda _: None
        )
        if result.val_bpb is None:
            sys.exit(f"{configuration}: {result.outcome.value}: {result.message}")
        values.append(result.val_bpb)
        steps = result.side_metrics["num_steps"]
    return values, steps


def deviation(values: list[float]) -> float:
    """Sample standard deviation; 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
