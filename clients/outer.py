"""The outer loop from a client's side: campaigns, their events, their research, the library."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Self

from bilevel.v1 import outer_pb2, outer_pb2_grpc

from clients.addresses import OUTER
from clients.connection import Methods, connect
from clients.watching import HEARTBEAT, PATIENCE, resumed
from service_kit.translate import duration_to_proto

METHODS = Methods(
    outer_pb2.DESCRIPTOR.services_by_name["OuterLoopService"],
    repeatable=(
        *("CreateCampaign", "GetCampaign", "ListCampaigns", "ListResearchSessions"),
        *("ListLibraryEntries", "GetLibraryEntry", "ImportLibraryEntry"),
    ),
)
"""What gRPC may do about each method."""


class OuterClient:
    """A connection to one outer service. ``async with OuterClient() as outer:`` closes it at the end.

    Every method raises :class:`service_kit.errors.RemoteError`, as :class:`clients.inner.InnerClient` does.
    """

    def __init__(self, address: str = OUTER.address) -> None:
        self.connection = connect(OUTER.at(address), METHODS)
        self._stub: outer_pb2_grpc.OuterLoopServiceAsyncStub = outer_pb2_grpc.OuterLoopServiceStub(
            self.connection.channel
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that are running fail."""
        await self.connection.close()

    async def create_campaign(
        self, run: str, policy: outer_pb2.CampaignPolicy, request_id: str = ""
    ) -> outer_pb2.Campaign:
        """Begins to supervise a run.

        Args:
            run: Resource name.
            policy: Levels, intervals and limits; see CampaignPolicy in outer.proto.
            request_id: Repeating one returns the first one's campaign.

        Raises RemoteError: INVALID_ARGUMENT naming the wrong fields, NOT_FOUND for an unknown run, ALREADY_EXISTS for a
        run that is supervised.
        """
        request = outer_pb2.CreateCampaignRequest(run=run, policy=policy, request_id=request_id or uuid.uuid4().hex)
        return (await self.connection.call(self._stub.CreateCampaign, request)).campaign

    async def get_campaign(self, name: str) -> outer_pb2.Campaign:
        """The campaign ``name`` (``campaigns/{campaign}``) as it is now. Raises RemoteError: NOT_FOUND."""
        request = outer_pb2.GetCampaignRequest(name=name)
        return (await self.connection.call(self._stub.GetCampaign, request)).campaign

    async def list_campaigns(self, limit: int = 1000) -> list[outer_pb2.Campaign]:
        """Up to ``limit`` campaigns, newest first."""
        campaigns: list[outer_pb2.Campaign] = []
        token = ""
        while len(campaigns) < limit:
            request = outer_pb2.ListCampaignsRequest(page_size=min(limit - len(campaigns), 1000), page_token=token)
            page = await self.connection.call(self._stub.ListCampaigns, request)
            campaigns += page.campaigns
            token = page.next_page_token
            if not token:
                break
        return campaigns

    async def campaign_of(self, run: str) -> outer_pb2.Campaign | None:
        """The newest campaign that supervises the run ``run``, or None."""
        return next((campaign for campaign in await self.list_campaigns() if campaign.run == run), None)

    async def cancel_campaign(self, name: str, reason: str = "") -> outer_pb2.Campaign:
        """Stops supervising as campaign ``name``, with ``reason``; the run goes on without an outer loop.

        Raises RemoteError: FAILED_PRECONDITION for a campaign that has ended.
        """
        request = outer_pb2.CancelCampaignRequest(name=name, reason=reason)
        return (await self.connection.call(self._stub.CancelCampaign, request)).campaign

    async def pause_campaign(self, name: str, reason: str = "") -> outer_pb2.Campaign:
        """Lets the ACTIVE campaign ``name`` rest, with ``reason``. Raises RemoteError: FAILED_PRECONDITION."""
        request = outer_pb2.PauseCampaignRequest(name=name, reason=reason)
        return (await self.connection.call(self._stub.PauseCampaign, request)).campaign

    async def resume_campaign(self, name: str) -> outer_pb2.Campaign:
        """Goes on with the PAUSED campaign ``name``. Raises RemoteError: FAILED_PRECONDITION in another state."""
        request = outer_pb2.ResumeCampaignRequest(name=name)
        return (await self.connection.call(self._stub.ResumeCampaign, request)).campaign

    async def watch_campaign(
        self,
        campaign: str,
        after_sequence: int = 0,
        *,
        follow: bool = True,
        heartbeat: float = HEARTBEAT,
        patience: float = PATIENCE,
    ) -> AsyncIterator[outer_pb2.CampaignEvent]:
        """The campaign's events, each once and in order; goes on by itself after a lost connection or a restart.

        Args:
            campaign: Resource name.
            after_sequence: The last number that the caller has; 0 is everything.
            follow: False ends the iteration after what is committed now.
            heartbeat: Seconds without events after which the server must show that it lives.
            patience: Seconds for which a lost server may stay away.

        Raises RemoteError: NOT_FOUND, DATA_LOSS for a gap, UNAVAILABLE once ``patience`` is over.
        """

        def open_stream(after: int) -> object:
            return self._stub.WatchCampaign(
                outer_pb2.WatchCampaignRequest(
                    campaign=campaign,
                    after_sequence=after,
                    heartbeat=duration_to_proto(heartbeat),
                    no_follow=not follow,
                )
            )

        explain = self.connection.explain
        events = resumed(open_stream, explain, after_sequence, heartbeat=heartbeat, patience=patience)
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def list_research_sessions(self, campaign: str) -> list[outer_pb2.ResearchSession]:
        """The research sessions of ``campaign``, oldest first, each with every prompt and answer."""
        request = outer_pb2.ListResearchSessionsRequest(parent=campaign)
        return list((await self.connection.call(self._stub.ListResearchSessions, request)).sessions)

    async def list_library_entries(self, limit: int = 50) -> list[outer_pb2.LibraryEntry]:
        """Up to ``limit`` mechanisms that were accepted once, newest first."""
        entries: list[outer_pb2.LibraryEntry] = []
        token = ""
        while len(entries) < limit:
            request = outer_pb2.ListLibraryEntriesRequest(page_size=min(limit - len(entries), 1000), page_token=token)
            page = await self.connection.call(self._stub.ListLibraryEntries, request)
            entries += page.entries
            token = page.next_page_token
            if not token:
                break
        return entries

    async def preview_prompt(
        self, run: str, research_round: outer_pb2.ResearchRound.ValueType, context_tokens: int | None = None
    ) -> outer_pb2.PreviewPromptResponse:
        """What the model would get for a run as it is now.

        Args:
            run: Resource name.
            research_round: The round of level 2; unspecified is level 1.5's analysis.
            context_tokens: Longest prompt in estimated tokens; by default the service's own setting.
        """
        request = outer_pb2.PreviewPromptRequest(run=run, round=research_round, context_tokens=context_tokens)
        return await self.connection.call(self._stub.PreviewPrompt, request)

    async def get_library_entry(self, name: str) -> outer_pb2.LibraryEntry:
        """The library's entry ``name`` (``library/{entry}``). Raises RemoteError: NOT_FOUND."""
        request = outer_pb2.GetLibraryEntryRequest(name=name)
        return (await self.connection.call(self._stub.GetLibraryEntry, request)).entry

    async def import_library_entry(self, entry: outer_pb2.LibraryEntry) -> tuple[outer_pb2.LibraryEntry, bool]:
        """Adds ``entry``, a mechanism from elsewhere, and says whether it is new; only the sandbox compiles it."""
        request = outer_pb2.ImportLibraryEntryRequest(entry=entry)
        response = await self.connection.call(self._stub.ImportLibraryEntry, request)
        return response.entry, response.created
