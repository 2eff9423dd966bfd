"""A user and a task of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.person import ROOT, User, wait_until


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    someone = User(tmp_path)
    yield someone
    for process in someone.processes():
        process.kill()


@pytest.fixture(scope="session")
def own_task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the example task, served by its own script."""
    published = tmp_path_factory.mktemp("own") / "address"
    script = ROOT / "clients" / "examples" / "own_task.py"
    process = subprocess.Popen(
        [sys.executable, str(script), "--listen", "127.0.0.1:0", "--address-file", str(published)],
        stderr=subprocess.DEVNULL,
    )
    wait_until(published.exists, 20, "the example task's address")
    yield published.read_text().strip()
    process.terminate()
    process.wait(10)
