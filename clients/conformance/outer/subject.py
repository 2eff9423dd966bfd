"""An outer service under examination, with the inner service whose runs it supervises."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bilevel.v1 import outer_pb2, trace_pb2

from clients.conformance.event_streams import EventStream
from clients.conformance.expect import expect
from clients.conformance.inner.subject import InnerSubject
from clients.conformance.once import Once
from clients.conformance.suite import Suite
from clients.conformance.wire import Refusal, Wire

SERVICE = "bilevel.v1.OuterLoopService"
TERMINAL = (
    outer_pb2.CAMPAIGN_STATE_FINISHED,
    outer_pb2.CAMPAIGN_STATE_CANCELLED,
    outer_pb2.CAMPAIGN_STATE_FAILED,
)
_CAMPAIGN_SECONDS = 240.0
"""A whole campaign asks a model and runs the gate several times."""


@dataclass(frozen=True, slots=True)
class Supervised:
    """A campaign over a whole run, both ended."""

    campaign: outer_pb2.Campaign
    run: trace_pb2.Run
    events: Sequence[outer_pb2.CampaignEvent]
    python: bool
    """Whether the inner service runs mechanisms."""


class OuterSubject:
    """Reaches an outer service; cancels every campaign and every run that it created in the end."""

    def __init__(self, wire: Wire, inner: InnerSubject) -> None:
        self.wire, self.inner, self.wires = wire, inner, (wire,)
        self.patience = 60.0
        self.stream = EventStream(wire, "WatchCampaign", "campaign")
        self.idle = Once(self._idle)
        """An ACTIVE campaign over a run that nobody starts."""
        self.cancelled = Once(self._cancelled)
        self.supervised = Once(self._supervised)
        self._campaigns: list[str] = []

    async def reach(self) -> None:
        """Raises ServiceError where one of both services cannot be reached."""
        await self.wire.reachable()
        await self.inner.reach()
        self.patience = _CAMPAIGN_SECONDS + self.inner.patience

    async def close(self) -> None:
        """Leaves nothing behind that runs."""
        for campaign in self._campaigns:
            try:
                await self.wire.call("CancelCampaign", name=campaign, reason="the examination is over")
            except Refusal:
                continue  # it has ended already
        await self.inner.close()
        await self.wire.close()

    async def create(self, run: str, request_id: str = "", **policy: Any) -> outer_pb2.Campaign:
        """A new campaign over a run."""
        asked = outer_pb2.CampaignPolicy(**policy)
        answer = await self.wire.call("CreateCampaign", run=run, policy=asked, request_id=request_id)
        self._campaigns.append(answer.campaign.name)
        campaign: outer_pb2.Campaign = answer.campaign
        return campaign

    async def campaign(self, name: str) -> outer_pb2.Campaign:
        campaign: outer_pb2.Campaign = (await self.wire.call("GetCampaign", name=name)).campaign
        return campaign

    async def on_new_run(self, **policy: Any) -> outer_pb2.Campaign:
        """A campaign over a run of its own that nobody starts."""
        return await self.create((await self.inner.create()).name, request_id=uuid.uuid4().hex, **policy)

    async def _idle(self) -> outer_pb2.Campaign:
        return await self.on_new_run()

    async def _cancelled(self) -> outer_pb2.Campaign:
        campaign = await self.on_new_run()
        answer = await self.wire.call("CancelCampaign", name=campaign.name, reason="to see what a cancelled one does")
        cancelled: outer_pb2.Campaign = answer.campaign
        return cancelled

    async def _supervised(self) -> Supervised:
        """Two decided trials with both levels after each; level 2 installs its control, which needs no model."""
        run = await self.inner.create(max_trials=2, checkpoint_every=1)
        description = await self.inner.wire.call("DescribeSearch", run=run.name)
        python = "python" in description.capabilities.mechanism_languages
        campaign = await self.create(
            run.name,
            levels=[outer_pb2.LEVEL_CONFIGURATION, outer_pb2.LEVEL_MECHANISM],
            configuration_every=1,
            mechanism_every=1,
            # Where there is no Python, real research must end before it has cost anything.
            control=outer_pb2.CONTROL_NOOP if python else outer_pb2.CONTROL_UNSPECIFIED,
        )
        await self.inner.wire.call("StartRun", name=run.name)
        events = await self.stream.followed(campaign.name)
        ended = await self.campaign(campaign.name)
        state = outer_pb2.CampaignState.Name(ended.state)
        expect(ended.state in TERMINAL, f"the stream of a campaign ended while it was {state}")
        return Supervised(ended, await self.inner.run(run.name), events, python)


OUTER: Suite[OuterSubject] = Suite("outer", ("full",))
