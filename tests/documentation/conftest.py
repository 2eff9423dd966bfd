from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.documentation.pages import ROOT


class Desk:
    """A folder of a reader's own, with the project's .venv and proto in it; what is served there ends with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._background: list[subprocess.Popen[str]] = []
        for name in (".venv", "proto"):
            (folder / name).symlink_to(ROOT / name)
        if not (ROOT / ".venv").exists():  # run from elsewhere: the same interpreter
            (folder / ".venv").unlink()
            (folder / ".venv").symlink_to(Path(sys.prefix))
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG", "NODE_EXTRA_CA_CERTS") if name in os.environ},
            **{name: value for name, value in os.environ.items() if name.lower().startswith("npm_config")},
            "HOME": os.environ.get("HOME", str(folder)),
            "BILEVEL_HOME": str(folder / "home"),
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, command: Sequence[str], timeout: float = 110, **environment: str) -> str:
        """What the command prints; it must end well."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def serve(self, command: Sequence[str], **environment: str) -> None:
        """Start a command that stays, and wait for its first line that says where it listens."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._background.append(process)
        assert process.stdout is not None
        deadline = time.monotonic() + 60
        while "listening" not in (line := process.stdout.readline()):
            assert line, f"{' '.join(command)} ended with exit code {process.wait()}"
            assert time.monotonic() < deadline

    def close(self) -> None:
        for process in self._background:
            process.terminate()
        for process in self._background:
            process.wait(20)
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()
