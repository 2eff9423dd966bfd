"""Makes the SQLite database of a store fail, and work again."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from typing import Any

import pytest
from sqlalchemy import event

WAYS = pytest.mark.parametrize(
    ("broken", "mended", "cause", "hint"),
    [
        ("PRAGMA max_page_count=1", "PRAGMA max_page_count=1073741823", "disk is full", "Make space"),
        ("PRAGMA query_only=ON", "PRAGMA query_only=OFF", "readonly database", "Make it writable"),
    ],
    ids=["full", "read-only"],
)
"""Statements after which it fails and works again, and what is said of it."""


class Switch:
    """Runs one statement whenever a connection is taken for a transaction. To be made while none is under way."""

    def __init__(self, store: Any) -> None:
        self.engine = store._database._engine.sync_engine
        self._statement = ""
        event.listen(self.engine, "checkout", lambda raw, *_: raw.cursor().execute(self._statement or "SELECT 1"))

    def to(self, statement: str) -> None:
        self._statement = statement


async def bilevel(*arguments: str) -> str:
    """What the command prints."""
    command = (sys.executable, "-c", "from clients.cli import main; main()", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()
