"""A user and a task of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from typer.testing import CliRunner

from clients.cli import app
from tests.end_to_end.dashboard_stack import Stack, chromium
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
    wait_until(published.exists, 60, "the example task's address")
    yield published.read_text().strip()
    process.terminate()
    process.wait(10)


@dataclass(frozen=True)
class Services:
    """Services that a user has started with ``bilevel serve``."""

    user: User
    inner: str
    researcher: str

    def bilevel(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command that talks to them: the same code, inside this process, because there are many of them."""
        environment = self.user.environment(BILEVEL_INNER=self.inner, BILEVEL_OUTER="127.0.0.1:1")
        with chdir(self.user.folder):
            done = CliRunner().invoke(app, arguments, env=environment, catch_exceptions=False, prog_name="bilevel")
        # gRPC's poller belongs to the loop of an earlier command in this process, and says so: no command's fault.
        said = [line for line in done.output.splitlines() if "PollerCompletionQueue" not in line]
        assert not [line for line in said if "Traceback" in line]
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


@contextmanager
def served(user: User, name: str, *options: str, **environment: str) -> Iterator[str]:
    """Address of one service, started with ``bilevel serve``."""
    published = user.folder / f"{name}.address"
    process = user.start("serve", name, "--listen", "127.0.0.1:0", "--address-file", str(published), *options,
                         **environment)  # fmt: skip
    try:
        wait_until(lambda: published.exists() or process.poll() is not None, 60, f"the address of {name}")
        assert process.poll() is None, process.communicate()[1]
        yield published.read_text().strip()
    finally:
        process.terminate()
        process.communicate(timeout=40)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory, own_task: str) -> Iterator[Services]:
    """The scripted researcher and an inner service with the example task."""
    user = User(tmp_path_factory.mktemp("services"))
    quiet = {"BILEVEL_LOG_LEVEL": "warning"}  # nobody reads what they write, and a full pipe would stop them
    with served(user, "researcher", **quiet) as researcher:
        endpoint = {"OPENAI_BASE_URL": f"http://{researcher}/v1", "BILEVEL_MODEL": "scripted-researcher", **quiet}
        with served(user, "inner", "--task", f"own={own_task}", **endpoint) as inner:
            yield Services(user, inner, researcher)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, own_task: str) -> Iterator[Stack]:
    """The services and a dashboard in front of them."""
    running = Stack(User(tmp_path_factory.mktemp("dashboard")), own_task)
    try:
        running.start_all()
        yield running
    finally:
        running.stop()
        for process in running.user.processes():
            process.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started
