"""``python -m inner_service``: what people read when they ask for help or get it wrong."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from inner_service.__main__ import _parser, options_of

GOOD = ["--listen", "127.0.0.1:0", "--task", "gpt=127.0.0.1:7401"]
WRONG = [
    (["--no-loopback-tasks"], "--task: must name at least one task", 2),
    (["--listen", "0.0.0.0:0", "--insecure"], "--task: must name at least one task", 2),
    (["--task", "gpt"], "--task: must be NAME=HOST:PORT", 2),
    (["--task", "GPT=127.0.0.1:1"], "--task: must be NAME=HOST:PORT", 2),
    (["--task", "gpt=127.0.0.1"], "--task: must be HOST:PORT", 2),
    (["--task", "a=127.0.0.1:1", "--task", "a=127.0.0.1:2"], "a is there twice", 2),
    ([*GOOD, "--listen", "here"], "--listen: must be HOST:PORT", 2),
    ([*GOOD, "--listen", "0.0.0.0:0"], "--insecure", 2),
    ([*GOOD, "--database", "mysql://x"], "must begin with sqlite:// or postgresql://", 2),
    ([*GOOD, "--database", "sqlite:////proc/nowhere/x.db"], "cannot open the database", 1),
]


def run(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "BILEVEL_HOME": str(folder), "HOME": str(folder)} | environment
    command = [sys.executable, "-m", "inner_service", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


def test_help_names_every_option_and_where_the_model_comes_from(tmp_path: Path) -> None:
    shown = run(["--help"], tmp_path)
    assert shown.returncode == 0
    for word in (
        "--listen",
        "--task",
        "--database",
        "--address-file",
        "--allow-weak-sandbox",
        "OPENAI_BASE_URL",
        "scripted researcher",
    ):
        assert word in shown.stdout


def test_the_weak_sandbox_is_allowed_by_its_option_only() -> None:
    assert not options_of(_parser().parse_args(GOOD)).sandbox.allow_weak
    assert options_of(_parser().parse_args([*GOOD, "--allow-weak-sandbox"])).sandbox.allow_weak


@pytest.mark.parametrize(("arguments", "says", "code"), WRONG, ids=[w[1][:30] for w in WRONG])
def test_each_wrong_option_gives_one_clear_message(tmp_path: Path, arguments, says, code) -> None:
    ended = run(arguments, tmp_path)
    assert ended.returncode == code
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_busy_port_and_a_missing_model_name_are_explained(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run([*GOOD, "--listen", f"127.0.0.1:{taken.getsockname()[1]}"], tmp_path)
    assert (ended.returncode, "address already in use" in ended.stderr) == (2, True)
    ended = run(GOOD, tmp_path, OPENAI_API_KEY="sk-swordfish-1234")
    assert (ended.returncode, "BILEVEL_MODEL" in ended.stderr) == (2, True)
    assert "swordfish" not in ended.stderr
