"""One cycle: look at the trace, let the due levels act, record everything, and let the run go on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from outer_service import events, library, records, verdict
from outer_service.campaign import (
    AfterFailures,
    Campaign,
    CampaignState,
    Control,
    Installed,
    Level,
    LibraryUse,
    Mode,
    Offer,
    ResearchOutcome,
)
from outer_service.inner_client import InnerClient, is_away
from outer_service.observed import MechanismState, Observation, ObservedMechanism, RunState
from outer_service.reconfiguration import Reconfiguration
from outer_service.recursion import Recursion
from outer_service.session import MakeRoom, Session
from outer_service.store import Store
from outer_service.turns import UNUSABLE, BudgetSpent
from service_kit.errors import RemoteError, StorageFailed
from service_kit.leases import LeaseLost
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import ModelError
from service_kit.patience import AvailabilityChanged, Tell, Waiting
from service_kit.telemetry import tracing

LIBRARY_READ = 500
"""Newest entries of the library among which a session's offers are chosen."""

log = structlog.get_logger("outer_service.cycle")


class Cycles:
    """Runs the cycles of any number of campaigns, one at a time for each."""

    def __init__(
        self, store: Store, inner: InnerClient, model: LanguageModel, patience: float, recursion: Recursion
    ) -> None:
        self._recursion = recursion
        self._store = store
        self._inner = inner
        self._model = model
        self._patience = patience

    async def begin(self, campaign: Campaign, decided: int, levels: Sequence[Level], run_sequence: int) -> Campaign:
        """Open a cycle and go through it; ``run_sequence`` is the number of the trace event that caused it."""

        def started(now: Campaign) -> list[events.Event]:
            if now.state is not CampaignState.ACTIVE:  # paused or cancelled since
                return []
            return [events.CycleStarted(now.cycles + 1, decided, tuple(levels), run_sequence)]

        campaign = await self._store.commit(campaign.id, started)
        return await self.go_on(campaign) if campaign.cycle is not None else campaign

    async def go_on(self, campaign: Campaign) -> Campaign:
        """Go through the rest of an open cycle, also one that a restart interrupted. Never raises for a failed one."""
        cycle = campaign.cycle
        assert cycle is not None
        waiting = Waiting(None, self._teller(campaign.id))
        with tracing.span("cycle", {"bilevel.campaign": campaign.name, "bilevel.cycle": cycle.number}):
            ended = await waiting.out(
                f"the inner loop at {self._inner.address}", lambda: self._work(campaign.id), is_away
            )
        log.info("cycle finished", cycle=cycle.number, error=ended.error)
        campaign = await self._store.campaign(campaign.id)
        if campaign.policy.after_failures is AfterFailures.PAUSE_RUN and (given_up := _given_up(campaign, ended)):
            await self._hold(campaign, given_up)
        elif campaign.policy.mode is Mode.SYNCHRONOUS:
            await self.leave_checkpoint(campaign.run, cycle.decided_trials)
        return await self._store.commit(campaign.id, lambda now: _finished(now, cycle.number, ended))

    async def leave_checkpoint(self, run: str, decided: int) -> None:
        """Resume a run that waits at its checkpoint after ``decided`` trials, unless someone asked it to stay there."""
        observed = await self._inner.patiently(lambda: self._inner.run(run))
        if observed.at_checkpoint and observed.decided_trials == decided:
            await self._resume(run)

    async def release(self, run: str) -> None:
        """Resume a run that a campaign held."""
        observed = await self._inner.patiently(lambda: self._inner.run(run))
        if observed.state is RunState.PAUSED:
            await self._resume(run)

    async def _resume(self, run: str) -> None:
        try:
            await self._inner.patiently(lambda: self._inner.resume(run))
        except RemoteError as error:
            # Someone else was faster: the run goes on or has ended, which is all that is wanted here.
            log.info("the run need not be resumed", reason=error.message)

    async def _hold(self, campaign: Campaign, reason: str) -> None:
        """Leave the run paused, with the reason where people look: at its checkpoint, or where it is now."""
        await self._remark(campaign, f"the run stays paused: {reason}. Resume the campaign, or the run without it")
        if campaign.policy.mode is Mode.CONCURRENT:
            try:
                await self._inner.patiently(lambda: self._inner.pause(campaign.run))
            except RemoteError as error:
                log.info("the run cannot be paused", reason=error.message)

    async def judge_at_the_end(self, campaign: Campaign) -> None:
        """What the last revision did, and verdicts on mechanisms whose period ended with the run; none is removed."""
        observation = await self._inner.patiently(lambda: self._inner.observe(campaign.run))
        if Level.CONFIGURATION in campaign.acted:
            await self._reconfiguration(campaign).measure(campaign, observation)
        for installed, mechanism in _paired(campaign, observation.mechanisms):
            if verdict.due(installed, mechanism, observation.run.decided_trials, campaign.policy):
                reached = verdict.judge(installed, mechanism, observation, campaign.policy)
                await self._happens(campaign.id, reached)
        await self._recursion.at_the_end(await self._store.campaign(campaign.id), observation)

    async def _work(self, campaign_id: str) -> _Ended:
        """Everything that the cycle still has to do.

        Raises :class:`RemoteError` when the inner service is away: doing it again goes on from what was stored.
        """
        campaign = await self._store.campaign(campaign_id)
        try:
            async with asyncio.timeout(campaign.policy.max_cycle_seconds):
                observation = await self._inner.observe(campaign.run)
                if not observation.run.state.steerable:
                    return _Ended(f"the run is {observation.run.state.value}", counted=False)
                return _Ended(await self._levels(campaign, observation))
        except BudgetSpent as error:
            return _Ended(spent=error.reason)
        except TimeoutError:
            return _Ended(f"it took longer than policy.max_cycle_time, {campaign.policy.max_cycle_seconds:g} s")
        except RemoteError as error:
            if is_away(error):
                raise
            run = await self._inner.run(campaign.run)
            return _Ended(f"the inner loop said: {error.message}", counted=run.state.steerable)
        except (LeaseLost, StorageFailed):
            raise
        except Exception as error:
            # Whatever it is, the run must go on: the text is in the log and the cycle has failed for all to see.
            log.error("unexpected error in a cycle", exc_info=error)
            return _Ended(f"internal error ({type(error).__name__}): see the log of the outer service")

    def _patient_model(self, campaign: Campaign) -> LanguageModel:
        return self._model.patient(Waiting(self._patience, self._teller(campaign.id)))

    def _teller(self, campaign_id: str) -> Tell:
        async def tell(what: AvailabilityChanged) -> None:
            await self._happens(campaign_id, what)

        return tell

    async def _levels(self, campaign: Campaign, observation: Observation) -> str:
        """Verdicts, then the levels that are due and not done. Returns what failed, in a sentence."""
        if await self._verdicts(campaign, observation):
            observation = await self._inner.observe(campaign.run)
            campaign = await self._store.campaign(campaign.id)
        problems: list[str] = []
        for level in _to_do(campaign):
            campaign = await self._store.campaign(campaign.id)
            try:
                if level is Level.CONFIGURATION:
                    configuration = self._reconfiguration(campaign)
                    await configuration.measure(campaign, observation)
                    await configuration.configure(campaign, observation)
                else:
                    await self._research(campaign, await self._inner.observe(campaign.run))
            except ModelError as error:
                problems.append(f"level {_SHOWN[level]}: {error.message}")
                await self._remark(campaign, f"level {_SHOWN[level]} failed: {error.message}")
                if error.kind in UNUSABLE:
                    break
        return "; ".join(problems)

    async def _verdicts(self, campaign: Campaign, observation: Observation) -> bool:
        """Judge every mechanism whose probation is over; whether one was retired."""
        retired = False
        for installed, mechanism in _paired(campaign, observation.mechanisms):
            if verdict.due(installed, mechanism, observation.run.decided_trials, campaign.policy):
                reached = verdict.judge(installed, mechanism, observation, campaign.policy)
                await self._pronounce(campaign, mechanism, reached)
                retired = retired or reached.verdict.removes
        return retired

    async def _pronounce(
        self, campaign: Campaign, mechanism: ObservedMechanism, reached: events.VerdictReached
    ) -> None:
        """Carry out a verdict, then record it: after an interruption it is reached again."""
        if reached.verdict.removes and mechanism.state is MechanismState.ACTIVE:
            await self._inner.uninstall(campaign.run, mechanism.id, reached.reason)
        await self._happens(campaign.id, reached)
        await self._remark(campaign, f"verdict on {mechanism.id}: {reached.verdict.value}. {reached.reason}")

    def _reconfiguration(self, campaign: Campaign) -> Reconfiguration:
        model = self._patient_model(campaign)
        return Reconfiguration(self._store, self._inner, model, lambda text: self._remark(campaign, text))

    async def _research(self, campaign: Campaign, observation: Observation) -> None:
        model = self._patient_model(campaign)
        session = Session(self._store, self._inner, model, self._recursion, lambda text: self._remark(campaign, text))
        if campaign.session is None:
            if campaign.policy.control is Control.NONE and campaign.budget_spent:
                raise BudgetSpent(campaign.budget_spent)
            name = f"{campaign.name}/researchSessions/{campaign.sessions + 1}"
            record = records.record([e.event async for e in self._store.entries(campaign.id)], observation)
            if not await self._recursion.looks(campaign, record):
                await self._remark(campaign, "level 2: the research procedure leaves this look out")
                return
            started = events.ResearchStarted(
                name,
                observation.run.decided_trials,
                await self._offers(campaign, observation),
                campaign.replacing,
                await self._recursion.advice(campaign, record),
                record,
            )
            campaign = await self._happens(campaign.id, started)
        await self._remark(campaign, f"level 2: research begins after {observation.run.decided_trials} trials")
        make_room = self._room(campaign, observation)
        if campaign.policy.control is Control.RESTART:
            finished = await session.restart(campaign, observation)
        elif (unsupported := await session.unsupported(campaign)) is not None:
            finished = unsupported
        elif campaign.policy.control is Control.NOOP:
            finished = await session.control(campaign, observation, make_room)
        else:
            finished = await session.research(campaign, observation, make_room)
        outcome = finished.outcome
        installed = f" {finished.mechanism}" if outcome is ResearchOutcome.INSTALLED else ""
        await self._remark(campaign, f"level 2: {outcome.value.replace('_', ' ')}{installed}. {finished.message}")

    async def _offers(self, campaign: Campaign, observation: Observation) -> tuple[Offer, ...]:
        """What the library offers to a new session."""
        policy = campaign.policy
        if policy.library is LibraryUse.NONE or policy.control is not Control.NONE:
            return ()
        entries = [entry for _, entry in await self._store.library(LIBRARY_READ)]
        present = {mechanism.source_sha256 for mechanism in observation.mechanisms}
        return library.offers(entries, campaign.task, present)

    def _room(self, campaign: Campaign, observation: Observation) -> MakeRoom:
        async def make_room() -> None:
            active = [
                pair
                for pair in _paired(await self._store.campaign(campaign.id), observation.mechanisms)
                if pair[1].state is MechanismState.ACTIVE
            ]
            while len(active) >= campaign.policy.max_mechanisms:
                pair = verdict.least_effective(active, observation.run.decided_trials)
                reached = verdict.making_room(*pair, observation, campaign.policy)
                await self._pronounce(campaign, pair[1], reached)
                active.remove(pair)

        return make_room

    async def _happens(self, campaign_id: str, *happening: events.Event) -> Campaign:
        return await self._store.commit(campaign_id, lambda _: happening)

    async def _remark(self, campaign: Campaign, text: str) -> None:
        """Tell those who watch the run. A remark that does not arrive changes nothing, so it only goes to the log."""
        try:
            await self._inner.remark(campaign.run, f"outer loop ({self._model.name})", text)
        except RemoteError as error:
            log.warning("a remark did not arrive", text=text, reason=error.message)


