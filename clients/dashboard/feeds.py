"""Followers of runs and campaigns, one each however many pages are open, that outlive a restart of their service.

A feed folds every event into a view and counts a version; a page looks at the version a few times a second and redraws
what changed, so that a burst of events costs a page one update. A feed that no page has looked at for a while ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

import structlog
from bilevel.v1 import outer_pb2, trace_pb2

from clients.dashboard.projection.overview import Overview
from clients.dashboard.projection.research import CampaignView
from clients.dashboard.projection.run import RunView
from clients.dashboard.services import Services
from service_kit.errors import RemoteError, ServiceError

LINGER = 300.0
"""Seconds for which a feed goes on after the last page that looked at it."""

RETRY = 1.0
"""Seconds between attempts to reach a service that is away."""

LISTING = 3.0
"""Seconds between two readings of the lists."""

LISTED = 100
"""Runs and campaigns that the overview lists, newest first."""

_AWAY = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"}
"""Refusals that may pass without anyone's doing."""

_log = structlog.get_logger()


class Status(StrEnum):
    """How a feed stands with its service."""

    CONNECTING = "connecting"
    LIVE = "live"
    LOST = "lost"
    """The service is away; what is shown is as of then, and the feed goes on when it answers again."""
    ENDED = "ended"
    """Everything was read: the run or campaign is over."""
    REFUSED = "refused"
    """The service will not answer; :attr:`Feed.problem` says why."""


class Feed(ABC):
    """Something that is read for as long as pages look at it."""

    def __init__(self) -> None:
        self.status = Status.CONNECTING
        self.problem: ServiceError | None = None
        """Why it is LOST or REFUSED."""
        self.version = 0
        """Changes with every change of the view or the status."""
        self._looked = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Read, where it does not: for the first time, after a rest, or again after a refusal."""
        self._looked = time.monotonic()
        if self._task is None or (self._task.done() and self.status is Status.REFUSED):
            self._task = asyncio.create_task(self._go_on())

    def look(self) -> int:
        """The version; keeps the feed going."""
        self._looked = time.monotonic()
        if self._task is None:
            self.begin()
        return self.version

    @property
    def idle(self) -> float:
        """Seconds since a page looked."""
        return time.monotonic() - self._looked

    async def stop(self) -> None:
        """End the reading; the next look begins it again where it stopped."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    @abstractmethod
    async def read(self) -> None:
        """Read until there is nothing more to come. Raises RemoteError where the service is away or refuses."""

    def say(self, status: Status, problem: ServiceError | None = None) -> None:
        """Note how the feed stands."""
        if (status, str(problem)) != (self.status, str(self.problem)):
            self.status, self.problem = status, problem
            self.version += 1

    async def _go_on(self) -> None:
        while True:
            try:
                await self.read()
                self.say(Status.ENDED)
                return
            except RemoteError as error:
                if error.code not in _AWAY:
                    self.say(Status.REFUSED, error)
                    return
                self.say(Status.LOST, error)
            except Exception as error:  # noqa: BLE001 (the boundary of a background task: its page must say so)
                _log.exception("the dashboard cannot show this stream", error=str(error))
                self.say(Status.REFUSED, ServiceError(f"what the stream says cannot be shown: {error}"))
                return
            await asyncio.sleep(RETRY)


class View(Protocol):
    """What events are folded into."""

    last_sequence: int

    def apply(self, event: Any) -> None: ...


ViewT = TypeVar("ViewT", bound=View)
_FeedT = TypeVar("_FeedT", bound=Feed)


class StreamFeed(Feed, Generic[ViewT]):
    """Follows one resource's events from the last one that the view has.

    Args:
        view: An empty view.
        newest: Asks the service for the number of the newest event, which shows that it answers.
        watch: Opens the stream after a number.
    """

    def __init__(self, view: ViewT, newest: Callable[[], Any], watch: Callable[[int], AsyncIterator[Any]]) -> None:
        super().__init__()
        self.view = view
        self.newest = 0
        """Number of the newest event when the service last answered; the view is behind while it has fewer."""
        self._ask_newest, self._watch = newest, watch

    @property
    def behind(self) -> bool:
        """Whether the view does not yet show what the log said when the stream was opened."""
        return self.view.last_sequence < self.newest

    @property
    def ready(self) -> bool:
        """Whether the view is worth showing: it has events, and all that there were when the stream was opened."""
        return self.view.last_sequence > 0 and not self.behind

    async def read(self) -> None:
        while True:
            self.newest = (await self._ask_newest()).last_sequence
            self.say(Status.LIVE)
            try:
                async for event in self._watch(self.view.last_sequence):
                    self.view.apply(event)
                    self.version += 1
                return
            except RemoteError as error:
                if error.code not in _AWAY:
                    raise
            # Asked at once, a service that is really away says so in better words than its broken stream.
            await asyncio.sleep(RETRY / 4)


class ListFeed(Feed):
    """Runs and campaigns as the services list them, read again and again."""

    def __init__(self, services: Services) -> None:
        super().__init__()
        self.view = Overview()
        self._services = services

    async def read(self) -> None:
        while True:
            runs = await self._services.inner.list_runs(LISTED)
            campaigns: list[outer_pb2.Campaign] = []
            absent: ServiceError | None = None
            try:
                campaigns = await self._services.outer.list_campaigns(LISTED)
            except RemoteError as error:
                absent = error
            if self.view.update(runs, campaigns, absent):
                self.version += 1
            self.say(Status.LIVE)
            await asyncio.sleep(LISTING)


class Feeds:
    """All feeds of the application."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._runs: dict[str, StreamFeed[RunView]] = {}
        self._campaigns: dict[str, StreamFeed[CampaignView]] = {}
        self._overview = ListFeed(services)
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def overview(self) -> ListFeed:
        """The feed of the lists."""
        return self._kept(self._overview)

    def run(self, name: str) -> StreamFeed[RunView]:
        """The feed of the run ``name`` (``runs/{run}``)."""
        inner = self._services.inner
        if name not in self._runs:
            # The feed itself waits for a lost service, so that pages can say so.
            def watch(after: int) -> AsyncIterator[trace_pb2.TraceEvent]:
                return inner.watch_trace(name, after, patience=0)

            self._runs[name] = StreamFeed(RunView(), lambda: inner.get_run(name), watch)
        return self._kept(self._runs[name])

    def campaign(self, name: str) -> StreamFeed[CampaignView]:
        """The feed of the campaign ``name`` (``campaigns/{campaign}``)."""
        outer = self._services.outer
        if name not in self._campaigns:

            def watch(after: int) -> AsyncIterator[outer_pb2.CampaignEvent]:
                return outer.watch_campaign(name, after, patience=0)

            self._campaigns[name] = StreamFeed(CampaignView(), lambda: outer.get_campaign(name), watch)
        return self._kept(self._campaigns[name])

    async def close(self) -> None:
        """End everything."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for feed in (self._overview, *self._runs.values(), *self._campaigns.values()):
            await feed.stop()

    def _kept(self, feed: _FeedT) -> _FeedT:
        feed.begin()
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._sweep())
        return feed

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(LINGER / 10)
            if self._overview.idle > LINGER:
                await self._overview.stop()
            for name, run in list(self._runs.items()):
                if run.idle > LINGER:
                    await self._runs.pop(name).stop()
            for name, campaign in list(self._campaigns.items()):
                if campaign.idle > LINGER:
                    await self._campaigns.pop(name).stop()
