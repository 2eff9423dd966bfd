"""Where campaigns are kept: the event log, and beside it the rows that repeat what it says. The only place with SQL.

Ownership: the store owns its database. A SQLite file belongs to one store of one process; any number of stores share a
PostgreSQL database.

Concurrency: commits of one campaign happen one after the other, whichever store makes them; each sees the state that
all earlier ones left. A commit within a lease's guard, which is what supervises a campaign, fails in its own
transaction once the lease is another's (:mod:`service_kit.leases`). Readers and watchers delay nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from typing import Any, Self

from pydantic import TypeAdapter
from sqlalchemy import Row, insert, select, update

from outer_service import events, fold
from outer_service import procedures as procedure_log
from outer_service.campaign import Campaign, CampaignState
from outer_service.fold import IllegalEvent, apply
from outer_service.library import LibraryEntry, installed, judged
from outer_service.procedures import Procedures
from outer_service.tables import SCHEMA, campaigns, library
from service_kit.damage import Unfoldable, in_one_line
from service_kit.database import Database
from service_kit.engines import Transaction
from service_kit.errors import AlreadyExists, NotFound, StorageFailed
from service_kit.eventlog import EventLog, Idle, Problem, StoredEvent
from service_kit.leases import LEASE_SECONDS, Leases
from service_kit.security.quota import NO_LIMIT, Quota
from service_kit.waits import Waits

MOST_PROCEDURE_EVENTS = 1_000_000
"""All of them: a campaign adds a few."""
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

    def __init__(self, database: Database, lease_seconds: float = LEASE_SECONDS) -> None:
        self.leases = Leases(database, lease_seconds)
        self.waits = Waits()
        self._database = database
        self._log = EventLog(database)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @classmethod
    async def open(cls, url: str, lease_seconds: float = LEASE_SECONDS) -> Self:
        """Raises :class:`InvalidArgument` for an unusable URL and :class:`ServiceError` without a database."""
        store = cls(await Database.open(url, SCHEMA, exclusive=True), lease_seconds)
        if not store.shared:
            try:
                await store.leases.revoke_all()  # whoever held them has ended
            except StorageFailed:
                await store.close()
                raise
        return store

    @classmethod
    async def open_for_audit(cls, url: str) -> Self:
        """Beside the service that owns it, for :meth:`verify` and :meth:`rebuild`; the tables must be the newest."""
        return cls(await Database.open(url, SCHEMA, upgrade=False))

    @property
    def shared(self) -> bool:
        """Whether other services may work on the same campaigns."""
        return self._database.shared

    async def close(self) -> None:
        await self._database.close()

    async def extent(self) -> dict[str, int]:
        """Every stream of the log with its last number."""
        async with self._database.reading() as connection:
            return await self._log.streams(connection)

    async def create(
        self, campaign_id: str, event: events.CampaignCreated, request_id: str = "", quota: Quota = NO_LIMIT
    ) -> tuple[Campaign, bool]:
        """Begin a campaign; with a ``request_id`` that was used before, the campaign that it created then.

        Also says whether the campaign is new. Raises :class:`AlreadyExists` when another campaign supervises the run,
        and :class:`Exhausted` when the owner has as many campaigns as ``quota`` lets it have.
        """
        async with self._database.transaction() as connection:
            await connection.run_sync(self._database.alone, campaigns)
            if request_id and (known := await self._by_request(connection, request_id)) is not None:
                return known, False
            unfinished = [state.value for state in CampaignState if not state.terminal]
            query = select(campaigns.c.id).where(campaigns.c.run == event.run, campaigns.c.state.in_(unfinished))
            other = (await connection.execute(query)).scalar_one_or_none()
            if other is not None:
                hint = f"campaigns/{other} supervises it; cancel that campaign first"
                raise AlreadyExists("campaign of run", event.run, hint)
            if quota.limited:
                owned = select(campaigns.c.state).where(campaigns.c.owner == event.owner)
                states = (await connection.execute(owned)).scalars()
                quota.check("campaigns", event.owner, [CampaignState(state).terminal for state in states])
            [stored] = await self._log.append(connection, stream_of(campaign_id), [events.encode(event)])
            campaign = apply(None, event, stored.time, stored.sequence, campaign_id)
            row = {"id": campaign_id, "request_id": request_id or None, **_row(campaign)}
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

    async def commit(self, campaign_id: str, decide: Decide, *, revoke: bool = False) -> Campaign:
        """Let ``decide``'s events happen: the log, the rows and the library change together or not at all.

        With ``revoke`` all leases of the campaign end with it, so that nobody works on it any more. Raises
        :class:`NotFound`, whatever ``decide`` raises, IllegalEvent for what cannot happen, :class:`LeaseLost` and
        :class:`StorageFailed`.
        """
        return await self._database.uninterrupted(self._commit(campaign_id, decide, revoke))

    async def _commit(self, campaign_id: str, decide: Decide, revoke: bool) -> Campaign:
        stream = stream_of(campaign_id)
        async with self._locks[campaign_id], self._database.transaction() as connection:
            await connection.run_sync(self.leases.check)
            if revoke:
                await connection.run_sync(self.leases.revoke, stream)
            await self._log.lock(connection, stream)
            campaign = await self._read(connection, campaign_id)
            happening = decide(campaign)
            stored = await self._log.append(connection, stream, [events.encode(e) for e in happening])
            for event, at in zip(happening, stored, strict=True):
                await self._remember(connection, campaign, event, at.time)
                campaign = apply(campaign, event, at.time, at.sequence, campaign_id)
            if happening:
                query = update(campaigns).where(campaigns.c.id == campaign_id)
                await connection.execute(query.values(**_row(campaign)))
        if any(isinstance(event, events.CycleFinished) for event in happening):
            self.waits.got_on(stream)
        return campaign

    async def campaigns(self, limit: int, before: int | None = None) -> list[tuple[int, Campaign]]:
        """Up to ``limit`` campaigns, newest first, with their numbers; ``before`` continues after that number."""
        query = select(campaigns).order_by(campaigns.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(campaigns.c.number < before)
        async with self._database.reading() as connection:
            return [(row.number, await self._of(connection, row)) for row in await connection.execute(query)]

    async def campaigns_in(self, *states: CampaignState) -> list[Campaign]:
        """The campaigns in one of ``states``, oldest first."""
        wanted = [state.value for state in states]
        query = select(campaigns).where(campaigns.c.state.in_(wanted)).order_by(campaigns.c.number)
        async with self._database.reading() as connection:
            return [await self._of(connection, row) for row in await connection.execute(query)]

    async def verify(self, campaign_id: str = "") -> list[Problem]:
        """Everything that rows or numbers say and the log does not bear out; of all campaigns without ``campaign_id``.

        The library is not looked at: it outlives campaigns. Raises :class:`NotFound` for a campaign without a row and
        without a log.
        """
        found = []
        async with self._database.reading() as connection:
            streams = await self._log.streams(connection)
            rows = {stream_of(row.id): row for row in await connection.execute(select(campaigns))}
            there = streams.keys() | rows.keys()
            if campaign_id and stream_of(campaign_id) not in there:
                raise _unknown(campaign_id)
            for stream in [stream_of(campaign_id)] if campaign_id else sorted(there):
                if stream == procedure_log.STREAM:  # belongs to no campaign
                    problems = await self._log.missing(connection, stream, streams[stream])
                else:
                    problems = await self._problems(connection, stream, streams.get(stream), rows.get(stream))
                found += [Problem(stream, text) for text in problems]
        return found

    async def _problems(
        self, connection: Transaction, stream: str, last: int | None, row: Row[Any] | None
    ) -> list[str]:
        if last is None:
            return ["there are rows, but no log"]
        if missing := await self._log.missing(connection, stream, last):
            return missing
        try:
            folded = await self._folded(connection, stream.removeprefix("campaigns/"))
        except Unfoldable as error:
            return [str(error)]
        if row is None:
            return ["the row of the campaign is missing"]
        written = _row(folded)
        columns = {name: getattr(row, name) for name in ("run", "state", "owner")}
        found = [
            f"the row's {name} is {value}, the log says {written[name]}"
            for name, value in columns.items()
            if value != written[name]
        ]
        try:
            stored = _CAMPAIGN.validate_python(row.document)
        except ValueError as error:
            return [*found, f"the row cannot be read: {in_one_line(error)}"]
        names = [field.name for field in fields(folded) if getattr(stored, field.name) != getattr(folded, field.name)]
        return found + [f"{name} is not what the log says" for name in names]

    async def rebuild(self, campaign_id: str) -> Campaign:
        """Write a campaign's row anew from its log. Raises :class:`NotFound`."""
        async with self._database.transaction() as connection:
            await self._log.lock(connection, stream_of(campaign_id))
            campaign = await self._folded(connection, campaign_id)
            known = update(campaigns).where(campaigns.c.id == campaign_id).values(**_row(campaign))
            if (await connection.execute(known.returning(campaigns.c.id))).first() is None:
                await connection.execute(insert(campaigns), {"id": campaign_id, **_row(campaign)})
        return campaign

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

    async def procedures(self) -> Procedures:
        """The research procedures over all campaigns."""
        stored = await self._log.read(procedure_log.STREAM, limit=MOST_PROCEDURE_EVENTS)
        return procedure_log.fold(procedure_log.decode(event.kind, event.payload) for event in stored)

    async def note_procedure(self, event: procedure_log.ProcedureEvent) -> None:
        """Let ``event`` happen to the research procedures."""
        async with self._database.transaction() as connection:
            await self._log.append(connection, procedure_log.STREAM, [procedure_log.encode(event)])

    async def library_entry(self, entry_id: str) -> LibraryEntry:
        """Raises :class:`NotFound`."""
        async with self._database.reading() as connection:
            entry = await _library_entry(connection, entry_id)
        if entry is None:
            hint = "ListLibraryEntries gives the entries that exist"
            raise NotFound("library entry", f"libraryEntries/{entry_id}", hint)
        return entry

    async def _read(self, connection: Transaction, campaign_id: str) -> Campaign:
        row = (await connection.execute(select(campaigns).where(campaigns.c.id == campaign_id))).first()
        if row is None:
            raise _unknown(campaign_id)
        return await self._of(connection, row)

    async def _of(self, connection: Transaction, row: Row[Any]) -> Campaign:
        """The campaign of a row; from its log where other code wrote the row."""
        if row.fingerprint != fingerprint():
            return await self._folded(connection, row.id)
        campaign: Campaign = _CAMPAIGN.validate_python(row.document)
        return campaign

    async def _folded(self, connection: Transaction, campaign_id: str) -> Campaign:
        """The fold of the whole log. Raises :class:`NotFound` and Unfoldable."""
        campaign, after = None, 0
        while stored := await self._log.read(stream_of(campaign_id), after, connection=connection):
            for entry in stored:
                try:
                    event = events.decode(entry.kind, entry.payload)
                    campaign = apply(campaign, event, entry.time, entry.sequence, campaign_id)
                except (ValueError, KeyError) as error:
                    raise Unfoldable(f"event {entry.sequence} cannot be read: {in_one_line(error)}") from error
                except IllegalEvent as error:
                    text = f"event {entry.sequence} cannot follow those before it: {error}"
                    raise Unfoldable(text) from error
            after = stored[-1].sequence
        if campaign is None:
            raise _unknown(campaign_id)
        return campaign

    async def _by_request(self, connection: Transaction, request_id: str) -> Campaign | None:
        row = (await connection.execute(select(campaigns).where(campaigns.c.request_id == request_id))).first()
        return None if row is None else await self._of(connection, row)

    async def _remember(self, connection: Transaction, before: Campaign, event: events.Event, at: datetime) -> None:
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


