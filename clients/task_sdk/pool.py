"""As many evaluations at a time as the task allows, each in a process that never outlives its evaluation's end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator

from clients.task_sdk.definition import Conduct
from clients.task_sdk.evaluation import Ending, Progress, Request
from clients.task_sdk.location import Location
from clients.task_sdk.process import EvaluatingProcess, ProcessEnded, UnreadableEvent
from service_kit.errors import Exhausted
from service_kit.interruptions import ACCIDENTS, Interruptions
from service_kit.memory import out_of_memory_kills
from service_kit.parameters import Outcome


class EvaluationPool:
    """Runs evaluations of one task. An evaluation begins only when nothing of an earlier one in its place is left."""

    def __init__(self, location: Location, conduct: Conduct) -> None:
        self._location, self._conduct = location, conduct
        self._running: set[EvaluatingProcess] = set()
        self._places = conduct.capacity
        self._ending: set[asyncio.Task[None]] = set()
        self._idle: list[EvaluatingProcess] = []
        self._interruptions = Interruptions()
        self._stopping = False

    async def stop(self) -> None:
        """Kill every process. Evaluations that are running end as CANCELLED."""
        self._stopping = True
        processes = [*self._running, *self._idle]
        self._idle.clear()
        await asyncio.gather(*(process.end() for process in processes), *self._ending)

    async def evaluate(self, request: Request) -> AsyncGenerator[Progress | Ending, None]:
        """Progress, then exactly one ending. Closing the iterator or cancelling who drives it kills the work.

        Raises :class:`Exhausted` when every place is taken, and :class:`CutOff` when the process was killed by
        someone else and the evaluation is to be begun again.
        """
        conduct = self._conduct
        if not self._places:
            raise Exhausted("evaluations at a time", conduct.capacity, hint="Wait for one to end, or raise capacity.")
        self._places -= 1
        process: EvaluatingProcess | None = None
        reusable = False
        try:
            await self._cleared()
            process = await self._process()
            self._running.add(process)
            kills_before, ends_at = out_of_memory_kills(), time.monotonic() + conduct.hard_limit
            try:
                await process.send(request)
                while True:
                    event = await asyncio.wait_for(process.read(), max(0.0, ends_at - time.monotonic()))
                    if event.pop("event") == "progress":
                        yield Progress(**event)
                        continue
                    reusable = event["reusable"] and not conduct.fresh_process
                    yield Ending.from_json(event["ending"])
                    return
            except TimeoutError:
                yield Ending(
                    Outcome.TIMED_OUT,
                    message=f"killed at the hard limit of {conduct.hard_limit:g} s; the task's hard_limit= sets it",
                )
            except UnreadableEvent as error:
                yield Ending(Outcome.CRASHED, message=str(error))
            except ProcessEnded as ended:
                yield self._died(request, ended, kills_before)
        finally:
            self._places += 1
            self._release(process, reusable)

    def _died(self, request: Request, ended: ProcessEnded, kills_before: int | None) -> Ending:
        """The ending of an evaluation whose process ended without one. Raises :class:`CutOff`."""
        if self._stopping:
            return Ending(Outcome.CANCELLED, message="the task's server is shutting down")
        often = ""
        if ended.returncode == -signal.SIGKILL:
            kills_now = out_of_memory_kills()
            if kills_before is not None and kills_now is not None and kills_now > kills_before:
                return Ending(Outcome.OUT_OF_MEMORY, message="the kernel killed the evaluation's process for memory")
            self._interruptions.note(repr(request))
            often = f" {ACCIDENTS + 1} times"
        return Ending(
            Outcome.CRASHED,
            message=f"the process ended by {ended.how}{often}; its last words are in the task server's log",
        )

    async def _process(self) -> EvaluatingProcess:
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
            await process.end()
        return await EvaluatingProcess.start(self._location)

    async def _cleared(self) -> None:
        """Wait until what ended before is gone, where it would take this evaluation's place."""
        while self._ending and len(self._ending) + self._conduct.capacity - self._places > self._conduct.capacity:
            await asyncio.wait(self._ending, return_when=asyncio.FIRST_COMPLETED)

    def _release(self, process: EvaluatingProcess | None, reusable: bool) -> None:
        if process is None:
            return
        self._running.discard(process)
        if reusable and not self._stopping:
            self._idle.append(process)
            return
        ending = asyncio.create_task(process.end(self._conduct.cleanup_seconds))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
