"""Recorded conversations: asked again with the same words, they give the same answers without an endpoint.

A cassette is a JSONL file with one answered call a line. A call is found by the hash of its purpose and messages; when
the same call was recorded several times, its answers come back in the order of recording.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service_kit.errors import ServiceError
from service_kit.llm.failures import Failure, Message, ModelError


class Cassette:
    """A recording. One process at a time writes to it."""

    def __init__(self, path: Path, *, record: bool = False) -> None:
        """Open ``path`` to replay it, or with ``record`` to append to it.

        Raises :class:`ServiceError` when it cannot be read.
        """
        self.path = path
        self.recording = record
        self._answers: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)
        if record:
            path.parent.mkdir(parents=True, exist_ok=True)
            return
        try:
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self._answers[entry["key"]].append(entry["answer"])
        except (OSError, ValueError, KeyError) as error:
            raise ServiceError(f"cannot read the recorded conversation {path}: {error}") from error

    def replay(self, purpose: str, messages: Sequence[Message]) -> dict[str, Any]:
        """The next recorded answer to this call; raises :class:`ModelError` when there is none."""
        answers = self._answers.get(key(purpose, messages))
        if not answers:
            text = f"{self.path} has no further answer to this {purpose} prompt"
            raise ModelError(Failure.NOT_RECORDED, text, messages=tuple(messages))
        return answers.popleft()

    async def record(self, purpose: str, messages: Sequence[Message], answer: dict[str, Any]) -> None:
        """Append one answered call."""
        entry = {
            "key": key(purpose, messages),
            "purpose": purpose,
            "messages": [message.to_json() for message in messages],
            "answer": answer,
        }
        await asyncio.to_thread(self._append, json.dumps(entry, ensure_ascii=False) + "\n")

    def _append(self, line: str) -> None:
        with self.path.open("a") as file:
            file.write(line)


def key(purpose: str, messages: Sequence[Message]) -> str:
    """What identifies a call: SHA-256 of its purpose and messages."""
    text = json.dumps([purpose, [[m.role, m.content] for m in messages]])
    return hashlib.sha256(text.encode()).hexdigest()
