"""Begin a search and follow it: the run, the campaign above it, and what both say."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bilevel.v1 import outer_pb2, trace_pb2

from clients import campaign_history, history
from clients.campaign_history import CampaignHistory
from clients.history import RunHistory
from clients.inner import InnerClient
from clients.outer import OuterClient
from clients.run_options import RunOptions
from service_kit.errors import InvalidArgument
from service_kit.parameters import Value
from service_kit.translate import values_to_proto

LEVELS = {"1.5": outer_pb2.LEVEL_CONFIGURATION, "2": outer_pb2.LEVEL_MECHANISM}

_CAMPAIGN_PATIENCE = 10.0
"""Seconds that a campaign gets to finish after its run has."""


CONTROLS = {
    "": outer_pb2.CONTROL_UNSPECIFIED,
    "noop": outer_pb2.CONTROL_NOOP,
    "restart": outer_pb2.CONTROL_RESTART,
}


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What to search for, and on which levels."""

    task: str
    trials: int = 30
    seed: int = 0
    levels: tuple[str, ...] = ("1.5", "2")
    """The levels above the first: "1.5" and "2", in any combination."""
    title: str = ""
    start: Mapping[str, Value] = field(default_factory=dict)
    """Starting configuration where it differs from the task's defaults."""
    parallelism: int = 1
    confirmation_seeds: int = 5
    configuration_every: int = 5
    mechanism_every: int = 10
    probation_trials: int = 0
    """Trials after which a new mechanism is judged; 0 is mechanism_every."""
    library: bool = True
    """Whether level 2 is offered the library of earlier searches' mechanisms."""
    concurrent: bool = False
    """Whether the run goes on while the outer loop thinks."""
    control: str = ""
    """``noop`` or ``restart`` in place of level 2's research; empty for real research."""
    recursion: bool = False
    """Whether level 2 may propose a change of its own procedure when the run has ended."""
    max_tokens: int = 0
    """Limit for each loop; 0 is none."""
    lessons: bool = False
    """Whether lessons of earlier runs are shown, and new ones written. Off for bare level 1."""
    compare_lessons: bool = False
    """Whether every proposal is asked for a second time without lessons, to measure what they change."""
    options: RunOptions = field(default_factory=RunOptions)
    """Further budgets, how places are filled, early stopping, noise."""
    more_spec: trace_pb2.RunSpec = field(default_factory=trace_pb2.RunSpec)
    """Further fields of the run, which go before those that the plan has."""
    more_policy: outer_pb2.CampaignPolicy = field(default_factory=outer_pb2.CampaignPolicy)
    """Further fields of the campaign, likewise."""

    def spec(self) -> trace_pb2.RunSpec:
        """The run's side of the plan."""
        policy = self.policy()
        every = policy.configuration_every if "1.5" in self.levels else policy.mechanism_every if self.levels else 0
        if self.concurrent:
            every = 0
        spec = trace_pb2.RunSpec(
            task=self.task,
            max_trials=self.trials,
            seed=self.seed,
            checkpoint_every=every,
            parallelism=self.parallelism,
            confirmation_seeds=self.confirmation_seeds,
            display_name=self.title,
            max_tokens=self.max_tokens,
            use_lessons=self.lessons,
            compare_lessons=self.compare_lessons,
        )
        self.options.fill(spec)
        for name, value in values_to_proto(self.start).items():
            spec.start.values[name].CopyFrom(value)
        spec.MergeFrom(self.more_spec)
        return spec

    def policy(self) -> outer_pb2.CampaignPolicy:
        """The campaign's side of the plan."""
        policy = outer_pb2.CampaignPolicy(
            levels=[LEVELS[level] for level in self.levels],
            configuration_every=self.configuration_every,
            mechanism_every=self.mechanism_every,
            mode=outer_pb2.CAMPAIGN_MODE_CONCURRENT if self.concurrent else outer_pb2.CAMPAIGN_MODE_SYNCHRONOUS,
            control=CONTROLS[self.control],
            recursion=self.recursion,
            probation_trials=self.probation_trials,
            library=outer_pb2.LIBRARY_USE_OFFERED if self.library else outer_pb2.LIBRARY_USE_NONE,
            max_tokens=self.max_tokens,
            max_cost_usd=self.options.max_cost_usd,
        )
        policy.MergeFrom(self.more_policy)
        return policy


def read_control(text: str, levels: tuple[str, ...]) -> str:
    """A control from what a person typed. Raises :class:`InvalidArgument`, also where level 2 is missing."""
    if text not in CONTROLS:
        raise InvalidArgument.of("--control", f"must be noop or restart; got {text!r}")
    if text and "2" not in levels:
        raise InvalidArgument.of("--control", "takes the place of level 2: --levels must hold 2")
    return text


