"""Trials in this process: what they return, and that nothing of one reaches the next."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from gpt_trainer import execution
from gpt_trainer.clock import ClockKind
from gpt_trainer.dataset import Dataset
from gpt_trainer.device import Device, Precision, open_device
from gpt_trainer.evaluation import bits_per_byte
from gpt_trainer.execution import execute
from gpt_trainer.hyperparameters import Hyperparameters, check
from gpt_trainer.model import GPT
from gpt_trainer.presets import Preset
from gpt_trainer.trial import Plan, Progress, TrialRequest, TrialResult, plan
from service_kit.parameters import Outcome, Split, Value

EXPLODING: dict[str, Value] = {"MATRIX_LR": 1.0, "EMBEDDING_LR": 10.0, "UNEMBEDDING_LR": 1.0, "SCALAR_LR": 10.0}


@pytest.fixture(scope="module")
def quick(laptop: Preset) -> Preset:
    return dataclasses.replace(laptop, evaluation_tokens=2048)


def run(
    preset: Preset, dataset: Dataset, cpu: Device, seed: int = 0, budget: float = 0.4, **changes: Value
) -> TrialResult:
    return execute(preset, dataset, cpu, TrialRequest(changes, seed, budget), lambda _: None)


def test_the_order_of_trials_does_not_change_their_results(quick: Preset, dataset: Dataset, cpu: Device) -> None:
    first = run(quick, dataset, cpu)
    run(quick, dataset, cpu, seed=5, TOTAL_BATCH_SIZE=2**12, HEAD_DIM=16)
    assert run(quick, dataset, cpu, **EXPLODING).outcome is Outcome.DIVERGED
    torch.rand(17)
    again = run(quick, dataset, cpu)
    assert first.outcome is Outcome.SUCCEEDED
    assert again.val_bpb == first.val_bpb
    assert again.side_metrics["train_loss"] == first.side_metrics["train_loss"]
    assert run(quick, dataset, cpu, seed=1).val_bpb != first.val_bpb


def test_a_result_says_what_was_done_and_what_it_depends_on(quick: Preset, dataset: Dataset, cpu: Device) -> None:
    seen: list[Progress] = []
    result = execute(quick, dataset, cpu, TrialRequest({}, 0, 0.4), seen.append)
    assert result.val_bpb is not None
    assert 2.0 < result.val_bpb < 5.0
    m = result.side_metrics
    assert m["total_tokens"] == m["num_steps"] * 2**13 == seen[-1].tokens
    assert m["training_seconds"] <= 0.4
    assert m["total_seconds"] >= m["training_wall_seconds"] > 0
    assert m["peak_memory_mb"] > 50
    assert seen[0].step == 1
    assert [p.phase for p in seen[-2:]] == ["training", "evaluating"]
    assert result.identity["corpus"] == dataset.corpus
    assert {"tokenizer", "code", "clock", "device", "precision", "torch"} <= set(result.identity)
    assert TrialResult.from_json(json.loads(json.dumps(asdict(result)))) == result


def test_both_splits_measure_different_text(quick: Preset, dataset: Dataset, cpu: Device) -> None:
    search, held_out = (
        execute(quick, dataset, cpu, TrialRequest({}, 0, 0.2, split=split), lambda _: None) for split in Split
    )
    assert search.val_bpb != held_out.val_bpb
    assert search.side_metrics["train_loss"] == held_out.side_metrics["train_loss"]


def test_the_metric_of_an_untrained_model_is_the_cost_of_guessing(quick: Preset, dataset: Dataset, cpu: Device) -> None:
    model = GPT(Hyperparameters.from_configuration(check(quick, {})).architecture(quick))
    model.initialise(0)
    found = bits_per_byte(model, dataset, "search", 2048, cpu)
    rows = dataset.rows("search")
    bytes_a_token = sum(dataset.token_bytes[t] for t in rows[:, 1:].ravel()) / rows[:, 1:].size
    assert found == pytest.approx(math.log2(quick.vocabulary) / bytes_a_token, rel=0.1)


def test_an_exploding_loss_is_divergence_without_a_metric(quick: Preset, dataset: Dataset, cpu: Device) -> None:
    result = run(quick, dataset, cpu, budget=1.0, **EXPLODING)
    assert result.outcome is Outcome.DIVERGED
    assert result.val_bpb is None
    assert "step" in result.message


def test_a_loss_that_is_not_a_number_is_divergence(
    quick: Preset, dataset: Dataset, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned = GPT.initialise

    def initialise(model: GPT, seed: int) -> None:
        poisoned(model, seed)
        model.x0_lambdas.data.fill_(math.nan)

    monkeypatch.setattr(GPT, "initialise", initialise)
    result = run(quick, dataset, cpu)
    assert result.outcome is Outcome.DIVERGED
    assert "nan" in result.message


def test_a_combination_that_cannot_be_built_is_infeasible(quick: Preset, dataset: Dataset, cpu: Device) -> None:
    result = run(quick, dataset, cpu, TOTAL_BATCH_SIZE=2**11)
    assert result.outcome is Outcome.INFEASIBLE
    assert "at most 16" in result.message


@pytest.mark.parametrize(
    "refusal",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore advice"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_refused_memory_is_out_of_memory_on_every_device(
    quick: Preset, dataset: Dataset, cpu: Device, monkeypatch: pytest.MonkeyPatch, refusal: BaseException
) -> None:
    def greedy(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(execution, "train", greedy)
    result = run(quick, dataset, cpu)
    assert (result.outcome, result.val_bpb) == (Outcome.OUT_OF_MEMORY, None)
    assert "lower DEVICE_BATCH_SIZE" in result.message
    assert "More advice" not in result.message


def test_a_bug_is_raised_and_never_turned_into_an_outcome(
    quick: Preset, dataset: Dataset, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Plan:
        raise RuntimeError("a bug")

    monkeypatch.setattr(execution, "plan", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run(quick, dataset, cpu)


def test_the_wall_clock_stops_training_too(quick: Preset, dataset: Dataset, cpu: Device) -> None:
    result = execute(quick, dataset, cpu, TrialRequest({}, 0, 0.3, ClockKind.WALL), lambda _: None)
    assert result.outcome is Outcome.SUCCEEDED
    assert result.side_metrics["training_seconds"] >= 0.3
    assert result.identity["clock"] == "wall"


def test_estimates_come_at_fixed_shares_of_the_budget_and_change_no_result(
    quick: Preset, dataset: Dataset, cpu: Device
) -> None:
    seen: list[Progress] = []
    request = TrialRequest({"TOTAL_BATCH_SIZE": 2**12}, 0, 0.8)
    looked = execute(quick, dataset, cpu, request, seen.append)
    blind = execute(dataclasses.replace(quick, estimates_at=()), dataset, cpu, request, lambda _: None)
    assert looked.val_bpb == blind.val_bpb
    assert looked.side_metrics["num_steps"] == blind.side_metrics["num_steps"]
    assert looked.side_metrics["estimate_seconds"] > blind.side_metrics["estimate_seconds"] == 0
    step = plan(quick, request).step_seconds / request.budget
    estimated = [progress for progress in seen if progress.val_bpb_estimate is not None]
    assert [progress.phase for progress in estimated] == ["training"] * 3
    for progress, share in zip(estimated, quick.estimates_at, strict=True):
        assert share <= progress.fraction < share + step
    first, *_, last = (progress.val_bpb_estimate for progress in estimated)
    assert first is not None
    assert last is not None
    assert looked.val_bpb is not None
    assert first > last > looked.val_bpb - 0.3


def test_a_busy_machine_gives_the_same_result(quick: Preset, dataset: Dataset, cpu: Device) -> None:
    idle = run(quick, dataset, cpu)
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        busy = run(quick, dataset, cpu)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    assert busy.val_bpb == idle.val_bpb
    assert busy.side_metrics["num_steps"] == idle.side_metrics["num_steps"]


@pytest.mark.long
@pytest.mark.timeout(600)  # two threads beside a busy neighbour are many times slower
def test_one_and_two_threads_agree_within_a_thousandth(laptop: Preset, dataset: Dataset, cache: Path) -> None:
    try:
        one, two = (
            run(laptop, dataset, open_device("cpu", threads, Precision.AUTO, cache), budget=laptop.budgets["short"])
            for threads in (1, 2)
        )
    finally:
        torch.set_num_threads(1)
    assert one.val_bpb == pytest.approx(two.val_bpb, abs=0.001)


@pytest.mark.long
def test_a_smaller_batch_is_better_and_a_larger_one_worse_at_the_short_budget(
    laptop: Preset, dataset: Dataset, cpu: Device
) -> None:
    budget = laptop.budgets["short"]
    base, larger, smaller = (
        run(laptop, dataset, cpu, budget=budget, **changes)
        for changes in ({}, {"TOTAL_BATCH_SIZE": 2**14}, {"TOTAL_BATCH_SIZE": 2**12})
    )
    assert base.val_bpb is not None
    assert larger.val_bpb is not None
    assert smaller.val_bpb is not None
    assert larger.val_bpb > base.val_bpb + 0.05
    assert smaller.val_bpb < base.val_bpb - 0.05