_SHOWN = {Level.CONFIGURATION: "1.5", Level.MECHANISM: "2"}


def _to_do(campaign: Campaign) -> tuple[Level, ...]:
    """The open cycle's levels that are not done; a mechanism that is to be replaced makes level 2 due at once."""
    cycle = campaign.cycle
    assert cycle is not None
    replaces = campaign.replacing and Level.MECHANISM in campaign.policy.levels
    due = (*cycle.levels, Level.MECHANISM) if replaces and Level.MECHANISM not in cycle.levels else cycle.levels
    return tuple(level for level in due if level not in cycle.done)


def _paired(campaign: Campaign, mechanisms: Sequence[ObservedMechanism]) -> list[tuple[Installed, ObservedMechanism]]:
    """What this campaign installed, with what the run says about it."""
    by_id = {mechanism.id: mechanism for mechanism in mechanisms}
    return [(installed, by_id[installed.id]) for installed in campaign.mechanisms if installed.id in by_id]


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a cycle ended."""

    error: str = ""
    """Why it failed; empty when it did not."""
    counted: bool = True
    """Whether an error counts towards the policy's max_failures."""
    spent: str = ""
    """Why there is no budget for another call; empty while there is."""


def _given_up(campaign: Campaign, ended: _Ended) -> str:
    """Why the campaign gives up after this cycle, in a sentence; empty when it does not."""
    failures = campaign.failures + 1
    if ended.error and ended.counted and failures >= campaign.policy.max_failures:
        return f"{failures} failed cycles in a row, the last one: {ended.error}"
    return ""


def _finished(campaign: Campaign, number: int, ended: _Ended) -> list[events.Event]:
    """The end of a cycle, and the pause that too many failures or a spent budget bring."""
    happening: list[events.Event] = []
    if campaign.session is not None:
        outcome = ResearchOutcome.STOPPED
        happening.append(events.ResearchFinished(campaign.session.name, outcome, ended.error or "stopped"))
    happening.append(events.CycleFinished(number, ended.error, ended.counted))
    if campaign.state is not CampaignState.ACTIVE:
        return happening
    spent = ended.spent or campaign.budget_spent
    reason = f"{spent}; the run goes on without research" if spent else _given_up(campaign, ended)
    if not reason:
        return happening
    return [*happening, events.CampaignStateChanged(campaign.state, CampaignState.PAUSED, reason)]
