"""Lessons: sentences of experience with evidence, kept across runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

MAX_STATEMENT = 2000
"""Longest lesson that a client may write, in characters."""
MAX_EVIDENCE = 64
"""Trials that one lesson keeps as evidence, the newest ones."""


class LessonKind(StrEnum):
    """What a lesson is about."""

    IDEA = "idea"
    """Something that was not tried yet and that the evidence suggests."""
    EXPERIMENT = "experiment"
    """Something that was tried, and what came of it."""


class FailureClass(StrEnum):
    """What a lesson about a failure blames."""

    IMPLEMENTATION = "implementation"
    """It broke before it could be judged."""
    FUNDAMENTAL = "fundamental"
    """It ran and did not help."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One sentence. ``evidence`` names the trials that support it; ``hardware`` is empty when it does not matter."""

    id: str
    statement: str
    task: str
    hardware: str
    evidence: tuple[str, ...]
    create_time: datetime
    update_time: datetime
    """When evidence was last added."""
    kind: LessonKind = LessonKind.EXPERIMENT
    failure: FailureClass | None = None
    parameters: tuple[str, ...] = ()
    author: str = ""
    scripted: bool = False
    imported: bool = False
    """Whether its evidence names trials of another service."""
    times_shown: int = 0
    """Proposed trials that had it in view."""
    times_helped: int = 0
    """Kept trials that had it in view."""
    times_cited: int = 0
    """Proposed trials that named it as a reason."""
    times_cited_kept: int = 0
    """Kept trials that named it as a reason."""

    @property
    def name(self) -> str:
        return f"lessons/{self.id}"

    def learnt_only_in(self, run_id: str) -> bool:
        """Whether a run knows all of its evidence from its own history."""
        return bool(self.evidence) and all(trial.startswith(f"runs/{run_id}/") for trial in self.evidence)


def joined(old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    """Evidence of a lesson that was found again: each trial once, the newest ``MAX_EVIDENCE``."""
    return tuple(dict.fromkeys((*old, *new)))[-MAX_EVIDENCE:]
