"""What TensorBoard reads of a trial, and what a person reads where the package is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from gpt_trainer.event_files import EventFiles, check_tensorboard, trial_folder
from gpt_trainer.trial import Progress, TrialResult
from service_kit.errors import ServiceError
from service_kit.parameters import Outcome


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every scalar in a folder, by name."""
    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_losses_estimates_and_the_metric_are_scalars_over_tokens(tmp_path: Path) -> None:
    with EventFiles(tmp_path) as files:
        files.record(Progress("training", 0.25, 1, 4096, 6.5, 1.0, 2.0))
        files.record(Progress("training", 0.5, 2, 8192, 6.0, 2.0, 4.0, val_bpb_estimate=2.75))
        files.record(Progress("evaluating", 1.0, 4, 16384, 5.5, 4.0, 8.0))
        files.record(TrialResult(Outcome.SUCCEEDED, 2.5, {"num_steps": 4.0}))
    found = scalars(tmp_path)
    assert found["train/loss"] == [(4096, 6.5), (8192, 6.0)]
    assert found["train/tokens_per_second"] == [(4096, 2048.0), (8192, 2048.0)]
    assert found["validation/bpb_estimate"] == [(8192, 2.75)]
    assert found["validation/bpb"] == [(16384, 2.5)]
    assert found["result/num_steps"] == [(16384, 4.0)]


def test_a_failed_trial_has_no_metric(tmp_path: Path) -> None:
    with EventFiles(tmp_path) as files:
        files.record(Progress("training", 0.25, 1, 4096, 6.5, 1.0, 2.0))
        files.record(TrialResult(Outcome.DIVERGED, message="training loss"))
    assert "validation/bpb" not in scalars(tmp_path)


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ServiceError, match=r"bilevel-autoresearch\[tensorboard\]"):
        check_tensorboard()


def test_a_folder_that_cannot_be_written_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ServiceError, match="Give --tensorboard another folder"):
        EventFiles(tmp_path / "file" / "runs")


def test_every_trial_of_a_server_has_a_folder_of_its_own(tmp_path: Path) -> None:
    assert trial_folder(tmp_path, "runs/a/trials/7", 3) == tmp_path / "runs-a-trials-7-0003"
    assert trial_folder(tmp_path, "../..", 4) == tmp_path / "trial-0004"