@cache
def fingerprint() -> str:
    """Of the code that writes the rows: the shape of a campaign and how it follows from the events."""
    shape = json.dumps(_CAMPAIGN.json_schema(), sort_keys=True)
    return hashlib.sha256(f"{shape}\n{inspect.getsource(fold)}".encode()).hexdigest()[:16]


def stream_of(campaign_id: str) -> str:
    """The name of the campaign's stream in the log."""
    return f"campaigns/{campaign_id}"


async def _library_entry(connection: Transaction, entry_id: str) -> LibraryEntry | None:
    query = select(library.c.document).where(library.c.id == entry_id)
    document = (await connection.execute(query)).scalar_one_or_none()
    return None if document is None else _ENTRY.validate_python(document)


async def _put(connection: Transaction, entry: LibraryEntry, *, new: bool) -> None:
    document = _ENTRY.dump_python(entry, mode="json")
    if new:
        await connection.execute(insert(library), {"id": entry.id, "document": document})
    else:
        await connection.execute(update(library).where(library.c.id == entry.id).values(document=document))


def _entry(stored: StoredEvent) -> Entry:
    return Entry(stored.sequence, stored.time, events.decode(stored.kind, stored.payload))


def _row(campaign: Campaign) -> dict[str, object]:
    document = _CAMPAIGN.dump_python(campaign, mode="json")
    state = campaign.state.value
    return {
        "run": campaign.run,
        "state": state,
        "owner": campaign.owner,
        "document": document,
        "fingerprint": fingerprint(),
    }


def _unknown(campaign_id: str) -> NotFound:
    return NotFound("campaign", f"campaigns/{campaign_id}", "ListCampaigns gives the campaigns that exist")
