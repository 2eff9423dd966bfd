"""``python -m gpt_trainer`` as a person meets it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from gpt_trainer.__main__ import app
from gpt_trainer.dataset import Dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpt_trainer", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def lines(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+): (.*)$", text, re.MULTILINE))


@pytest.mark.usefixtures("dataset")
def test_train_ends_with_plain_lines() -> None:
    ended = command("train", "--set", "TOTAL_BATCH_SIZE=2**12", "--budget", "0.4")
    assert ended.returncode == 0, ended.stderr
    shown = lines(ended.stdout)
    assert {
        "val_bpb",
        "num_steps",
        "training_seconds",
        "total_seconds",
        "peak_memory_mb",
        "num_params_M",
        "corpus",
    } <= set(shown)
    assert re.fullmatch(r"\d\.\d{6}", shown["val_bpb"])
    assert shown["mfu_percent"] == "unknown", "a CPU's peak is not in the table, and unknown is not zero"


@pytest.mark.usefixtures("dataset")
def test_a_kept_model_writes_text_and_a_text_of_ones_own_trains(tmp_path: Path) -> None:
    books, model, events = f"{sysconfig.get_path('stdlib')}/asyncio/*.py", tmp_path / "model.pt", tmp_path / "events"
    options = ["--data", books, "--budget", "0.4", "--keep", str(model), "--tensorboard", str(events)]
    ended = CliRunner().invoke(app, ["train", *options], env={"BILEVEL_CACHE": str(tmp_path / "cache")})
    assert ended.exit_code == 0, ended.stderr
    shown = lines(ended.stdout)
    assert shown["corpus"].startswith("asyncio-")
    assert len(list(events.iterdir())) == 1
    told = ["--prompt", "def train(", "--tokens", "10", "--temperature", "0.5"]
    sampled = CliRunner().invoke(app, ["sample", str(model), *told])
    assert sampled.exit_code == 0, sampled.stderr
    assert sampled.stdout.startswith("def train(")
    assert f"val_bpb {shown['val_bpb']}" in sampled.stderr


@pytest.mark.usefixtures("dataset")
def test_a_diverged_run_ends_with_its_outcome_and_code_1() -> None:
    sets = ["MATRIX_LR=1", "EMBEDDING_LR=10", "UNEMBEDDING_LR=1", "SCALAR_LR=10"]
    ended = CliRunner().invoke(app, ["train", "--budget", "1", *(word for text in sets for word in ("--set", text))])
    assert ended.exit_code == 1
    assert lines(ended.stdout)["outcome"] == "diverged"
    assert "val_bpb" not in lines(ended.stdout)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "--set", "TOTAL_BTCH_SIZE=4096"], 2, "did you mean TOTAL_BATCH_SIZE?"),
        (["train", "--set", "MATRIX_LR=50"], 2, "must be a number from 0.0001 to 1"),
        (["train", "--set", "TOTAL_BATCH_SIZE=2**11"], 2, "set DEVICE_BATCH_SIZE to at most 16"),
        (["train", "--set", "TOTAL_BATCH_SIZE"], 2, "must be NAME=VALUE"),
        (["train", "--budget", "soon"], 2, "short (4 s)"),
        (["train", "--set", "TOTAL_BATCH_SIZE=2**17", "--budget", "1"], 2, "one optimiser step of 131072 tokens costs"),
        (["train", "--preset", "lapto"], 2, "Did you mean laptop?"),
        (["train", "--preset", "karpathy"], 1, "needs at least two parquet shards"),
        (["serve", "--listen", "nowhere"], 2, "must be HOST:PORT"),
        (["train", "--data", "/nowhere"], 2, "nothing is at '/nowhere'"),
        (["train", "--data", "LICENSE"], 1, "license has too little text"),
        (["serve", "--data", "/nowhere"], 2, "nothing is at '/nowhere'"),
        (["prepare", "--shards", "2"], 2, "only the corpus climbmix has shards"),
        (["train", "--budget", "1", "--keep", "/nowhere/model.pt"], 2, "must lie in a folder that exists"),
        (["train", "--keep", "docs"], 2, "docs is a folder"),
        (["sample", "/nowhere/model.pt"], 5, "checkpoint '/nowhere/model.pt' does not exist"),
    ],
)
def test_wrong_input_is_one_clear_message(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    environment = {"BILEVEL_CACHE": str(tmp_path)} if {"karpathy", "LICENSE"} & set(arguments) else {}
    ended = CliRunner().invoke(app, arguments, env=environment)
    assert ended.exit_code == code
    assert words in ended.stderr
    assert ended.stderr.count("error:") == 1
    assert isinstance(ended.exception, SystemExit)


def test_a_cache_folder_that_cannot_be_written_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = command("prepare", BILEVEL_CACHE=str(tmp_path / "file" / "cache"))
    assert ended.returncode == 2
    assert "BILEVEL_CACHE: must be a folder that can be written" in ended.stderr
    assert "Set BILEVEL_CACHE" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_busy_port_is_one_clear_message(dataset: Dataset) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = command("serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}", "--workers", "1")
    assert ended.returncode == 2
    assert "address already in use" in ended.stderr
    assert "--listen" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_serve_publishes_its_address_and_leaves_no_process_after_sigterm(dataset: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "address"
    arguments = ["serve", "--address-file", str(file), "--workers", "2", "--budget", "short"]
    server = subprocess.Popen([sys.executable, "-m", "gpt_trainer", *arguments], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        host, _, port = file.read_text().strip().rpartition(":")
        socket.create_connection((host, int(port)), 5).close()
        below = psutil.Process(server.pid).children(recursive=True)
        assert sum("gpt_trainer.worker" in " ".join(child.cmdline()) for child in below) >= 2
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.communicate()
    assert not [child for child in below if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not file.exists()


def test_presets_and_help_need_neither_data_nor_torch(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["presets"], env={"BILEVEL_CACHE": str(tmp_path)})
    assert shown.exit_code == 0
    assert [name for name in ("laptop", "workstation", "karpathy") if f"{name}: " in shown.stdout] == [
        "laptop",
        "workstation",
        "karpathy",
    ]
    assert "--set" in command("train", "--help").stdout
    probe = "import sys, gpt_trainer.__main__, gpt_trainer.serving; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=False).returncode == 0
