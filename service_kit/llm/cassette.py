"""Recorded conversations: asked again with the same words, they give the same answers without an endpoint.

A cassette is a JSONL file. Its first line says which model was asked; each further line is one call with its answer, or
with the failure that it ended in. A call is found by the hash of its purpose and messages; when the same call was
recorded several times, its answers come back in the order of recording.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from service_kit.errors import ServiceError
from service_kit.llm.failures import Failure, Message, ModelError
from service_kit.llm.usage import Usage
from service_kit.settings import ModelSettings

VERSION = 1


class Cassette:
    """A recording. One process at a time writes to it."""

    def __init__(self, path: Path, *, record: bool = False, model: str = "") -> None:
        """Open ``path`` to replay it, or with ``record`` to append to it; ``model`` is the name of who is asked.

        Raises :class:`ServiceError` when it cannot be read or written.
        """
        self.path = path
        self.recording = record
        self.model = model
        """Name of the model that was asked, as it was configured."""
        self._answers: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)
        try:
            if record:
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    self._append({"cassette": VERSION, "model": model})
                return
            head, *entries = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            if head["cassette"] != VERSION:
                raise ValueError(f"it has version {head['cassette']}, and this program reads version {VERSION}")
            self.model = head["model"]
            for entry in entries:
                self._answers[entry["key"]].append(entry["answer"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            action = "write" if record else "read"
            raise ServiceError(f"cannot {action} the recorded conversation {path}: {error}") from error

    @classmethod
    def of(cls, settings: ModelSettings, service: str) -> Self | None:
        """The cassette that the settings ask of ``service``: a file of that name in their folder; None without."""
        if settings.replay is not None:
            return cls(settings.replay / f"{service}.jsonl")
        if settings.record is not None:
            return cls(settings.record / f"{service}.jsonl", record=True, model=settings.model or "")
        return None

    def replay(self, purpose: str, messages: Sequence[Message]) -> dict[str, Any]:
        """The next recorded answer to this call.

        Raises :class:`ModelError`: the recorded one where the call failed, else NOT_RECORDED when there is none.
        """
        answers = self._answers.get(key(purpose, messages))
        if not answers:
            text = f"{self.path} has no further answer to this {purpose} prompt"
            raise ModelError(Failure.NOT_RECORDED, text, messages=tuple(messages))
        answer = answers.popleft()
        if "failure" in answer:
            error = ModelError(
                Failure(answer["failure"]),
                answer["message"],
                retry_after=answer["retry_after"],
                usage=Usage.from_json(answer["usage"]),
                messages=tuple(Message(**message) for message in answer["messages"]),
            )
            error.latency = answer["latency"]
            raise error
        return answer

    async def record(self, purpose: str, messages: Sequence[Message], answer: dict[str, Any]) -> None:
        """Append one answered call."""
        entry = {
            "key": key(purpose, messages),
            "purpose": purpose,
            "messages": [message.to_json() for message in messages],
            "answer": answer,
        }
        await asyncio.to_thread(self._append, entry)

    async def record_failure(self, purpose: str, messages: Sequence[Message], error: ModelError) -> None:
        """Append one call that failed."""
        failure = {
            "failure": error.kind.value,
            "message": error.message,
            "retry_after": error.retry_after,
            "usage": error.usage.to_json(),
            "latency": error.latency,
            "messages": [message.to_json() for message in error.messages],
        }
        await self.record(purpose, messages, failure)

    def _append(self, entry: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def key(purpose: str, messages: Sequence[Message]) -> str:
    """What identifies a call: SHA-256 of its purpose and messages."""
    text = json.dumps([purpose, [[m.role, m.content] for m in messages]])
    return hashlib.sha256(text.encode()).hexdigest()
