"""Where campaigns are kept: the event log, and beside it the rows that repeat what it says. The only place with SQL.

Ownership: the store owns its database. One process supervises the campaigns of one database. Concurrency: commits of
one campaign happen one after the other; each sees the state that all earlier ones left. Readers and watchers delay
nobody.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from pydantic import TypeAdapter
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from outer_service import events
from outer_service.campaign import Campaign, CampaignState
from outer_service.fold import apply
from outer_service.library import LibraryEntry, installed, judged
from outer_service.tables import SCHEMA, campaigns, library
from service_kit.database import Database
from service_kit.errors import AlreadyExists, NotFound
from service_kit.eventlog import EventLog, Idle, StoredEvent

_CAMPAIGN = TypeAdapter(Campaign)
_ENTRY = TypeAdapter(LibraryEntry)

Decide = Callable[[Campaign], Sequence[events.Event]]
"""What is to happen, as a function of the state in which it happens. May raise to let nothing happen."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of a campaign with its place in the log."""

    sequence: int
    time: datetime
    event: events.Event


class Store:
    """The campaigns and the library of one outer service. Create it with :meth:`open`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = EventLog(database)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @classmethod
    async def open(cls, url: str) -> Self:
        """Raises :class:`InvalidArgument` for an unusable URL and :class:`ServiceError` without a database."""
        return cls(await Database.open(url, SCHEMA, exclusive=True))

    async def close(self) -> None:
        await self._database.close()

    async def create(
        self, campaign_id: str, event: events.CampaignCreated, request_id: str = ""
    ) -> tuple[Campaign, bool]:
        """Begin a campaign; with a ``request_id`` that was used before, the campaign that it created then.

        Also says whether the campaign is new. Raises :class:`AlreadyExists` when another campaign supervises the run.
        """
        async with self._database.transaction() as connection:
            if request_id and (known := await self._by_request(connection, request_id)) is not None:
                return known, False
            unfinished = [state.value for state in CampaignState if not state.terminal]
            query = select(campaigns.c.id).where(campaigns.c.run == event.run, campaigns.c.state.in_(unfinished))
            other = (await connection.execute(query)).scalar_one_or_none()
            if other is not None:
                hint = f"campaigns/{other} supervises it; cancel that campaign first"
                raise AlreadyExists("campaign of run", event.run, hint)
            [stored] = await self._log.append(connection, stream_of(campaign_id), [events.encode(event)])
            campaign = apply(None, event, stored.time, stored.sequence, campaign_id)
            row = {"id": campaign_id, "request_id": request_id or None, "run": campaign.run, **_row(campaign)}
            await connection.execute(insert(campaigns), row)
        return campaign, True

    async def created_by(self, request_id: str) -> Campaign | None:
        """The campaign that a request created, or None."""
        async with self._database.reading() as connection:
            return await self._by_request(connection, request_id)

    async def campaign(self, campaign_id: str) -> Campaign:
        """Raises :class:`NotFound`."""
        async with self._database.reading() as connection:
            return await self._read(connection, campaign_id)

    async def commit(self, campaign_id: str, decide: Decide) -> Campaign:
        """Let ``decide``'s events happen: the log, the rows and the library change together or not at all.

        Raises :class:`NotFound`, whatever ``decide`` raises, and IllegalEvent for what cannot happen.
        """
        async with self._locks[campaign_id], self._database.transaction() as connection:
            campaign = await self._read(connection, campaign_id)
            happening = decide(campaign)
            stored = await self._log.append(connection, stream_of(campaign_id), [events.encode(e) for e in happening])
            for event, at in zip(happening, stored, strict=True):
                await self._remember(connection, campaign, event, at.time)
                campaign = apply(campaign, event, at.time, at.sequence, campaign_id)
            if happening:
                query = update(campaigns).where(campaigns.c.id == campaign_id)
                await connection.execute(query.values(**_row(campaign)))
        return campaign

    async def campaigns(self, limit: int, before: int | None = None) -> list[tuple[int, Campaign]]:
        """Up to ``limit`` campaigns, newest first, with their numbers; ``before`` continues after that number."""
        query = select(campaigns.c.number, campaigns.c.document).order_by(campaigns.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(campaigns.c.number < before)
        async with self._database.reading() as connection:
            rows = await connection.execute(query)
            return [(row.number, _CAMPAIGN.validate_python(row.document)) for row in rows]

    async def campaigns_in(self, *states: CampaignState) -> list[Campaign]:
        """The campaigns in one of ``states``, oldest first."""
        wanted = [state.value for state in states]
        query = select(campaigns.c.document).where(campaigns.c.state.in_(wanted)).order_by(campaigns.c.number)
        async with self._database.reading() as connection:
            return [_CAMPAIGN.validate_python(document) for document in (await connection.execute(query)).scalars()]

    async def entries(self, campaign_id: str, after: int = 0) -> AsyncIterator[Entry]:
        """The events after number ``after`` that are committed by now. Raises :class:`NotFound`."""
        last = (await self.campaign(campaign_id)).last_sequence
        while after < last:
            for stored in await self._log.read(stream_of(campaign_id), after, 256):
                if stored.sequence > last:
                    return
                yield _entry(stored)
                after = stored.sequence

    async def watch(
        self, campaign_id: str, after: int, *, heartbeat: float, draining: asyncio.Event
    ) -> AsyncIterator[Entry | Idle]:
        """Every event after number ``after``, each once and in order, then the new ones; ends with the campaign."""
        campaign = await self.campaign(campaign_id)
        if campaign.state.terminal and after >= campaign.last_sequence:
            return
        async for item in self._log.watch(stream_of(campaign_id), after, heartbeat=heartbeat, draining=draining):
            if isinstance(item, Idle):
                yield item
                continue
            entry = _entry(item)
            yield entry
            if isinstance(entry.event, events.CampaignStateChanged) and entry.event.to_state.terminal:
                return

    async def library(self, limit: int, before: int | None = None) -> list[tuple[int, LibraryEntry]]:
        """Up to ``limit`` entries, newest first, with their numbers; ``before`` continues after that number."""
        query = select(library.c.number, library.c.document).order_by(library.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(library.c.number < before)
        async with self._database.reading() as connection:
            return [(row.number, _ENTRY.validate_python(row.document)) for row in await connection.execute(query)]

    async def add_to_library(self, entry: LibraryEntry) -> tuple[LibraryEntry, bool]:
        """The entry with this source, and whether it is new: one that is known already stays as it is."""
        async with self._database.transaction() as connection:
            known = await _library_entry(connection, entry.id)
            if known is None:
                await _put(connection, entry, new=True)
        return known or entry, known is None

    async def library_entry(self, entry_id: str) -> LibraryEntry:
        """Raises :class:`NotFound`."""
        async with self._database.reading() as connection:
            entry = await _library_entry(connection, entry_id)
        if entry is None:
            hint = "ListLibraryEntries gives the entries that exist"
            raise NotFound("library entry", f"libraryEntries/{entry_id}", hint)
        return entry

    async def _read(self, connection: AsyncConnection, campaign_id: str) -> Campaign:
        query = select(campaigns.c.document).where(campaigns.c.id == campaign_id)
        document = (await connection.execute(query)).scalar_one_or_none()
        if document is None:
            hint = "ListCampaigns gives the campaigns that exist"
            raise NotFound("campaign", f"campaigns/{campaign_id}", hint)
        campaign: Campaign = _CAMPAIGN.validate_python(document)
        return campaign

    async def _by_request(self, connection: AsyncConnection, request_id: str) -> Campaign | None:
        query = select(campaigns.c.document).where(campaigns.c.request_id == request_id)
        document = (await connection.execute(query)).scalar_one_or_none()
        return None if document is None else _CAMPAIGN.validate_python(document)

    async def _remember(self, connection: AsyncConnection, before: Campaign, event: events.Event, at: datetime) -> None:
        """What ``event`` means for the library."""
        if isinstance(event, events.ResearchFinished):
            known = await _library_entry(connection, event.source_sha256)
            entry = installed(known, before, event, at)
            if entry is not None:
                await _put(connection, entry, new=known is None)
        elif isinstance(event, events.VerdictReached):
            hashes = [mechanism.source_sha256 for mechanism in before.mechanisms if mechanism.id == event.mechanism]
            for found in [await _library_entry(connection, sha256) for sha256 in hashes]:
                if found is not None:
                    await _put(connection, judged(found, before.name, event), new=False)


def stream_of(campaign_id: str) -> str:
    """The name of the campaign's stream in the log."""
    return f"campaigns/{campaign_id}"


async def _library_entry(connection: AsyncConnection, entry_id: str) -> LibraryEntry | None:
    query = select(library.c.document).where(library.c.id == entry_id)
    document = (await connection.execute(query)).scalar_one_or_none()
    return None if document is None else _ENTRY.validate_python(document)


async def _put(connection: AsyncConnection, entry: LibraryEntry, *, new: bool) -> None:
    document = _ENTRY.dump_python(entry, mode="json")
    if new:
        await connection.execute(insert(library), {"id": entry.id, "document": document})
    else:
        await connection.execute(update(library).where(library.c.id == entry.id).values(document=document))


def _entry(stored: StoredEvent) -> Entry:
    return Entry(stored.sequence, stored.time, events.decode(stored.kind, stored.payload))


def _row(campaign: Campaign) -> dict[str, object]:
    return {"state": campaign.state.value, "document": _CAMPAIGN.dump_python(campaign, mode="json")}
