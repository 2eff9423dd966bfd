from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt_trainer.dataset import Dataset, prepare
from gpt_trainer.device import Device, Precision, open_device
from gpt_trainer.presets import PRESETS, Preset
from service_kit.settings import PathSettings


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """A second thread beside a busy neighbour makes tiny models many times slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def laptop() -> Preset:
    return PRESETS["laptop"]


@pytest.fixture(scope="session")
def cache() -> Path:
    """The real cache: what it holds follows from its own names, and preparing takes some seconds only once."""
    return PathSettings.load().cache


@pytest.fixture(scope="session")
def dataset(laptop: Preset, cache: Path) -> Dataset:
    return prepare(laptop, cache)


@pytest.fixture(scope="session")
def cpu(cache: Path) -> Device:
    return open_device("cpu", 1, Precision.AUTO, cache)
