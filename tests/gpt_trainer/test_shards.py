"""Downloading shards: the real hub client against a small hub on this machine, over HTTP.

The hub answers the three requests that the client makes: what the dataset holds, what one file is, and its bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from gpt_trainer.corpus import find_corpus
from gpt_trainer.presets import CLIMBMIX
from gpt_trainer.shards import REPOSITORY

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LAST = 6542


class Hub(ThreadingHTTPServer):
    """Serves shards; can break off a transfer once, and can send wrong bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.shards = {f"shard_{number:05d}.parquet": shard(number) for number in (0, 1, 2, LAST)}
        self.sent: list[tuple[str, str]] = []
        """Name and Range header of every transfer."""
        self.break_off: set[str] = set()
        self.corrupt: set[str] = set()


class Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        return None

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        if self.path.startswith(f"/api/datasets/{REPOSITORY}"):
            self.reply(200, json.dumps(self.listing()).encode(), {"Content-Type": "application/json"})
        elif found := re.fullmatch(rf"/datasets/{REPOSITORY}/resolve/{COMMIT}/(shard_\d+\.parquet)", self.path):
            self.file(found[1], body)
        else:
            self.reply(404, b"")

    def listing(self) -> dict[str, object]:
        siblings: list[dict[str, object]] = [{"rfilename": "README.md", "size": 1, "blobId": "0"}]
        for name, content in self.server.shards.items():
            lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            siblings.append({"rfilename": name, "size": len(content), "blobId": "0", "lfs": lfs})
        return {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}

    def file(self, name: str, body: bool) -> None:
        content = self.server.shards[name]
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if not body:
            self.reply(200, content, headers, body=False)
            return
        wanted = self.headers.get("Range", "")
        self.server.sent.append((name, wanted))
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if name in self.server.corrupt:
            content = bytes(len(content))
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if name in self.server.break_off:
            self.server.break_off.remove(name)
            self.reply(200, content, headers, cut=len(content) // 2)
            self.close_connection = True
            return
        self.reply(206 if wanted else 200, content[start:], headers)

    def reply(
        self,
        code: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        body: bool = True,
        cut: int | None = None,
    ) -> None:
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])


def shard(number: int) -> bytes:
    """A parquet file with enough text for a tiny vocabulary."""
    rows = [f"Shard {number}, row {row}: {row * row} and {number + row} are numbers." for row in range(400)]
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": rows}), buffer)
    return buffer.getvalue()


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def download(hub: Hub, cache: Path, shards: int, endpoint: str = "") -> subprocess.CompletedProcess[str]:
    """In a process of its own, because the hub's client reads HF_ENDPOINT once, when it is imported."""
    program = (
        "import sys; from pathlib import Path; from gpt_trainer.shards import download_shards\n"
        "from service_kit.errors import ServiceError\n"
        "try: paths = download_shards(Path(sys.argv[1]), int(sys.argv[2]), lambda s: print(s, file=sys.stderr))\n"
        "except ServiceError as error: sys.exit(f'error: {error}')\n"
        "print(*(path.name for path in paths))"
    )
    endpoint = endpoint or f"http://127.0.0.1:{hub.server_address[1]}"
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache / "hf"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    return subprocess.run(
        [sys.executable, "-c", program, str(cache / CLIMBMIX), str(shards)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_shards_arrive_whole_with_the_last_one_pinned_and_are_not_fetched_twice(hub: Hub, tmp_path: Path) -> None:
    first = download(hub, tmp_path, 1)
    assert first.returncode == 0, first.stderr
    assert first.stdout.split() == ["shard_00000.parquet", f"shard_{LAST:05d}.parquet"]
    assert [name for name, _ in hub.sent] == [f"shard_{LAST:05d}.parquet", "shard_00000.parquet"]
    assert "(2 of 2)" in first.stderr
    corpus = find_corpus(CLIMBMIX, tmp_path)
    assert next(corpus.documents("train")).startswith("Shard 0, row 0")
    assert next(corpus.documents("search")).startswith(f"Shard {LAST}, row 0")

    more = download(hub, tmp_path, 2)
    assert more.returncode == 0, more.stderr
    assert [name for name, _ in hub.sent[2:]] == ["shard_00001.parquet"]
    assert find_corpus(CLIMBMIX, tmp_path).identity() != corpus.identity()


def test_a_broken_transfer_goes_on_where_it_broke_and_damage_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.shards["shard_00000.parquet"] = random.Random(0).randbytes(24 * 2**20)  # the client keeps every 10 MB
    hub.break_off.add("shard_00000.parquet")
    ended = download(hub, tmp_path, 1)
    assert ended.returncode == 0, ended.stderr
    ((name, wanted),) = [(name, wanted) for name, wanted in hub.sent if wanted]
    assert name == "shard_00000.parquet"
    assert wanted == f"bytes={10 * 2**20}-"
    path = tmp_path / CLIMBMIX / "shard_00000.parquet"
    assert path.read_bytes() == hub.shards["shard_00000.parquet"]

    path.write_bytes(path.read_bytes()[:-10] + b"0123456789")
    again = download(hub, tmp_path, 1)
    assert again.returncode == 0, again.stderr
    assert path.read_bytes() == hub.shards["shard_00000.parquet"]


def test_a_wrong_checksum_a_wrong_number_and_no_network_are_clear_errors(hub: Hub, tmp_path: Path) -> None:
    hub.corrupt.add("shard_00000.parquet")
    damaged = download(hub, tmp_path, 1)
    assert "shard_00000.parquet arrived twice with a wrong checksum and was deleted" in damaged.stderr
    assert not (tmp_path / CLIMBMIX / "shard_00000.parquet").exists()
    assert "shards: must be from 1 to 3; got 4" in download(hub, tmp_path, 4).stderr
    away = download(hub, tmp_path, 1, endpoint="http://127.0.0.1:9")
    assert away.returncode == 1
    assert f"the dataset {REPOSITORY}" in away.stderr
    assert "cannot be reached" in away.stderr
    assert "run the same command again" in away.stderr
    assert "Traceback" not in away.stderr
