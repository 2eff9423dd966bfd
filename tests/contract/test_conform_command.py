"""``bilevel conform`` as a person and as continuous integration use it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from reference_task import ReferenceTask, started

from tests.clients.cli.shape_check import check

ROOT = Path(__file__).parents[2]


class BadMetric(ReferenceTask):
    """Says, in a message that XML cannot hold, what went wrong; and measures nothing."""

    def metric(self, values: object, seed: int) -> float:
        return float("inf")


async def conform(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    command = [sys.executable, "-c", "from clients.cli import main; main()", "conform", *arguments]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "COLUMNS": "200", "GRPC_VERBOSITY": "NONE"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment, cwd=ROOT)
    said, complained = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode(), complained.decode()


@pytest.fixture
async def good() -> AsyncIterator[str]:
    server, address = await started(ReferenceTask())
    yield address
    await server.stop(None)


@pytest.fixture
async def bad() -> AsyncIterator[str]:
    server, address = await started(BadMetric())
    yield address
    await server.stop(None)


async def test_a_conforming_task_exits_with_0_and_says_what_holds(good: str, tmp_path: Path) -> None:
    file = tmp_path / "results" / "task.xml"
    code, said, _ = await conform("task", good, "--only", "TASK-3", "--junit", str(file))
    assert code == 0
    assert "ok    TASK-3.1" in said
    assert f"task at {good} conforms (8 holds)" in said
    suite = ElementTree.parse(file).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("8", "0", "0")
    assert suite[0].get("name", "").startswith("TASK-3.1 ")


async def test_a_task_that_does_not_conform_exits_with_1_and_names_the_clause(bad: str, tmp_path: Path) -> None:
    file = tmp_path / "task.xml"
    code, said, _ = await conform("task", bad, "--only", "TASK-3", "--json", "--junit", str(file))
    document = json.loads(said)
    check("conform task", document)
    assert (code, document["conforms"], document["document"]) == (1, False, "docs/protocol.md")
    [finding] = [one for one in document["findings"] if one["verdict"] == "violated"]
    assert (finding["clause"], finding["message"]) == ("TASK-3.2", "metric must be finite; it is inf")
    [failure] = ElementTree.parse(file).getroot().iter("failure")
    assert failure.get("message") == "TASK-3.2: metric must be finite; it is inf"


async def test_what_cannot_be_reached_exits_with_3(unused_port: int) -> None:
    code, _, complained = await conform("task", f"127.0.0.1:{unused_port}")
    assert code == 3
    assert f"error: the task at 127.0.0.1:{unused_port} cannot be reached" in complained


async def test_an_inner_service_that_is_a_task_exits_with_3(good: str) -> None:
    code, _, complained = await conform("inner", good)
    assert code == 3
    assert "ListTasks was refused with UNIMPLEMENTED" in complained


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("task", "127.0.0.1:9", "--profile", "odd"), "--profile: must be one of full; got 'odd'"),
        (("inner", "127.0.0.1:9", "--only", "TASK-1"), "--only: must name a clause that is checked here"),
        (("task", "nowhere"), "HOST:PORT: must be HOST:PORT with a port"),
    ],
)
async def test_wrong_input_exits_with_2(arguments: tuple[str, ...], said: str) -> None:
    code, _, complained = await conform(*arguments)
    assert code == 2
    assert said in complained


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
