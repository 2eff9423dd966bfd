"""The OuterLoopService on the wire. Every method translates a request, calls the domain, and translates the answer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import grpc
from bilevel.v1 import common_pb2, outer_pb2_grpc
from bilevel.v1 import outer_pb2 as pb

from mechanisms.sandbox.limits import SandboxPolicy
from outer_service import events, names, procedure_prompt, requests
from outer_service.campaign import Campaign
from outer_service.digest import TEMPLATES
from outer_service.importing import imported
from outer_service.inner_client import InnerClient
from outer_service.library_messages import imported_trials, library_entry_to_proto
from outer_service.preview import preview
from outer_service.store import Entry, Store
from outer_service.supervisor import Supervisor
from outer_service.translate import campaign_to_proto, entry_to_proto, sessions_to_proto
from service_kit.errors import Draining, InvalidArgument, WrongState
from service_kit.llm.failures import LimitTooSmall, Message
from service_kit.llm.tokens import estimate_messages
from service_kit.security.auth import caller_name
from service_kit.security.quota import NO_LIMIT, Quota
from service_kit.server import RECONNECT_SECONDS

NAME = "bilevel.v1.OuterLoopService"

_Context = grpc.aio.ServicerContext[Any, Any]


class OuterLoopServicer(outer_pb2_grpc.OuterLoopServiceServicer):
    """Serves the campaigns of ``supervisor``. Watch streams end when ``draining`` is set.

    ``priced`` says whether the model's price is known, without which a budget in money cannot be kept; ``sandbox`` is
    what an imported source is compiled under.
    """

    def __init__(
        self,
        store: Store,
        inner: InnerClient,
        supervisor: Supervisor,
        draining: asyncio.Event,
        *,
        priced: bool,
        context_tokens: int,
        sandbox: SandboxPolicy,
        quota: Quota = NO_LIMIT,
    ) -> None:
        self._store = store
        self._inner = inner
        self._supervisor = supervisor
        self._draining = draining
        self._priced = priced
        self._context_tokens = context_tokens
        self._sandbox = sandbox
        self._quota = quota

    async def CreateCampaign(  # noqa: N802
        self, request: pb.CreateCampaignRequest, context: _Context
    ) -> pb.CreateCampaignResponse:
        name = names.run_name(request.run, "run")
        policy = requests.policy_from_proto(request.policy, priced=self._priced)
        request_id = requests.request_id(request.request_id)
        known = await self._store.created_by(request_id) if request_id else None
        if known is not None:
            return pb.CreateCampaignResponse(campaign=campaign_to_proto(known))
        run = await self._inner.run(name)
        if run.state.terminal:
            allowed = ("created", "running", "paused")
            raise WrongState("run", name, run.state.value, "supervise", allowed)
        requests.check_checkpoint(run, policy)
        procedure = (await self._store.procedures()).current if policy.recursion else ""
        created = events.CampaignCreated(name, run.configured_task, policy, procedure, caller_name())
        campaign, new = await self._store.create(secrets.token_hex(6), created, request_id, self._quota)
        if new:
            self._supervisor.adopt(campaign)
        return pb.CreateCampaignResponse(campaign=campaign_to_proto(campaign))

    async def GetCampaign(self, request: pb.GetCampaignRequest, context: _Context) -> pb.GetCampaignResponse:  # noqa: N802
        campaign = await self._store.campaign(names.campaign_id(request.name, "name"))
        return pb.GetCampaignResponse(campaign=self._shown(campaign))

    async def ListCampaigns(  # noqa: N802
        self, request: pb.ListCampaignsRequest, context: _Context
    ) -> pb.ListCampaignsResponse:
        size = names.page_size(request.page_size)
        found = await self._store.campaigns(size + 1, names.page_position(request.page_token))
        more = names.page_token(found[size - 1][0]) if len(found) > size else ""
        campaigns = [self._shown(campaign) for _, campaign in found[:size]]
        return pb.ListCampaignsResponse(campaigns=campaigns, next_page_token=more)

    def _shown(self, campaign: Campaign) -> pb.Campaign:
        return campaign_to_proto(campaign, None if campaign.state.terminal else self._store.waits.of(campaign.name))

    async def CancelCampaign(  # noqa: N802
        self, request: pb.CancelCampaignRequest, context: _Context
    ) -> pb.CancelCampaignResponse:
        campaign_id = names.campaign_id(request.name, "name")
        reason = requests.reason(request.reason, "cancelled by a client")
        campaign = await self._supervisor.cancel(campaign_id, reason)
        return pb.CancelCampaignResponse(campaign=campaign_to_proto(campaign))

    async def PauseCampaign(  # noqa: N802
        self, request: pb.PauseCampaignRequest, context: _Context
    ) -> pb.PauseCampaignResponse:
        campaign_id = names.campaign_id(request.name, "name")
        campaign = await self._supervisor.pause(campaign_id, requests.reason(request.reason, "paused by a client"))
        return pb.PauseCampaignResponse(campaign=campaign_to_proto(campaign))

    async def ResumeCampaign(  # noqa: N802
        self, request: pb.ResumeCampaignRequest, context: _Context
    ) -> pb.ResumeCampaignResponse:
        campaign = await self._supervisor.resume(names.campaign_id(request.name, "name"))
        return pb.ResumeCampaignResponse(campaign=campaign_to_proto(campaign))

    async def WatchCampaign(  # noqa: N802
        self, request: pb.WatchCampaignRequest, context: _Context
    ) -> AsyncIterator[pb.WatchCampaignResponse]:
        campaign_id, after = names.campaign_id(request.campaign, "campaign"), request.after_sequence
        heartbeat = requests.heartbeat(request)
        campaign = await self._store.campaign(campaign_id)
        if not 0 <= after <= campaign.last_sequence:
            said = f"must be from 0 to {campaign.last_sequence}, the newest event's number; got {after}"
            raise InvalidArgument.of("after_sequence", said)
        if request.no_follow:
            async for entry in self._store.entries(campaign_id, after):
                yield pb.WatchCampaignResponse(event=entry_to_proto(campaign.name, entry))
            return
        async for item in self._store.watch(campaign_id, after, heartbeat=heartbeat, draining=self._draining):
            if isinstance(item, Entry):
                yield pb.WatchCampaignResponse(event=entry_to_proto(campaign.name, item))
            else:
                yield pb.WatchCampaignResponse(heartbeat=pb.CampaignHeartbeat(last_sequence=item.sequence))
            after = item.sequence
        campaign = await self._store.campaign(campaign_id)
        if not campaign.state.terminal or after < campaign.last_sequence:
            raise Draining(f"the event stream of {campaign.name}", RECONNECT_SECONDS)

    async def ListResearchSessions(  # noqa: N802
        self, request: pb.ListResearchSessionsRequest, context: _Context
    ) -> pb.ListResearchSessionsResponse:
        campaign_id = names.campaign_id(request.parent, "parent")
        entries = [entry async for entry in self._store.entries(campaign_id)]
        return pb.ListResearchSessionsResponse(sessions=sessions_to_proto(entries))

    async def ListLibraryEntries(  # noqa: N802
        self, request: pb.ListLibraryEntriesRequest, context: _Context
    ) -> pb.ListLibraryEntriesResponse:
        size = names.page_size(request.page_size)
        found = await self._store.library(size + 1, names.page_position(request.page_token))
        more = names.page_token(found[size - 1][0]) if len(found) > size else ""
        entries = [library_entry_to_proto(entry) for _, entry in found[:size]]
        return pb.ListLibraryEntriesResponse(entries=entries, next_page_token=more)

    async def PreviewPrompt(  # noqa: N802
        self, request: pb.PreviewPromptRequest, context: _Context
    ) -> pb.PreviewPromptResponse:
        name = names.run_name(request.run, "run")
        limit = request.context_tokens if request.HasField("context_tokens") else self._context_tokens
        if limit < 0:
            raise InvalidArgument.of("context_tokens", f"must be at least 0, where 0 is no limit; got {limit}")
        try:
            messages = await self._preview(name, request.round, limit)
        except LimitTooSmall as error:
            if not request.HasField("context_tokens"):
                raise
            said = f"must be at least {error.needed} for this prompt, or 0 for no limit; got {limit}"
            raise InvalidArgument.of("context_tokens", said) from error
        return pb.PreviewPromptResponse(
            messages=[common_pb2.ChatMessage(role=m.role, content=m.content) for m in messages],
            estimated_tokens=estimate_messages(messages),
            prompt_version=TEMPLATES.version,
        )

    async def _preview(self, run: str, wire: pb.ResearchRound.ValueType, limit: int) -> tuple[Message, ...]:
        if wire == pb.RESEARCH_ROUND_PROCEDURE:
            observation = await self._inner.observe(run)
            moments = await procedure_prompt.recorded(self._store)
            shown = procedure_prompt.shown(await self._store.procedures(), moments)
            return procedure_prompt.request(observation, shown, limit)
        round_ = requests.research_round(wire)
        observation, description = await asyncio.gather(self._inner.observe(run), self._inner.describe(run))
        return preview(round_, observation, description, limit)

    async def GetLibraryEntry(  # noqa: N802
        self, request: pb.GetLibraryEntryRequest, context: _Context
    ) -> pb.GetLibraryEntryResponse:
        entry = await self._store.library_entry(names.entry_id(request.name, "name"))
        return pb.GetLibraryEntryResponse(entry=library_entry_to_proto(entry))

    async def ImportLibraryEntry(  # noqa: N802
        self, request: pb.ImportLibraryEntryRequest, context: _Context
    ) -> pb.ImportLibraryEntryResponse:
        given = request.entry
        entry = await imported(
            given.source,
            title=given.title,
            author=given.author,
            derived_from=given.derived_from,
            task=given.task,
            model=given.model,
            scripted=given.scripted,
            trials=imported_trials(given),
            sandbox=self._sandbox,
        )
        entry, created = await self._store.add_to_library(entry)
        return pb.ImportLibraryEntryResponse(entry=library_entry_to_proto(entry), created=created)
