"""Servers of any language as processes of their own."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service_kit.processes import spawn

ROOT = Path(__file__).parents[2]
NODE = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="Node.js with npm is not installed"
)


@asynccontextmanager
async def served(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """A server that takes --listen and --address-file, for the length of the block; yields its address."""
    file = folder / "address"
    full = [*command, "--listen", "127.0.0.1:0", "--address-file", str(file)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "BILEVEL_"))}
    cache = {name: value for name, value in os.environ.items() if name == "BILEVEL_CACHE"}
    own = {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "BILEVEL_HOME": str(folder), **cache, **(environment or {})}
    async with await spawn(full, env=inherited | own, cwd=ROOT) as group:
        async with asyncio.timeout(90):
            while not file.exists():
                assert group.returncode is None, f"{command[0]} did not start"
                await asyncio.sleep(0.05)
        yield file.read_text().strip()
        assert await group.terminate(20) == 0


def npm(source: Path, cache: pytest.Cache, *scripts: Sequence[str]) -> Path:
    """A copy of a Node.js project, with its packages as the lock file says, once for each state of its files."""
    files = [file for file in sorted(source.iterdir()) if file.is_file() and file.suffix != ".md"]
    state = hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()[:16]
    folder = cache.mkdir(f"node-{state}")
    if not (folder / "ready").exists():
        for file in files:
            shutil.copy(file, folder / file.name)
        for command in (["npm", "ci"], *scripts):
            environment = os.environ | {"PROTO": str(ROOT / "proto")}
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False
            )
            assert done.returncode == 0, f"{' '.join(command)} failed: {done.stdout}{done.stderr}"
        (folder / "ready").touch()
    return folder
