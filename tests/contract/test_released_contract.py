"""What was released stays readable: ``make buf`` fails on a change that would break somebody's generated code."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = ROOT / ".venv" / "node_modules" / ".bin" / "buf"
pytestmark = pytest.mark.skipif(not BUF.exists(), reason="buf is not installed: `make buf` installs it")

BREAKING = {
    "a field is gone": ("trace.proto", "  int32 max_trials = 2;\n", "", 'field "2" with name "max_trials"'),
    "a field has another number": (
        "task.proto",
        "int64 seed = 2;",
        "int64 seed = 12;",
        '"seed" on message "EvaluateRequest"',
    ),
    "a field has another type": ("common.proto", "double double_value = 2;", "float double_value = 2;", "double_value"),
    "a call is gone": ("inner.proto", "rpc ResumeRun(", "rpc GoOn(", 'RPC "ResumeRun"'),
    "a call streams no more": (
        "inner.proto",
        "returns (stream WatchTraceResponse)",
        "returns (WatchTraceResponse)",
        "WatchTrace",
    ),
    "an enum value is gone": ("common.proto", "  OUTCOME_CRASHED = 3;\n", "", 'value "3" on enum "Outcome"'),
    "an enum value means something else": (
        "common.proto",
        "OUTCOME_TIMED_OUT = 5;",
        "OUTCOME_LATE = 5;",
        "OUTCOME_TIMED_OUT",
    ),
}


@pytest.fixture
def breaking(tmp_path: Path) -> Callable[[str, str, str], tuple[int, str]]:
    """Exit code and words of buf breaking on a copy of the contract in which one text is replaced."""

    def run(file: str, old: str, new: str) -> tuple[int, str]:
        copy = tmp_path / "proto"
        shutil.copytree(ROOT / "proto", copy, ignore=shutil.ignore_patterns("*_pb2*", "__pycache__"))
        source = copy / "bilevel" / "v1" / file
        text = source.read_text(encoding="utf-8")
        assert old in text
        source.write_text(text.replace(old, new, 1), encoding="utf-8")
        command = [str(BUF), "breaking", str(copy), "--against", str(ROOT / "proto" / "released.binpb")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_contract_as_it_is_breaks_nothing(breaking: Callable[[str, str, str], tuple[int, str]]) -> None:
    assert breaking("task.proto", 'syntax = "proto3";', 'syntax = "proto3";') == (0, "")


def test_an_addition_breaks_nothing(breaking: Callable[[str, str, str], tuple[int, str]]) -> None:
    more = "  // New.\n  string later = 4000;\n  // Seed of every"
    assert breaking("task.proto", "  // Seed of every", more) == (0, "")


@pytest.mark.parametrize("what", BREAKING)
def test_a_breaking_change_is_refused(breaking: Callable[[str, str, str], tuple[int, str]], what: str) -> None:
    file, old, new, said = BREAKING[what]
    code, words = breaking(file, old, new)
    assert code == 100
    assert said in words
