"""The library: every mechanism that was ever accepted, by its source, with what it did in each of its trial periods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from outer_service.campaign import Campaign, ResearchOutcome
from outer_service.events import ResearchFinished, VerdictReached


@dataclass(frozen=True, slots=True)
class LibraryEntry:
    """One mechanism, remembered across runs."""

    id: str
    """SHA-256 of the source, hexadecimal."""
    summary: str
    source: str
    author: str
    session: str
    """Resource name of the research session it comes from."""
    task: str
    """Task it was written for."""
    create_time: datetime
    """When it was first accepted."""
    verdicts: tuple[VerdictReached, ...] = ()

    @property
    def name(self) -> str:
        return f"libraryEntries/{self.id}"


def accepted(before: Campaign, event: ResearchFinished, at: datetime) -> LibraryEntry | None:
    """The entry for a mechanism that ``event`` says was installed; None for controls and other outcomes."""
    session = before.session
    if event.outcome is not ResearchOutcome.INSTALLED or event.control or session is None:
        return None
    judged = session.judgements[-1]
    author = author_of(before.model, scripted=before.scripted)
    return LibraryEntry(
        event.source_sha256, judged.report.summary, judged.source, author, event.session, before.task, at
    )


def author_of(model: str, *, scripted: bool) -> str:
    """Who wrote what ``model`` wrote: the scripted researcher is never taken for a language model."""
    return "scripted researcher" if scripted else model
