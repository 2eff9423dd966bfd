"""Carry out one trial in this process, from initialisation to metric, and give every ending its outcome."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from gpt_trainer.batches import open_batches
from gpt_trainer.checkpoint import save
from gpt_trainer.clock import REFERENCE_CORE, Clock, ClockKind, VirtualClock, WallClock
from gpt_trainer.dataset import Dataset
from gpt_trainer.device import Device
from gpt_trainer.evaluation import ROWS_AT_A_TIME, bits_per_byte
from gpt_trainer.optimizer import MuonAdamW
from gpt_trainer.paths import open_model
from gpt_trainer.presets import Preset
from gpt_trainer.training import DivergenceError, Estimates, Training, train
from gpt_trainer.trial import Plan, Progress, TrialRequest, TrialResult, code_identity, plan, result_lines
from service_kit.parameters import InvalidConfiguration, Outcome, Split

_ALLOCATION_FAILURES = ("can't allocate memory", "not enough memory", "std::bad_alloc", "out of memory")
"""What torch's CPU allocator and its libraries say when the system refuses memory."""


def execute(
    preset: Preset,
    dataset: Dataset,
    device: Device,
    request: TrialRequest,
    report: Callable[[Progress], None],
    keep: Path | None = None,
) -> TrialResult:
    """Run a trial to its end. Nothing of an earlier trial in this process has an influence.

    A model whose trial succeeded is written to ``keep``.

    Divergence, an infeasible combination and refused memory are outcomes; any other exception is a bug and is raised.
    """
    try:
        planned = plan(preset, request)
        return _run(preset, dataset, device, request, planned, report, keep)
    except InvalidConfiguration as error:
        return TrialResult(Outcome.INFEASIBLE, message=str(error))
    except DivergenceError as error:
        return TrialResult(Outcome.DIVERGED, message=str(error))
    except (MemoryError, torch.OutOfMemoryError) as error:
        return _out_of_memory(error)
    except RuntimeError as error:
        if any(sign in str(error) for sign in _ALLOCATION_FAILURES):
            return _out_of_memory(error)
        raise


def _run(
    preset: Preset,
    dataset: Dataset,
    device: Device,
    request: TrialRequest,
    planned: Plan,
    report: Callable[[Progress], None],
    keep: Path | None,
) -> TrialResult:
    began = time.perf_counter()
    gc.collect()
    device.release_memory()
    torch.manual_seed(request.seed)
    opened = open_model(planned.architecture, planned.hyperparameters, ROWS_AT_A_TIME, device)
    model, path = opened.model, opened.path
    model.initialise(request.seed)
    device.reset_peak_memory()
    optimizer = MuonAdamW(model, planned.hyperparameters, compile_updates=opened.compile_seconds is not None)
    clock = _clock(request, planned, device)
    estimates = Estimates(
        preset.estimates_at, lambda: bits_per_byte(path, dataset, Split.SEARCH.value, preset.estimate_tokens, device)
    )
    rows = planned.hyperparameters.device_batch_size
    with open_batches(dataset.rows("train"), request.seed, device.torch_device, rows) as batches:
        training = train(path, optimizer, batches, planned, clock, device, report, estimates)

    evaluation_began = time.perf_counter()
    report(
        Progress(
            "evaluating",
            1.0,
            training.steps,
            training.tokens,
            training.train_loss,
            training.clock_seconds,
            evaluation_began - began,
        )
    )
    val_bpb = bits_per_byte(path, dataset, request.split.value, preset.evaluation_tokens, device)
    if not math.isfinite(val_bpb):
        raise DivergenceError(f"validation loss is {val_bpb} after {training.steps} steps")
    ended = time.perf_counter()
    side_metrics = {
        **_training_metrics(training, planned, device),
        "evaluation_seconds": ended - evaluation_began,
        "estimate_seconds": training.estimate_seconds,
        "total_seconds": ended - began,
        "peak_memory_mb": device.peak_memory_mb(),
    }
    if opened.compile_seconds is not None:
        side_metrics["compile_seconds"] = opened.compile_seconds
    result = TrialResult(Outcome.SUCCEEDED, val_bpb, side_metrics, identity=_identity(dataset, device, request))
    if keep is not None:
        save(keep, model, dataset.load_tokenizer(), result_lines(result, request))
    return result


def _clock(request: TrialRequest, planned: Plan, device: Device) -> Clock:
    if request.clock is ClockKind.VIRTUAL:
        return VirtualClock(request.budget, planned.step_seconds)
    return WallClock(request.budget, device.stopwatch())


def _training_metrics(training: Training, planned: Plan, device: Device) -> dict[str, float]:
    metrics = {
        "num_steps": float(training.steps),
        "total_tokens": float(training.tokens),
        "train_loss": training.train_loss,
        "training_seconds": training.clock_seconds,
        "training_wall_seconds": training.wall_seconds,
        "tokens_per_second": training.tokens / training.wall_seconds,
        "epochs": float(training.epochs),
        "num_params_M": planned.architecture.parameters / 1e6,
    }
    if device.peak_flops is not None:
        achieved = planned.architecture.flops_per_token * training.tokens / training.wall_seconds
        metrics["mfu_percent"] = 100.0 * achieved / device.peak_flops
    return metrics


def _identity(dataset: Dataset, device: Device, request: TrialRequest) -> dict[str, str]:
    return {
        "corpus": dataset.corpus,
        "tokenizer": dataset.tokenizer,
        "code": code_identity(),
        "clock": REFERENCE_CORE.version if request.clock is ClockKind.VIRTUAL else request.clock.value,
        "device": device.name,
        "precision": str(device.compute).removeprefix("torch."),
        "torch": str(torch.__version__),
    }


def _out_of_memory(error: BaseException) -> TrialResult:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return TrialResult(
        Outcome.OUT_OF_MEMORY, message=f"the device refused memory ({first_line}); lower DEVICE_BATCH_SIZE"
    )