def read_levels(text: str) -> tuple[str, ...]:
    """Levels above the first from what a person typed: "1", "1,1.5", "1,2", "1,1.5,2".

    Raises :class:`InvalidArgument` for anything else.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if "1" not in parts or set(parts) - {"1", *LEVELS}:
        raise InvalidArgument.of("--levels", f"must be 1, 1,1.5, 1,2 or 1,1.5,2; got {text!r}")
    return tuple(level for level in LEVELS if level in parts)


@dataclass(slots=True)
class Search:
    """A run with its campaign, growing while it is followed."""

    run: str
    """Resource name."""
    campaign: str = ""
    """Resource name; empty for a run of level 1 alone."""
    trace: RunHistory = field(default_factory=RunHistory)
    outer: CampaignHistory = field(default_factory=CampaignHistory)

    @property
    def title(self) -> str:
        return self.trace.spec.display_name or self.run.rpartition("/")[2]

    @property
    def finished(self) -> bool:
        return self.trace.state in history.TERMINAL

    @property
    def stuck(self) -> bool:
        """Whether it is paused and nobody will resume it by itself."""
        if self.trace.state != trace_pb2.RUN_STATE_PAUSED:
            return False
        if self.trace.asked_to_pause:  # whoever asked goes on with it, unless the campaign did because it gave up
            return self.outer.state == outer_pb2.CAMPAIGN_STATE_PAUSED
        if not self.trace.at_checkpoint or not self.campaign:
            return True
        return self.outer.state in {*campaign_history.TERMINAL, outer_pb2.CAMPAIGN_STATE_PAUSED}


Event = trace_pb2.TraceEvent | outer_pb2.CampaignEvent

Listener = Callable[["Search", Event], None]
"""Is told of every event, after the search has taken it."""


async def begin(inner: InnerClient, outer: OuterClient | None, plan: SearchPlan) -> Search:
    """Create the run, let a campaign supervise it where the plan has levels above the first, and start it."""
    run = await inner.create_run(plan.spec())
    search = Search(run.name)
    if plan.levels:
        if outer is None:
            raise InvalidArgument.of("--levels", "needs an outer service for the levels above 1")
        try:
            search.campaign = (await outer.create_campaign(run.name, plan.policy())).name
        except BaseException:
            with contextlib.suppress(Exception):
                await inner.cancel_run(run.name, "its campaign could not be created")
            raise
    await inner.start_run(run.name)
    return search


async def catch_up(search: Search, inner: InnerClient, outer: OuterClient | None, listener: Listener) -> None:
    """Feed the search what has happened so far, the run's events and the campaign's in the order of their times.

    :func:`follow` alone reads both streams side by side, so that of a long past one may be read before the other.
    """
    trace: list[Event] = [e async for e in inner.watch_trace(search.run, search.trace.last_sequence, follow=False)]
    above: list[Event] = []
    if search.campaign and outer is not None:
        watched = outer.watch_campaign(search.campaign, search.outer.last_sequence, follow=False)
        above = [event async for event in watched]
    for event in heapq.merge(trace, above, key=lambda event: event.time.ToNanoseconds()):
        if isinstance(event, trace_pb2.TraceEvent):
            search.trace.apply(event)
        else:
            search.outer.apply(event)
        listener(search, event)


async def follow(
    search: Search, inner: InnerClient, outer: OuterClient | None, listener: Listener, *, until_stuck: bool = False
) -> None:
    """Feed the search its events until the run has ended, or, with ``until_stuck``, needs a person."""
    wake = asyncio.Event()

    async def trace() -> None:
        async for event in inner.watch_trace(search.run, search.trace.last_sequence):
            search.trace.apply(event)
            listener(search, event)
            wake.set()

    async def campaign() -> None:
        assert outer is not None
        async for event in outer.watch_campaign(search.campaign, search.outer.last_sequence):
            search.outer.apply(event)
            listener(search, event)
            wake.set()

    async def stuck() -> None:
        while not search.stuck:
            wake.clear()
            await wake.wait()

    above = asyncio.create_task(campaign()) if search.campaign and outer is not None else None
    needed = [asyncio.create_task(trace()), *([asyncio.create_task(stuck())] if until_stuck else [])]
    try:
        done, _ = await asyncio.wait(
            [*needed, *([above] if above is not None else [])], return_when=asyncio.FIRST_COMPLETED
        )
        if above in done and not done & set(needed):
            await above
            done, _ = await asyncio.wait(needed, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
        if above is not None and search.finished:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(above, _CAMPAIGN_PATIENCE)
    finally:
        for task in (*needed, *([above] if above is not None else [])):
            task.cancel()
        await asyncio.gather(*needed, *([above] if above is not None else []), return_exceptions=True)
