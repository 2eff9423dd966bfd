"""The Node.js example: the protocol served by another language from the proto files alone."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from service_kit.parameters import Kind, Outcome

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="Node.js with npm is not installed"
)
FILES = ("package.json", "package-lock.json", ".npmrc", "server.js", "space.js", "refusals.js", "measure.js")


@pytest.fixture(scope="session")
def command(tasks_folder: Path, pytestconfig: pytest.Config) -> list[str]:
    """The server's command, with its packages installed as the lock file says, once for each lock file."""
    source = tasks_folder / "brotli_delivery"
    lock = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()[:16]
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(f"node-{lock}")
    for name in FILES:
        shutil.copy(source / name, folder / name)
    if not (folder / "installed").exists():
        done = subprocess.run(["npm", "ci"], cwd=folder, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, f"npm ci failed: {done.stderr}"
        (folder / "installed").touch()
    return ["node", str(folder / "server.js"), "--proto", str(tasks_folder.parents[2] / "proto")]


async def test_a_task_in_node_is_measured(serve: Any, command: list[str]) -> None:
    async with serve(command) as task:
        described, space = await task.describe()
        assert (described.name, described.capacity) == ("brotli-delivery", 1)
        assert described.budget.seconds == 1
        assert space["quality"].default == 11
        assert {p.kind for p in space.parameters} == {Kind.INTEGER, Kind.BOOLEAN, Kind.CATEGORICAL}
        assert await task.validate(**space.defaults()) == []

        outcome, default = await task.evaluate(fraction=0.1)
        assert outcome is Outcome.SUCCEEDED
        outcome, quick = await task.evaluate(fraction=0.1, quality=5, mode="text")
        assert quick.metric < default.metric
        assert quick.side_metrics["packed_bytes"] > default.side_metrics["packed_bytes"]
        assert quick.metric == pytest.approx(
            quick.side_metrics["compress_ms"] + quick.side_metrics["packed_bytes"] / 1000
        )

        assert await task.validate(window_bits=28) == [": window_bits above 24 needs large_window"]
        outcome, refused = await task.evaluate(window_bits=28)
        assert (outcome, refused.message) == (Outcome.INFEASIBLE, "window_bits above 24 needs large_window")
        assert (await task.evaluate(fraction=0.1, window_bits=28, large_window=True))[0] is Outcome.SUCCEEDED

        await task.cancel_an_evaluation()
        async with asyncio.timeout(20):
            assert (await task.evaluate(fraction=0.1, quality=1))[0] is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"quality": 12}, "quality: must be an integer from 0 to 11"),
        ({"mode": "html"}, "mode: must be one of generic, text, font"),
        ({"large_window": 1}, "large_window: must be true or false"),
        ({"qality": 3}, "qality: is not a parameter; known are quality, window_bits"),
        ({"constructor": 3}, "constructor: is not a parameter"),
        ({"fraction": 2.0}, "budget_fraction: must be above 0"),
    ],
)
async def test_node_refuses_what_the_space_does_not_take(
    serve: Any, command: list[str], values: dict[str, Any], words: str
) -> None:
    async with serve(command) as task:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await task.evaluate(**values)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in (caught.value.details() or "")


@pytest.mark.long
async def test_a_bilevel_search_runs_over_a_task_in_node(serve: Any, search: Any, command: list[str]) -> None:
    async with serve(command) as task:
        summary = await search(task.address)
    assert (summary["state"], summary["trials"]) == ("finished", 6)
