"""Keeping a model, what is refused on loading, and the text that it writes."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch

from gpt_trainer import checkpoint
from gpt_trainer.dataset import Dataset
from gpt_trainer.device import Device
from gpt_trainer.evaluation import bits_per_byte
from gpt_trainer.execution import execute
from gpt_trainer.paths import kernel_path
from gpt_trainer.presets import Preset
from gpt_trainer.sampling import choose, continue_text, next_logits
from gpt_trainer.trial import TrialRequest
from service_kit.errors import InvalidArgument, NotFound
from service_kit.parameters import Outcome, Value


@pytest.fixture(scope="module")
def kept(laptop: Preset, dataset: Dataset, cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few steps, kept."""
    path = tmp_path_factory.mktemp("kept") / "model.pt"
    preset = dataclasses.replace(laptop, evaluation_tokens=2048, estimates_at=())
    result = execute(preset, dataset, cpu, TrialRequest({"TOTAL_BATCH_SIZE": 2**12}, 0, 1.0), lambda _: None, keep=path)
    assert result.outcome is Outcome.SUCCEEDED
    return path


def test_a_kept_model_measures_as_it_did_when_it_was_trained(kept: Path, dataset: Dataset, cpu: Device) -> None:
    loaded = checkpoint.load(kept, cpu.compute)
    measured = bits_per_byte(kernel_path(loaded.model), dataset, "search", 2048, cpu)
    assert f"{measured:.6f}" == loaded.facts["val_bpb"]
    assert loaded.tokenizer.identity() == dataset.tokenizer == loaded.facts["tokenizer"]
    assert loaded.facts["configuration"] == "TOTAL_BATCH_SIZE=4096"
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_a_trial_without_a_metric_keeps_nothing(laptop: Preset, dataset: Dataset, cpu: Device, tmp_path: Path) -> None:
    exploding: dict[str, Value] = {"MATRIX_LR": 1.0, "EMBEDDING_LR": 10.0, "UNEMBEDDING_LR": 1.0, "SCALAR_LR": 10.0}
    request = TrialRequest(exploding, 0, 1.0)
    result = execute(laptop, dataset, cpu, request, lambda _: None, keep=tmp_path / "model.pt")
    assert result.outcome is Outcome.DIVERGED
    assert list(tmp_path.iterdir()) == []


def tampered(kept: Path, target: Path, **fields: object) -> Path:
    torch.save({**torch.load(kept, weights_only=True), **fields}, target)
    return target


def missing(kept: Path, target: Path, field: str) -> Path:
    torch.save({name: value for name, value in torch.load(kept, weights_only=True).items() if name != field}, target)
    return target


def test_what_was_changed_or_is_foreign_is_refused_with_the_reason(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="--keep PATH"):
        checkpoint.load(tmp_path / "nowhere")
    weights = torch.load(kept, weights_only=True)["weights"]
    weights["embedding"][0, 0] += 1
    other = dataclasses.asdict(checkpoint.load(kept).model.architecture) | {"width": 32}
    wrong = {
        "its weights are not the ones": tampered(kept, tmp_path / "a", weights=weights),
        "its tokeniser is not the one": tampered(kept, tmp_path / "b", tokenizer_identity="bpe1024-0"),
        "not of format": tampered(kept, tmp_path / "c", format=99),
        f"not of format {checkpoint.FORMAT}": missing(kept, tmp_path / "f", "weights"),
        "do not fit its architecture": tampered(kept, tmp_path / "d", architecture=other),
    }
    (tmp_path / "e").write_bytes(kept.read_bytes()[:1000])
    wrong["no checkpoint of this trainer, or damaged"] = tmp_path / "e"
    for words, path in wrong.items():
        with pytest.raises(InvalidArgument, match=words):
            checkpoint.load(path)


def test_loading_runs_no_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return Path.write_text, (tmp_path / "sprung", "!")  # type: ignore[return-value]

    path = tmp_path / "trap.pt"
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(InvalidArgument, match="no checkpoint"):
        checkpoint.load(path)
    torch.save({"format": 1, "facts": Trap()}, path)
    with pytest.raises(InvalidArgument, match="no checkpoint"):
        checkpoint.load(path)
    assert not (tmp_path / "sprung").exists()


def test_a_write_that_fails_leaves_the_old_checkpoint_and_nothing_else(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, target = checkpoint.load(kept), tmp_path / "model.pt"
    target.write_bytes(kept.read_bytes())

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(target, loaded.model, loaded.tokenizer, loaded.facts)
    assert target.read_bytes() == kept.read_bytes()
    assert list(tmp_path.iterdir()) == [target]


def test_the_same_seed_writes_the_same_text_and_no_temperature_the_likeliest(kept: Path) -> None:
    loaded = checkpoint.load(kept)

    def write(seed: int, temperature: float) -> str:
        return continue_text(loaded.model, loaded.tokenizer, "import os\n", 12, temperature, seed)[0]

    assert write(1, 1.0) == write(1, 1.0) != write(2, 1.0)
    assert write(1, 0.0) == write(2, 0.0)
    assert "\ufffd" not in write(1, 0.0)


def test_the_next_token_depends_on_the_newest_text_alone_once_the_context_is_full(kept: Path) -> None:
    loaded = checkpoint.load(kept)
    context, bos = loaded.model.architecture.context, loaded.tokenizer.bos
    newest = [5 + i % 300 for i in range(context - 1)]
    full = next_logits(loaded.model, newest, bos)
    assert torch.equal(next_logits(loaded.model, [400, 401, *newest], bos), full)
    assert not torch.equal(next_logits(loaded.model, newest[1:], bos), full)
    direct = loaded.model(torch.tensor([[bos, *newest]]))[0, -1]
    assert torch.allclose(full, 15 * torch.tanh(direct / 15), atol=1e-5)


def test_tokens_are_drawn_with_the_models_probabilities() -> None:
    logits = torch.log(torch.tensor([0.7, 0.2, 0.1]))
    generator = torch.Generator().manual_seed(0)
    drawn = [choose(logits, 1.0, generator) for _ in range(3000)]
    assert [drawn.count(token) / 3000 for token in range(3)] == pytest.approx([0.7, 0.2, 0.1], abs=0.03)
    sharp = [choose(logits, 0.25, generator) for _ in range(300)]
    assert sharp.count(0) > 280
    assert {choose(logits, 0.0, generator) for _ in range(5)} == {0}
