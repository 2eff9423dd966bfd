"""Ways in which an inner or an outer service can break the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from bilevel.v1 import inner_pb2, outer_pb2, trace_pb2
from fault_proxy import Fault, Forward, Items


class Forgetful(Fault):
    """Creates something new for a repeated request_id."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        if method in ("CreateRun", "CreateCampaign", "CreateLesson") and len(request.request_id) <= 64:
            request.request_id = ""
        return await forward(request)


class Unexplained(Fault):
    """Refuses without details."""

    def trailers(self, metadata: Any) -> Any:
        return ()


class Unpaged(Fault):
    """Gives the first page for every token of a page."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        if method == "ListRuns" and not request.page_token.startswith("no page"):
            request.page_token = ""
        return await forward(request)


class Gap(Fault):
    """Loses an event, and the first one of a campaign with it."""

    async def stream(self, method: str, request: Any, items: Items) -> AsyncIterator[Any]:
        lost = 2 if method == "WatchTrace" else 1
        async for item in items(request):
            if item.DESCRIPTOR.name.startswith("Watch") and item.event.sequence == lost:
                continue
            yield item


class OneTooMany(Fault):
    """Sends the last event that the watcher has once more."""

    async def stream(self, method: str, request: Any, items: Items) -> AsyncIterator[Any]:
        if method == "WatchTrace" and request.after_sequence > 0 and request.no_follow:
            request.after_sequence -= 1
        async for item in items(request):
            yield item


class Silent(Fault):
    """Sends no heartbeats."""

    async def stream(self, method: str, request: Any, items: Items) -> AsyncIterator[Any]:
        async for item in items(request):
            if not item.HasField("heartbeat"):
                yield item


class Stuttering(Fault):
    """Sends every live event twice."""

    async def stream(self, method: str, request: Any, items: Items) -> AsyncIterator[Any]:
        async for item in items(request):
            yield item
            if method == "WatchTrace" and not request.no_follow and item.HasField("event"):
                yield item


class Endless(Fault):
    """A watch goes on after its resource has ended."""

    async def stream(self, method: str, request: Any, items: Items) -> AsyncIterator[Any]:
        async for item in items(request):
            yield item
        if method == "WatchTrace" and not request.no_follow:
            await asyncio.Event().wait()


class ConstantEtag(Fault):
    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        for field in ("run", "campaign"):
            if field in answer.DESCRIPTOR.fields_by_name:
                getattr(answer, field).etag = "etag"
        return answer


class PausesAnything(Fault):
    """Answers a pause that the state does not allow as if it had been done."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        try:
            return await forward(request)
        except grpc.aio.AioRpcError:
            if method == "PauseRun":
                return inner_pb2.PauseRunResponse()
            if method == "PauseCampaign":
                return outer_pb2.PauseCampaignResponse()
            raise


class CancelsNothing(Fault):
    """Says that a run or a campaign was cancelled, and lets it be."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        if request.DESCRIPTOR.name == "CancelRunRequest" and "examination is over" not in request.reason:
            run = trace_pb2.Run(name=request.name, state=trace_pb2.RUN_STATE_CANCELLED, state_reason=request.reason)
            return inner_pb2.CancelRunResponse(run=run)
        if request.DESCRIPTOR.name == "CancelCampaignRequest" and "examination is over" not in request.reason:
            state = outer_pb2.CAMPAIGN_STATE_CANCELLED
            campaign = outer_pb2.Campaign(name=request.name, state=state, state_reason=request.reason)
            return outer_pb2.CancelCampaignResponse(campaign=campaign)
        return await forward(request)


class KeepsNothing(Fault):
    """Says that a better trial was discarded."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if method == "Accept" and answer.trial.number > 0:
            answer.trial.state = trace_pb2.TRIAL_STATE_DISCARDED
        return answer


class LosesRemarks(Fault):
    """Takes a remark for one that is there already."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        if method == "Remark" and 0 < len(request.text) <= 2000 and "of the examination" in request.text:
            return inner_pb2.RemarkResponse(sequence=1)
        return await forward(request)


class NeverFreezes(Fault):
    """Takes what is to be frozen, and forgets it."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        if method == "UpdateSearchConfig":
            del request.freeze[:]
        return await forward(request)


class IgnoresRevisions(Fault):
    """Lets the last update win."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        if method == "UpdateSearchConfig":
            request.expected_revision, request.check_revision = 0, False
        return await forward(request)


class ApprovesEverything(Fault):
    """A gate that accepts whatever it is shown."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if method == "CheckMechanism":
            answer.report.verdict = trace_pb2.GATE_VERDICT_ACCEPTED
        return answer


class BarePolicy(Fault):
    """Leaves the defaults of a policy to the reader's imagination."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if "campaign" in answer.DESCRIPTOR.fields_by_name:
            answer.campaign.policy.Clear()
        return answer


class TakesAnyPolicy(Fault):
    """Works by another policy when the one asked for cannot be kept."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        if method != "CreateCampaign":
            return await forward(request)
        try:
            return await forward(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            request.policy.Clear()
            return await forward(request)


class OpenCycles(Fault):
    """Never says that a cycle is over."""

    async def stream(self, method: str, request: Any, items: Items) -> AsyncIterator[Any]:
        async for item in items(request):
            if item.event.WhichOneof("event") != "cycle_finished":
                yield item


class FoundEverything(Fault):
    """Gives an empty entry for what does not exist."""

    async def unary(self, method: str, request: Any, forward: Forward) -> Any:
        try:
            return await forward(request)
        except grpc.aio.AioRpcError as error:
            if method == "GetLibraryEntry" and error.code() is grpc.StatusCode.NOT_FOUND:
                return outer_pb2.GetLibraryEntryResponse()
            raise
