"""The virtual clock against the processor: no configuration may cost much more than it is charged."""

from __future__ import annotations

import random
import time

import pytest

from gpt_trainer.batches import TrainingBatches
from gpt_trainer.dataset import Dataset
from gpt_trainer.device import Device
from gpt_trainer.hyperparameters import check
from gpt_trainer.model import GPT
from gpt_trainer.optimizer import MuonAdamW
from gpt_trainer.presets import Preset
from gpt_trainer.training import accumulate
from gpt_trainer.trial import TrialRequest, plan
from service_kit.parameters import InvalidConfiguration, Value


def real_over_charge(preset: Preset, dataset: Dataset, cpu: Device, changes: dict[str, Value]) -> float:
    """Processor seconds of an optimiser step, the least of some, over what it is charged."""
    planned = plan(preset, TrialRequest(changes, 0, 3600.0))
    h = planned.hyperparameters
    model = GPT(planned.architecture, cpu.compute)
    model.initialise(0)
    optimizer, batches = MuonAdamW(model, h), TrainingBatches(dataset.rows("train"), 0, cpu.torch_device)
    fastest = float("inf")
    for _ in range(max(3, min(40, int(1.0 / planned.step_seconds)))):
        began = time.process_time()
        accumulate(model.fused_loss, batches, h.device_batch_size, planned.micro_steps)
        optimizer.step(0.0)
        fastest = min(fastest, time.process_time() - began)
    return fastest / planned.step_seconds


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_random_configuration_really_costs_much_more_than_it_is_charged(
    laptop: Preset, dataset: Dataset, cpu: Device
) -> None:
    generator, sampled = random.Random(0), list[dict[str, Value]]()
    while len(sampled) < 24:
        changes: dict[str, Value] = {
            "HEAD_DIM": generator.choice([8, 16, 32, 64]),
            "DEVICE_BATCH_SIZE": 2 ** generator.randint(0, 9),
            "TOTAL_BATCH_SIZE": 2 ** generator.randint(7, 16),
            "WINDOW_PATTERN": generator.choice(["L", "S", "SSSL"]),
        }
        try:
            check(laptop, changes)
        except InvalidConfiguration:
            continue
        sampled.append(changes)
    # Who shares the processor's caches makes single measurements dear: what seems so is measured again beside the
    # baseline before it is believed.
    dear = sampled
    for _ in range(3):
        baseline = real_over_charge(laptop, dataset, cpu, {})
        dear = [changes for changes in dear if real_over_charge(laptop, dataset, cpu, changes) / baseline > 1.5]
    assert not dear
