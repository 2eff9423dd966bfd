"""Lessons to compare and to rank."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from inner_service.lessons.lesson import Lesson

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def lesson() -> Callable[..., Lesson]:
    """Makes a lesson of task t on a cpu, written now."""

    def make(statement: str = "x helps", **fields: Any) -> Lesson:
        given = {"id": "a", "task": "t", "hardware": "cpu", "evidence": (), "create_time": NOW, "update_time": NOW}
        return Lesson(statement=statement, **(given | fields))

    return make
