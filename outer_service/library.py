"""The library: every mechanism that was ever accepted, with its lineage and what it did each time it was installed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cache

from mechanisms import standard
from mechanisms.interface import Hook
from outer_service.campaign import Campaign, Offer, ResearchOutcome
from outer_service.events import ResearchFinished, VerdictReached

OFFERED = 12
"""Entries that one session is offered, at most, standard mechanisms aside."""
LOST_CAUSE = 2
"""Times that an entry may fail its probation, without ever passing one, before it is offered no more."""


class LibraryOrigin(StrEnum):
    """Where an entry comes from."""

    RESEARCHED = "researched"
    STANDARD = "standard"
    IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class LibraryTrial:
    """One time that an entry was installed, and what came of it."""

    campaign: str
    """Resource name."""
    run: str
    """Resource name."""
    task: str
    mechanism: str
    """Id of the mechanism in the run."""
    time: datetime
    verdicts: tuple[VerdictReached, ...] = ()
    imported: bool = False
    """Whether a file says so: it was not measured here."""


@dataclass(frozen=True, slots=True)
class LibraryEntry:
    """One mechanism, remembered across runs."""

    id: str
    """SHA-256 of the source, hexadecimal."""
    summary: str
    source: str
    author: str
    session: str
    """Resource name of the research session it comes from; empty when it comes from none."""
    task: str
    """Task it was written for."""
    create_time: datetime
    """When it was first accepted."""
    title: str = ""
    """What people call it: the id of the first mechanism that was made of it."""
    origin: LibraryOrigin = LibraryOrigin.RESEARCHED
    derived_from: str = ""
    """Resource name of the entry that it was derived from; empty for a new idea."""
    model: str = ""
    """Model that wrote it; empty when none did."""
    scripted: bool = False
    run: str = ""
    """Resource name of the run that it was first accepted in."""
    hooks: tuple[Hook, ...] = ()
    trials: tuple[LibraryTrial, ...] = ()

    @property
    def name(self) -> str:
        return f"libraryEntries/{self.id}"

    @property
    def measured(self) -> tuple[LibraryTrial, ...]:
        """The trials that were measured here and judged."""
        return tuple(trial for trial in self.trials if trial.verdicts and not trial.imported)

    @property
    def kept(self) -> int:
        """Measured trials after which it stayed."""
        return sum(not trial.verdicts[-1].verdict.removes for trial in self.measured)

    @property
    def passed(self) -> int:
        """Measured trials in which it passed its probation, whatever a later examination said: what a new run puts it
        to is the probation."""
        return sum(not trial.verdicts[0].verdict.removes for trial in self.measured)

    def record(self) -> str:
        """What it did so far, in a sentence. Imported reports are told apart."""
        judged, imported = self.measured, sum(trial.imported for trial in self.trials)
        told = f" An imported file tells of {imported} more trials." if imported else ""
        if not judged:
            here = len(self.trials) - imported
            untold = f"Installed {here} times and never judged." if here else "It was never tried and judged here."
            return f"{untold}{told}"
        final = [trial.verdicts[-1].effect for trial in judged]
        changed, kept = sum(e.changed_decisions for e in final), sum(e.kept_trials for e in final)
        tasks = ", ".join(dict.fromkeys(trial.task for trial in judged))
        return (
            f"Tried {len(judged)} times on {tasks}: it passed its probation {self.passed} times and stayed {self.kept}"
            f" times, changed {changed} decisions in all, and {kept} kept trials go back to it.{told}"
        )


def installed(
    known: LibraryEntry | None, before: Campaign, event: ResearchFinished, at: datetime
) -> LibraryEntry | None:
    """The entry after ``event``; None where nothing was installed that the library remembers, such as a control."""
    session = before.session
    if event.outcome is not ResearchOutcome.INSTALLED or event.control or session is None:
        return None
    trial = LibraryTrial(before.name, before.run, before.task, event.mechanism, at)
    if known is not None:
        return replace(known, trials=(*known.trials, trial))
    judged, is_standard = session.judgements[-1], event.source_sha256 in _standard_hashes()
    return LibraryEntry(
        id=event.source_sha256,
        summary=judged.report.summary,
        source=judged.source,
        author="standard" if is_standard else author_of(before.model, scripted=before.scripted),
        session="" if is_standard else event.session,
        task=before.task,
        create_time=at,
        title=event.mechanism,
        origin=LibraryOrigin.STANDARD if is_standard else LibraryOrigin.RESEARCHED,
        derived_from="" if is_standard else event.derived_from,
        model="" if is_standard else before.model,
        scripted=before.scripted and not is_standard,
        run=before.run,
        hooks=judged.report.hooks,
        trials=(trial,),
    )


def judged(entry: LibraryEntry, campaign: str, event: VerdictReached) -> LibraryEntry:
    """The entry with a verdict on the mechanism that ``campaign`` made of it."""
    trials = [
        replace(trial, verdicts=(*trial.verdicts, event))
        if (trial.campaign, trial.mechanism) == (campaign, event.mechanism)
        else trial
        for trial in entry.trials
    ]
    return replace(entry, trials=tuple(trials))


def offers(entries: Iterable[LibraryEntry], task: str, present: Collection[str]) -> tuple[Offer, ...]:
    """What a session on ``task`` is offered; ``present`` holds the hashes of the run's own mechanisms.

    Entries that stayed before come first, on this task before on others, the newest first among equals; standard
    mechanisms that were never accepted come last. An entry that only ever failed its probation is offered no more.
    """
    known = tuple(entries)
    hopeful = [e for e in known if e.id not in present and (e.passed or len(e.measured) < LOST_CAUSE)]
    hopeful.sort(key=lambda entry: entry.create_time, reverse=True)
    hopeful.sort(key=lambda entry: (_promise(entry), task in {trial.task for trial in entry.trials}), reverse=True)
    found = [_offer(entry, known) for entry in hopeful[:OFFERED]]
    accepted = {*present, *(entry.id for entry in known)}
    return (*found, *(offer for hash_, offer in _standard_offers() if hash_ not in accepted))


def author_of(model: str, *, scripted: bool) -> str:
    """Who wrote what ``model`` wrote: the scripted researcher is never taken for a language model."""
    return "scripted researcher" if scripted else model


def standard_source(name: str) -> str:
    """The source behind ``standardMechanisms/{name}``."""
    return standard.sources()[name.partition("/")[2]]


def _promise(entry: LibraryEntry) -> float:
    """Share of its trials after which it stayed, as if it had stayed once in two earlier ones (Laplace)."""
    return (entry.kept + 1) / (len(entry.measured) + 2)


def _offer(entry: LibraryEntry, known: Sequence[LibraryEntry]) -> Offer:
    is_standard = entry.origin is LibraryOrigin.STANDARD
    title = entry.title or entry.id[:12]
    if sum(other.title == entry.title for other in known) > 1:
        title = f"{title}-{entry.id[:6]}"
    return Offer(
        choice=f"{'standard' if is_standard else 'library'}:{title}",
        entry=entry.name,
        summary=entry.summary,
        record=entry.record(),
        standard=is_standard,
        judged=len(entry.measured),
        kept=entry.kept,
    )


@cache
def _standard_offers() -> tuple[tuple[str, Offer], ...]:
    offered = []
    for name, source in standard.sources().items():
        choice = f"standard:{name.replace('_', '-')}"
        record = "Ships with the system; it was never tried here."
        summary = source.partition('"""')[2].partition("\n")[0].rstrip('"')
        offered.append((_hash(source), Offer(choice, f"standardMechanisms/{name}", summary, record, True)))
    return tuple(offered)


def _standard_hashes() -> frozenset[str]:
    return frozenset(hash_ for hash_, _ in _standard_offers())


def _hash(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()
