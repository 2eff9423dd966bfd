"""What goes on during a storm: campaigns, bare runs, runs by hand, and watchers that note what they are promised.

A promise is written down, outside all services, before anything is done with it.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bilevel.v1 import outer_pb2, trace_pb2

from clients import InnerClient, OuterClient
from service_kit.errors import RemoteError
from tests.chaos.audit import Acknowledged, Received, digest

T = TypeVar("T")
ENDED = (trace_pb2.RUN_STATE_FINISHED, trace_pb2.RUN_STATE_CANCELLED, trace_pb2.RUN_STATE_FAILED)
CAMPAIGN_ENDED = (
    outer_pb2.CAMPAIGN_STATE_FINISHED,
    outer_pb2.CAMPAIGN_STATE_CANCELLED,
    outer_pb2.CAMPAIGN_STATE_FAILED,
)
BOTH = [outer_pb2.LEVEL_CONFIGURATION, outer_pb2.LEVEL_MECHANISM]
CALL_SECONDS = 30.0


class Journal:
    """What was acknowledged, one JSON line each, flushed before the call returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self.received: list[Received] = []
        self.acknowledged: list[Acknowledged] = []

    def receive(self, watcher: str, stream: str, event: Any) -> None:
        item = Received(watcher, stream, event.sequence, digest(event))
        self._write(["event", item.watcher, item.stream, item.sequence, item.digest])
        self.received.append(item)

    def acknowledge(self, what: str, stream: str, **facts: Any) -> None:
        self._write(["answer", what, stream, facts])
        self.acknowledged.append(Acknowledged(what, stream, facts))

    def _write(self, line: list[Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


class Workload:
    """Keeps runs going until :meth:`calm` is called; then lets those that are under way come to their end."""

    def __init__(self, inner: Sequence[str], outer: str, journal: Journal, seed: int) -> None:
        self.trials = self.runs = self.campaigns = 0
        self._inner = [InnerClient(address) for address in inner]
        self._outer = OuterClient(outer)
        self._journal = journal
        self._rng = random.Random(seed)
        self._calm = asyncio.Event()
        self._open: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        kinds = (self._synchronous, self._concurrent, self._bare, self._by_hand)
        self._tasks = [asyncio.create_task(self._again_and_again(kind)) for kind in kinds]

    def calm(self) -> None:
        """Begin nothing new."""
        self._calm.set()

    async def ended(self, seconds: float) -> list[str]:
        """What has not ended within ``seconds``; raises what went wrong in the workload itself."""
        done, late = await asyncio.wait(self._tasks, timeout=seconds)
        for task in done:
            task.result()
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return sorted(self._open)

    async def close(self) -> None:
        for client in (*self._inner, self._outer):
            await client.close()

    async def _again_and_again(self, kind: Callable[[], Awaitable[None]]) -> None:
        while not self._calm.is_set():
            await kind()

    # Kinds of runs

    async def _synchronous(self) -> None:
        await self._campaign(outer_pb2.CAMPAIGN_MODE_SYNCHRONOUS, trials=18, parallelism=1)

    async def _concurrent(self) -> None:
        await self._campaign(outer_pb2.CAMPAIGN_MODE_CONCURRENT, trials=24, parallelism=3)

    async def _bare(self) -> None:
        run = await self._create(trace_pb2.RunSpec(task="valley", max_trials=16, parallelism=2, confirmation_seeds=1))
        watching = self._watch_run(run)
        await self._start(run)
        await self._watched(run, watching)

    async def _campaign(self, mode: outer_pb2.CampaignMode.ValueType, trials: int, parallelism: int) -> None:
        synchronous = mode == outer_pb2.CAMPAIGN_MODE_SYNCHRONOUS
        spec = trace_pb2.RunSpec(
            task="valley", max_trials=trials, parallelism=parallelism, checkpoint_every=3 if synchronous else 0
        )
        run = await self._create(spec)
        watching = self._watch_run(run)
        policy = outer_pb2.CampaignPolicy(levels=BOTH, configuration_every=3, mechanism_every=6, mode=mode)
        request = uuid.uuid4().hex
        campaign = await self._insist(lambda: self._outer.create_campaign(run, policy, request))
        self._journal.acknowledge("created", campaign.name, request=request)
        self._open.add(campaign.name)
        self.campaigns += 1
        supervised = asyncio.create_task(self._watch_campaign(campaign.name))
        await self._start(run)
        await self._watched(run, watching)
        await supervised
        self._open.discard(campaign.name)

    async def _by_hand(self) -> None:
        """Proposals, evaluations and decisions one by one, with a look at the run after everything that fails."""
        run = await self._create(trace_pb2.RunSpec(task="valley", max_trials=8))
        watching, texts = self._watch_run(run), 0
        while (head := await self._insist(lambda: self._any.get_run(run))).decided_trials < 8:
            trials = await self._insist(lambda: self._any.list_trials(run))
            still_open = [trial for trial in trials if trial.state in OPEN]
            try:
                if not still_open:
                    await self._propose(run, first=not trials or head.best_trial == "")
                elif still_open[0].state == trace_pb2.TRIAL_STATE_EVALUATED:
                    trial = await asyncio.wait_for(self._any.accept(still_open[0].name), CALL_SECONDS)
                    kept = trial.state == trace_pb2.TRIAL_STATE_KEPT
                    self._journal.acknowledge("decided", run, number=trial.number, kept=kept)
                else:
                    await self._evaluate(run, still_open[0])
                texts += 1
                text = f"remark {texts} {uuid.uuid4().hex}"
                sequence = await asyncio.wait_for(self._any.remark(run, "by hand", text), CALL_SECONDS)
                self._journal.acknowledge("remarked", run, sequence=sequence, text=text)
            except (RemoteError, TimeoutError):
                await asyncio.sleep(0.3)
        await self._start(run)
        await self._watched(run, watching)

    async def _propose(self, run: str, *, first: bool) -> None:
        hypothesis = "" if first else f"by hand {uuid.uuid4().hex}"
        changes = None if first else {"TOTAL_BATCH_SIZE": self._rng.randrange(2**7, 2**17)}
        for trial in await self._any.propose(run, changes=changes, hypothesis=hypothesis):
            self._journal.acknowledge("proposed", run, number=trial.number, hypothesis=trial.hypothesis)

    async def _evaluate(self, run: str, trial: trace_pb2.Trial) -> None:
        async with asyncio.timeout(CALL_SECONDS):
            async for event in self._any.evaluate(trial.name):
                if event.HasField("trial_evaluated"):
                    outcome = event.trial_evaluated.result.outcome
                    self._journal.acknowledge("evaluated", run, number=trial.number, outcome=outcome)

    # Calls and watches

    @property
    def _any(self) -> InnerClient:
        """One of the replicas."""
        return self._rng.choice(self._inner)

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call that may be repeated until it is answered."""
        while True:
            try:
                return await asyncio.wait_for(call(), CALL_SECONDS)
            except TimeoutError:
                continue
            except RemoteError as error:
                if error.code not in TRANSIENT:
                    raise
            await asyncio.sleep(0.2)

    async def _create(self, spec: trace_pb2.RunSpec) -> str:
        request = uuid.uuid4().hex
        run = await self._insist(lambda: self._any.create_run(spec, request))
        self._journal.acknowledge("created", run.name, request=request)
        self._open.add(run.name)
        self.runs += 1
        return run.name

    async def _start(self, run: str) -> None:
        try:
            await self._insist(lambda: self._any.start_run(run))
            self._journal.acknowledge("started", run)
        except RemoteError as error:
            if error.reason != "WRONG_STATE":  # an answer that was lost: it had been started
                raise

    def _watch_run(self, run: str) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._watch(run, f"{run} {i}")) for i in range(2)]

    async def _watch(self, run: str, watcher: str) -> None:
        """Follow a run to its end; on every loss go on from the last number, at any replica."""
        last, state = 0, trace_pb2.RUN_STATE_CREATED
        while state not in ENDED:
            try:
                async for event in self._any.watch_trace(run, last, heartbeat=1.0, patience=5.0):
                    self._journal.receive(watcher, run, event)
                    last = event.sequence
                    if event.HasField("run_state_changed"):
                        state = event.run_state_changed.to_state
                    self.trials += event.HasField("trial_decided") and watcher.endswith(" 0")
            except RemoteError as error:
                if error.code not in TRANSIENT:
                    raise
            await asyncio.sleep(0.1)

    async def _watch_campaign(self, campaign: str) -> None:
        last, state = 0, outer_pb2.CAMPAIGN_STATE_ACTIVE
        while state not in CAMPAIGN_ENDED:
            try:
                async for event in self._outer.watch_campaign(campaign, last, heartbeat=1.0, patience=5.0):
                    self._journal.receive("campaign", campaign, event)
                    last = event.sequence
                    if event.HasField("campaign_state_changed"):
                        state = event.campaign_state_changed.to_state
            except RemoteError as error:
                if error.code not in TRANSIENT:
                    raise
            await asyncio.sleep(0.1)

    async def _watched(self, run: str, watching: Sequence[asyncio.Task[None]]) -> None:
        await asyncio.gather(*watching)
        self._open.discard(run)


OPEN = (trace_pb2.TRIAL_STATE_PROPOSED, trace_pb2.TRIAL_STATE_RUNNING, trace_pb2.TRIAL_STATE_EVALUATED)
TRANSIENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
