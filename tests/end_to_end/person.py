"""The product as a user has it: the command in a process of its own, a task of one's own, real services."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
BILEVEL = [sys.executable, "-c", "from clients.cli import main; main()"]
_MODEL = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "BILEVEL_MODEL")


@dataclass(frozen=True)
class User:
    """Someone with a home of their own, in a folder of their own. Whatever they start carries that home's name."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in _MODEL}
        return inherited | {"BILEVEL_HOME": str(self.home), "COLUMNS": "160", **more}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """``bilevel ARGUMENTS`` in a session of its own, as a terminal would start it."""
        return subprocess.Popen(
            [*BILEVEL, *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def bilevel(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """``bilevel ARGUMENTS`` to its end; never with a stack trace."""
        process = self.start(*arguments, **environment)
        output, errors = process.communicate(timeout=100)
        assert "Traceback" not in output + errors, errors
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def processes(self) -> list[psutil.Process]:
        """Everything alive that was started by this user, by the home in its environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("BILEVEL_HOME") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until the condition holds; fail with ``what`` after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.02)
