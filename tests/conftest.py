"""What all tests share: databases to run on, both kinds where both are installed, and what is logged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from tests.postgres import PostgresServer, binaries

_LEFT_OUT = "PostgreSQL is not installed"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the length of the session, one for each test process."""
    if binaries() is None:
        pytest.skip(_LEFT_OUT)
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, once for each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with request.getfixturevalue("postgres").database() as url:
        yield url


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What is logged, with the ids that are bound at that moment."""
    capture = LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.reset_defaults()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was left out: a skip is easily overlooked."""
    skipped = terminalreporter.stats.get("skipped", [])
    without = sum(_LEFT_OUT in str(report.longrepr) for report in skipped)
    if without:
        hint = "install it (Debian: apt-get install postgresql) to run them"
        terminalreporter.write_sep("!", f"{without} tests on PostgreSQL were left out: {hint}", yellow=True)
