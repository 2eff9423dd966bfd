"""The benchmarks run; what they measure is a matter of the machine. The GPU's runs here with tiny shapes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

BARE = """
import runpy, sys
for absent in ("grpc", "pydantic", "structlog", "typer", "bilevel"):
    sys.modules[absent] = None
sys.path.insert(0, sys.argv[1])
sys.argv = ["gpu.py", *sys.argv[2:]]
runpy.run_path(sys.path[0] + "/gpu.py", run_name="__main__")
"""
"""Runs the script as a machine does that has torch, numpy and tokenizers and nothing else of ours."""


def test_the_gpu_benchmark_runs_whole_with_tiny_shapes_and_little_installed(cache: Path) -> None:
    options = ["--tiny", "--steps", "2", "--cache", str(cache)]
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(BENCHMARKS), *options], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert set(said["contestants"]) == {"ours", "plain step", "plain step, compiled"}
    assert all(c["tokens_per_second"] > 0 and c["mfu_percent"] is None for c in said["contestants"].values())
    assert said["relative_error"]["loss"] < 1e-3
    assert max(said["relative_error"].values()) < 0.1
    assert "unknown" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [
        ["trace.py", "--only", "overhead", "--database", "sqlite", "--past", "5", "--trials", "3"],
        ["trial_overhead.py", "--trials", "1"],
    ],
    ids=lambda command: command[0],
)
def test_a_benchmark_prints_its_results_and_no_log(command: list[str]) -> None:
    script, *options = command
    environment = {name: value for name, value in os.environ.items() if name != "BILEVEL_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *options],
        env=environment, cwd=BENCHMARKS.parent, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert "overhead" in done.stdout
    assert len((done.stdout + done.stderr).splitlines()) < 15, done.stderr
    assert '"level": ' not in done.stdout + done.stderr


def test_without_a_gpu_the_gpu_benchmark_says_what_to_do() -> None:
    environment = {"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py")], env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 1
    assert "--tiny" in done.stderr
    assert "Traceback" not in done.stderr
