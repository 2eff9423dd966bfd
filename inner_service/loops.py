"""The loops that are open in this process: each with its run's mechanisms, and the patience of its task and model.

Ownership: :class:`Loops` owns the processes of the mechanisms and ends them. Concurrency: a run has one open loop,
however many ask for it at the same time.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator

from inner_service.installation import Installer
from inner_service.loop import Loop
from inner_service.mechanism_set import MechanismSet
from inner_service.run import RunState, Search
from inner_service.store import Store
from inner_service.tasks import Tasks
from mechanisms.sandbox.limits import SandboxPolicy
from service_kit.llm.client import LanguageModel
from service_kit.patience import AvailabilityChanged, Waiting

DRIVEN = (RunState.RUNNING, RunState.CONFIRMING)
"""States in which the service drives a run."""


class Loops:
    """The loops of one service. ``patience`` is how many seconds a driven run waits for what is away."""

    def __init__(
        self, store: Store, tasks: Tasks, model: LanguageModel, sandbox: SandboxPolicy, patience: float
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._model = model
        self._sandbox = sandbox
        self._patience = patience
        self._open: dict[str, Loop] = {}
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def __iter__(self) -> Iterator[str]:
        """Ids of the runs whose loops are open."""
        return iter(list(self._open))

    async def of(self, run_id: str) -> Loop:
        """The run's loop; its mechanisms are started again when this process has not yet."""
        async with self._opening[run_id]:
            if run_id not in self._open:
                search, mechanisms = await self._store.search(run_id), self._mechanisms(run_id)
                await self._installer(run_id, mechanisms).restore()
                self._open[run_id] = self._new(search, mechanisms)
            return self._open[run_id]

    async def bare(self, run_id: str) -> Loop:
        """A loop for reading, without the mechanisms: they live where the run is driven."""
        return self._new(await self._store.search(run_id), self._mechanisms(run_id))

    async def installer(self, run_id: str) -> Installer:
        """What installs mechanisms into the run's open loop."""
        return self._installer(run_id, (await self.of(run_id)).mechanisms)

    def bare_installer(self, run_id: str) -> Installer:
        """What installs mechanisms into a run that is driven elsewhere."""
        return self._installer(run_id, self._mechanisms(run_id))

    async def retire(self, run_id: str) -> None:
        """End the processes of a run that has ended."""
        loop = self._open.get(run_id)
        if loop is not None:
            await loop.mechanisms.close()
            self._open.pop(run_id, None)

    async def close(self) -> None:
        """End all of them."""
        for loop in self._open.values():
            await loop.mechanisms.close()

    def _mechanisms(self, run_id: str) -> MechanismSet:
        return MechanismSet(lambda decide: self._store.commit(run_id, decide))

    def _installer(self, run_id: str, mechanisms: MechanismSet) -> Installer:
        return Installer(run_id, self._store, mechanisms, self._sandbox)

    def _new(self, search: Search, mechanisms: MechanismSet) -> Loop:
        run_id = search.run.id
        waiting, restore = self._waiting(run_id), self._installer(run_id, mechanisms).restore
        task, model = self._tasks.get(search.run.spec.task).patient(waiting), self._model.patient(waiting)
        return Loop(run_id, self._store, task, model, mechanisms, restore)

    def _waiting(self, run_id: str) -> Waiting:
        return Waiting(self._patience, lambda what: self._tell(run_id, what), lambda: self._worthwhile(run_id))

    async def _tell(self, run_id: str, what: AvailabilityChanged) -> None:
        await self._store.commit(run_id, lambda search: [] if search.run.state.terminal else [what])

    async def _worthwhile(self, run_id: str) -> bool:
        """Whether to wait for what is away: not for a client who does it by hand, and not for a pause."""
        run = (await self._store.search(run_id)).run
        return run.state in DRIVEN and not run.pause_request
