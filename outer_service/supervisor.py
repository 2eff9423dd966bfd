"""Supervises campaigns: a task for each watches its run's trace and lets the due levels act.

A synchronous run waits at its checkpoints, so every one of them is answered: with a cycle while the campaign is active,
with nothing but ResumeRun while it is paused and after it was cancelled. The run never stops for want of research.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from mechanisms.sandbox.limits import SandboxPolicy
from outer_service import events
from outer_service.campaign import Campaign, CampaignState, Mode, ResearchOutcome
from outer_service.cycle import Cycles
from outer_service.inner_client import InnerClient
from outer_service.observed import ObservedRun, RunState, TraceMoment
from outer_service.recursion import Recursion
from outer_service.store import Store, stream_of
from service_kit import context
from service_kit.errors import RemoteError, StorageFailed, WrongState
from service_kit.leases import LeaseLost
from service_kit.llm.client import LanguageModel
from service_kit.patience import AvailabilityChanged
from service_kit.telemetry import metrics
from service_kit.waits import Unexpected, Wait

_NEWS = frozenset(("checkpoint_reached", "run_state_changed", "trial_decided"))

_PULSE_SECONDS = 1.0

log = structlog.get_logger("outer_service.supervisor")


class Supervisor:
    """The campaigns of one outer service. Its owner closes it."""

    def __init__(
        self, store: Store, inner: InnerClient, model: LanguageModel, patience: float, sandbox: SandboxPolicy
    ) -> None:
        """``patience`` is how many seconds a cycle waits for a model that is away; research procedures run under
        ``sandbox``."""
        self._store = store
        self._inner = inner
        self._cycles = Cycles(store, inner, model, patience, Recursion(store, model, sandbox))
        self._tasks: dict[str, asyncio.Task[None]] = {}

        self._pulse: asyncio.Task[None] | None = None
        self._over: set[str] = set()
        """Campaigns that were supervised here to their end."""

    async def recover(self) -> None:
        """Go on with the campaigns that nobody supervises, now and, on a database that is shared, from now on."""
        await self._take_over()
        if self._store.shared:
            self._pulse = asyncio.create_task(self._beat())

    async def _take_over(self) -> None:
        """Supervise every campaign whose run may still need it and that nobody supervises."""
        of_others = await self._store.leases.of_others()
        unfinished = await self._store.campaigns_in(CampaignState.ACTIVE, CampaignState.PAUSED)
        cancelled = await self._store.campaigns_in(CampaignState.CANCELLED)
        for campaign in [*unfinished, *(c for c in cancelled if c.policy.mode is Mode.SYNCHRONOUS)]:
            if not {campaign.id, campaign.name} & {*self._tasks, *self._over, *of_others}:
                self.adopt(campaign)

    async def _beat(self) -> None:
        """Keep the campaigns of this service, notice those that it has lost, take over those of dead ones."""
        pause = min(_PULSE_SECONDS, self._store.leases.seconds / 4)
        while True:
            await asyncio.sleep(pause)
            try:
                for name in await self._store.leases.renew():
                    if (task := self._tasks.get(name.split("/")[1])) is not None:
                        task.cancel()
                await self._take_over()
            except StorageFailed as error:
                log.warning("the leases cannot be renewed", reason=error.message)
            except Exception as error:
                # Without its pulse the service would lose every campaign: the next beat may do better.
                log.error("unexpected error", exc_info=error)

    def adopt(self, campaign: Campaign) -> None:
        """Begin to supervise, or go on."""
        task = asyncio.create_task(self._supervise(campaign.id), name=campaign.name)
        self._tasks[campaign.id] = task
        task.add_done_callback(lambda done: self._forget(campaign.id, done))

    async def close(self) -> None:
        """Stop supervising; open cycles go on when the service starts again, or in another one."""
        tasks = [*self._tasks.values(), *filter(None, [self._pulse])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def pause(self, campaign_id: str, reason: str) -> Campaign:
        """No further cycles; one that is open goes on to its end. Raises :class:`WrongState`."""
        return await self._move(campaign_id, "pause", CampaignState.PAUSED, reason, CampaignState.ACTIVE)

    async def resume(self, campaign_id: str) -> Campaign:
        """Cycles again from the run's next checkpoint on; a run that it held goes on. Raises :class:`WrongState`."""
        held = (await self._store.campaign(campaign_id)).holds_run
        campaign = await self._move(campaign_id, "resume", CampaignState.ACTIVE, "resumed", CampaignState.PAUSED)
        if held:
            await self._cycles.release(campaign.run)
        return campaign

    async def cancel(self, campaign_id: str, reason: str) -> Campaign:
        """End the campaign now, whatever it is doing; the run goes on. Raises :class:`WrongState`."""
        before = await self._store.campaign(campaign_id)
        _require(before, "cancel", CampaignState.ACTIVE, CampaignState.PAUSED)
        task = self._tasks.get(campaign_id)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        def cancelled(campaign: Campaign) -> list[events.Event]:
            _require(campaign, "cancel", CampaignState.ACTIVE, CampaignState.PAUSED)
            return [
                *_closing(campaign, "the campaign was cancelled"),
                _change(campaign, CampaignState.CANCELLED, reason),
            ]

        try:
            campaign = await self._store.commit(campaign_id, cancelled, revoke=True)
        except StorageFailed:
            if task is not None:
                self.adopt(before)
            raise
        if campaign.policy.mode is Mode.SYNCHRONOUS:
            self.adopt(campaign)
        return campaign

    async def _move(
        self, campaign_id: str, action: str, to: CampaignState, reason: str, allowed: CampaignState
    ) -> Campaign:
        def moved(campaign: Campaign) -> list[events.Event]:
            _require(campaign, action, allowed)
            return [_change(campaign, to, reason)]

        return await self._store.commit(campaign_id, moved)

    def _forget(self, campaign_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(campaign_id) is task:
            del self._tasks[campaign_id]

    async def _supervise(self, campaign_id: str) -> None:
        name = stream_of(campaign_id)
        context.begin(campaign=name)
        try:
            while not await self._attended(campaign_id):  # noqa: ASYNC110 (a database sets no event)
                await asyncio.sleep(_PULSE_SECONDS)
        except LeaseLost:
            log.info("another service goes on with the campaign, or it was cancelled")
        finally:
            self._store.waits.forget(name)

    async def _attended(self, campaign_id: str) -> bool:
        """Supervise the campaign under its lease. False where the database did not let that begin."""
        try:
            async with self._store.leases.working(stream_of(campaign_id)) as taken:
                if taken:
                    with metrics.CAMPAIGNS.counting():
                        await self._over_failures(campaign_id)
                    self._over.add(campaign_id)
        except StorageFailed as error:
            self._store.waits.rest(stream_of(campaign_id), error)
            return False
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 (the wait logs it)
            # Nobody awaits this: the campaign would rest until the service starts again, and nothing would say why.
            self._store.waits.rest(stream_of(campaign_id), Unexpected(error))
            return False
        return True

    async def _over_failures(self, campaign_id: str) -> None:
        """Supervise to the end, over failures of the database."""
        while True:
            try:
                if not await self._store.leases.keep(stream_of(campaign_id)):
                    raise LeaseLost(stream_of(campaign_id))
                if (wait := self._store.waits.of(stream_of(campaign_id))) is not None:
                    await self._back_again(campaign_id, wait)
                await self._go_on(campaign_id)
            except StorageFailed as error:
                await asyncio.sleep(self._store.waits.rest(stream_of(campaign_id), error))
            else:
                return

    async def _back_again(self, campaign_id: str, wait: Wait) -> None:
        """Say in the campaign's events why nothing happened, and for how long."""
        lost = AvailabilityChanged("the database", available=False, reason=wait.reason)
        back = AvailabilityChanged("the database", available=True, away=timedelta(seconds=wait.seconds))
        await self._store.commit(campaign_id, lambda now: [] if now.state.terminal else [lost, back])
        self._store.waits.end(stream_of(campaign_id))
        log.info("the database works again")

    async def _go_on(self, campaign_id: str) -> None:
        try:
            await self._watch(await self._store.campaign(campaign_id))
        except (LeaseLost, StorageFailed):
            raise
        except RemoteError as error:
            log.warning("the campaign cannot go on", reason=error.message)
            await self._end(campaign_id, CampaignState.FAILED, f"the inner loop said: {error.message}")
        except Exception as error:
            # A campaign's task is a boundary: nobody awaits it, so the reason has to go where people look.
            log.error("unexpected error", exc_info=error)
            reason = f"internal error ({type(error).__name__}): see the log of the outer service"
            await self._end(campaign_id, CampaignState.FAILED, reason)

    async def _watch(self, campaign: Campaign) -> None:
        """Follow the run's trace to its end."""
        context.bind({"run": campaign.run})
        if campaign.cycle is not None:
            campaign = await self._cycles.go_on(campaign)
        elif campaign.policy.mode is Mode.SYNCHRONOUS and campaign.acted and not campaign.holds_run:
            # A cycle that was cut off may have left the run at its checkpoint.
            await self._cycles.leave_checkpoint(campaign.run, max(campaign.acted.values()))
        checkpoint: TraceMoment | None = None
        async for moment in self._inner.watch(campaign.run, campaign.run_sequence):
            if moment.kind == "checkpoint_reached":
                checkpoint = moment
            if moment.kind not in _NEWS:
                continue
            if campaign.policy.mode is Mode.CONCURRENT:
                if moment.kind == "trial_decided":
                    await self._act(campaign.id, await self._run(campaign.run), moment.sequence)
            elif checkpoint is not None and await self._at(checkpoint, campaign):
                checkpoint = None
        run = await self._run(campaign.run)
        campaign = await self._store.campaign(campaign.id)
        if not campaign.state.terminal:
            await self._cycles.judge_at_the_end(campaign)
            await self._end(campaign.id, CampaignState.FINISHED, f"the run is {run.state.value}: {run.state_reason}")

    async def _at(self, checkpoint: TraceMoment, campaign: Campaign) -> bool:
        """Answer a checkpoint if the run waits at it. Whether nothing more is to be done about it."""
        run = await self._run(campaign.run)
        if run.decided_trials != checkpoint.decided_trials or run.state.terminal:
            return True  # it has gone on since
        if run.state is not RunState.PAUSED:
            return False
        acted = await self._act(campaign.id, run, checkpoint.sequence)
        if not acted:
            await self._cycles.leave_checkpoint(campaign.run, checkpoint.decided_trials)
        return True

    async def _act(self, campaign_id: str, run: ObservedRun, sequence: int) -> bool:
        """A cycle, if the campaign is active and a level is due."""
        campaign = await self._store.campaign(campaign_id)
        if campaign.state is not CampaignState.ACTIVE:
            return False
        levels = campaign.policy.due(campaign.acted, run.decided_trials)
        if not levels:
            return False
        cycles = campaign.cycles
        campaign = await self._cycles.begin(campaign, run.decided_trials, levels, sequence)
        return campaign.cycles > cycles

    async def _run(self, name: str) -> ObservedRun:
        return await self._inner.patiently(lambda: self._inner.run(name))

    async def _end(self, campaign_id: str, state: CampaignState, reason: str) -> None:
        def ended(campaign: Campaign) -> list[events.Event]:
            if campaign.state.terminal:
                return []
            return [*_closing(campaign, reason), _change(campaign, state, reason)]

        await self._store.commit(campaign_id, ended)


def _closing(campaign: Campaign, reason: str) -> list[events.Event]:
    """The end of what is open, so that the campaign can end."""
    closing: list[events.Event] = []
    if campaign.session is not None:
        outcome = ResearchOutcome.STOPPED
        closing.append(events.ResearchFinished(campaign.session.name, outcome, f"stopped: {reason}"))
    if campaign.cycle is not None:
        closing.append(events.CycleFinished(campaign.cycle.number, reason, counted=False))
    return closing


def _change(campaign: Campaign, to: CampaignState, reason: str) -> events.CampaignStateChanged:
    return events.CampaignStateChanged(campaign.state, to, reason)


_HINT = "`bilevel campaign list` shows the state of each; one that is over stays over."


def _require(campaign: Campaign, action: str, *allowed: CampaignState) -> None:
    if campaign.state not in allowed:
        wanted = [state.value for state in allowed]
        raise WrongState("campaign", campaign.name, campaign.state.value, action, wanted, hint=_HINT)
