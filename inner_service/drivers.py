"""Who drives a run: leases, taking over and letting go.

Ownership: of all services on one database, the one that holds a run's lease drives it, and nobody else does.
Concurrency: every second a service renews its leases, stops working on what it has lost, and takes over runs whose
driver has died. It goes on with them as after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from inner_service.driving import Driver
from inner_service.loops import DRIVEN, Loops
from inner_service.run import RunState
from inner_service.store import Store, stream_of
from inner_service.trace import Remarked, RunStateChanged
from service_kit import context
from service_kit.errors import ServiceError, StorageFailed
from service_kit.leases import LeaseLost
from service_kit.telemetry import metrics
from service_kit.waits import Unexpected, Wait

PULSE_SECONDS = 1.0

log = structlog.get_logger("inner_service.drivers")


class Drivers:
    """Drives the runs of one service."""

    def __init__(self, store: Store, loops: Loops, lost_by_hand: Callable[[str], None]) -> None:
        """``lost_by_hand`` stops the evaluations by hand of a run, by id, one of which has lost its lease."""
        self._store = store
        self._loops = loops
        self._lost_by_hand = lost_by_hand
        self._driving: dict[str, asyncio.Task[None]] = {}
        self._pulse: asyncio.Task[None] | None = None

    async def recover(self) -> None:
        """Go on with the runs that nobody drives, now and, on a database that is shared, from now on."""
        await self._take_over()
        if self._store.shared:
            self._pulse = asyncio.create_task(self._beat())

    def give_up(self, run_id: str) -> asyncio.Task[None] | None:
        """What drives the run here, which is the caller's to end from now on; None where nothing does."""
        return self._driving.pop(run_id, None)

    async def close(self) -> None:
        """Stop driving."""
        working = [*self._driving.values(), *filter(None, [self._pulse])]
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

    async def elsewhere(self, run_id: str) -> bool:
        """Whether another service drives the run. Raises :class:`NotFound`."""
        await self._store.search(run_id)
        return self._store.shared and stream_of(run_id) in await self._store.leases.of_others(stream_of(run_id))

    async def _beat(self) -> None:
        """Keep what this service works on, notice what it has lost, take over what nobody works on."""
        pause = min(PULSE_SECONDS, self._store.leases.seconds / 4)
        while True:
            await asyncio.sleep(pause)
            try:
                self._let_go(await self._store.leases.renew())
                await self._take_over()
            except StorageFailed as error:
                log.warning("the leases cannot be renewed", reason=error.message)
            except Exception as error:
                # Without its pulse the service would lose every run: the next beat may do better.
                log.error("unexpected error", exc_info=error)

    def _let_go(self, lost: frozenset[str]) -> None:
        """Stop the work whose leases are gone."""
        for name in lost:
            run_id = name.split("/")[1]
            log.warning("lost a lease", lease=name)
            driver = self._driving.get(run_id)
            if name == stream_of(run_id) and driver is not None:
                driver.cancel()
            elif name != stream_of(run_id):
                self._lost_by_hand(run_id)

    async def _take_over(self) -> None:
        """Drive the runs that are under way and that nobody drives."""
        under_way = await self._store.runs_in(*DRIVEN)
        of_others = await self._store.leases.of_others()
        for run_id in under_way:
            driver = self._driving.get(run_id)
            if stream_of(run_id) not in of_others and (driver is None or driver.done()):
                log.info("going on with a run", run=stream_of(run_id))
                self.drive(run_id)
        for run_id in [run_id for run_id in self._loops if stream_of(run_id) in of_others]:
            await self._loops.retire(run_id)

    def drive(self, run_id: str) -> None:
        """Drive the run as soon as whatever drove it here before has ended, unless it is another's."""
        previous = self._driving.get(run_id)
        self._driving[run_id] = asyncio.create_task(self._driven(run_id, previous))

    async def _driven(self, run_id: str, previous: asyncio.Task[None] | None) -> None:
        context.begin(run=stream_of(run_id))
        if previous is not None:
            await asyncio.gather(previous, return_exceptions=True)
        try:
            while not await self._attended(run_id):  # noqa: ASYNC110 (a database sets no event)
                await asyncio.sleep(PULSE_SECONDS)
        except LeaseLost:
            log.info("another service goes on with the run, or it was cancelled")
            await self._loops.retire(run_id)
        finally:
            self._store.waits.forget(stream_of(run_id))

    async def _attended(self, run_id: str) -> bool:
        """Drive the run under its lease. False where the database did not let that begin."""
        try:
            async with self._store.leases.working(stream_of(run_id)) as taken:
                if taken:
                    with metrics.RUNS_DRIVEN.counting():
                        await self._go_on(run_id)
        except StorageFailed as error:
            self._store.waits.rest(stream_of(run_id), error)
            return False
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 (the wait logs it)
            # Nobody awaits a driver: the run would rest until the service starts again, and nothing would say why.
            self._store.waits.rest(stream_of(run_id), Unexpected(error))
            return False
        return True

    async def _go_on(self, run_id: str) -> None:
        """Drive the run until it stops, over failures of the database."""
        # An evaluation by hand that began elsewhere while the run was resumed.
        while await self._store.leases.of_others(stream_of(run_id)):  # noqa: ASYNC110 (other processes set no event)
            await asyncio.sleep(0.2)
        while True:
            try:
                if (wait := self._store.waits.of(stream_of(run_id))) is not None:
                    await self._back_again(run_id, wait)
                await self._drive_here(run_id)
            except StorageFailed as error:
                await asyncio.sleep(self._store.waits.rest(stream_of(run_id), error))
            else:
                return

    async def _back_again(self, run_id: str, wait: Wait) -> None:
        """Make sure that the run still is this service's, and say on the trace why nothing happened."""
        if not await self._store.leases.keep(stream_of(run_id)):
            raise LeaseLost(stream_of(run_id))
        text = f"{wait.reason}; the run waited {wait.seconds:.0f} s and goes on"
        await self._store.commit(run_id, lambda _: [Remarked("inner service", text)])
        self._store.waits.end(stream_of(run_id))
        log.info("the database works again")

    async def _drive_here(self, run_id: str) -> None:
        try:
            loop = await self._loops.of(run_id)
        except (LeaseLost, StorageFailed):
            raise
        except ServiceError as error:
            reason = str(error)
            await self._store.commit(run_id, lambda s: [RunStateChanged(s.run.state, RunState.PAUSED, reason)])
            return
        await Driver(loop).drive()
        if (await self._store.search(run_id)).run.state.terminal:
            await self._loops.retire(run_id)
