"""Runs, trials and leases over the real store: random lives of a run among replicas that crash, stall and take over.

A small model says what each step must do; after each step the store of every living replica must say the same.
"""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from inner_service.fold import IllegalEvent
from inner_service.run import RunSpec, RunState, Search, Trial, TrialState
from inner_service.store import Store, stream_of
from inner_service.task import EvaluationResult, TaskDescription
from inner_service.trace import (
    Event,
    RunCreated,
    RunStateChanged,
    TrialDecided,
    TrialEvaluated,
    TrialProposed,
    TrialRejected,
    TrialStarted,
)
from mechanisms.interface import Origin
from service_kit.leases import LeaseLost
from service_kit.parameters import Kind, Objective, Outcome, Parameter, ParameterSpace
from tests.postgres import PostgresServer

RUN, STREAM = "r", stream_of("r")
GOES = {"created": {"running"}, "running": {"paused", "finished"}, "paused": {"running"}}
ENDED = ("finished", "cancelled")
NEXT = {"begin": ("proposed", "running"), "measure": ("running",), "decide": ("evaluated",)}
names = st.sampled_from(("one", "two"))
numbers = st.integers(0, 5)


def created() -> RunCreated:
    space = ParameterSpace((Parameter("x", Kind.REAL, 0.0),))
    second = timedelta(seconds=1)
    return RunCreated(RunSpec("t", 100), TaskDescription("t", "", "", space, Objective("loss"), second, "", 2, second))


class Replicas(RuleBasedStateMachine):
    """Up to ``most`` replicas of a service on one database."""

    def __init__(self, url: str, most: int) -> None:
        super().__init__()
        self.url, self.most, self.runner = url, most, asyncio.Runner()
        self.stores: dict[str, Store] = {}
        # The model: what the run is, who owns its lease, and who believes to hold it.
        self.state, self.trials, self.attempts, self.events = "created", list[str](), list[int](), 0
        self.owner: str | None = None
        self.expired = False
        self.believes: set[str] = set()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        for store in self.stores.values():
            self.do(store.close())
        self.runner.close()

    @initialize()
    def create(self) -> None:
        self.stores["one"] = self.do(Store.open(self.url, 3600))
        self.do(self.stores["one"].create(RUN, created(), "request"))
        self.events = 1

    @rule(name=names)
    def create_again(self, name: str) -> None:
        if name in self.stores:
            assert self.do(self.stores[name].create("another", created(), "request")).run.id == RUN

    @rule(name=names)
    def open(self, name: str) -> None:
        if name in self.stores or len(self.stores) >= self.most:
            return
        self.stores[name] = self.do(Store.open(self.url, 3600))
        if self.most == 1:
            self.owner = None  # whoever held the lease of a file has ended

    @rule(name=names)
    def crash(self, name: str) -> None:
        """Nothing is released; the lease stays until it runs out."""
        if name in self.stores:
            self.do(self.stores.pop(name).close())
            self.believes.discard(name)
            if self.owner == name:
                self.owner = "nobody alive"

    @precondition(lambda self: self.stores)
    @rule()
    def time_passes(self) -> None:
        async def expire() -> None:
            async with next(iter(self.stores.values()))._database.transaction() as connection:
                await connection.execute(text("UPDATE leases SET until = 0"))

        self.do(expire())
        self.expired = True

    @rule(name=names)
    def take(self, name: str) -> None:
        if name not in self.stores:
            return
        taken = self.do(self.stores[name].leases.acquire(STREAM))
        free = self.owner in (None, name) or self.expired
        assert taken == (free and name not in self.believes)
        if taken:
            self.owner, self.expired = name, False
            self.believes.add(name)

    @rule(name=names)
    def renew(self, name: str) -> None:
        if name not in self.stores:
            return
        lost = self.do(self.stores[name].leases.renew())
        mine = self.owner == name
        assert lost == (frozenset({STREAM}) if name in self.believes and not mine else frozenset())
        if name in self.believes and mine:
            self.expired = False
        if lost:
            self.believes.discard(name)

    @rule(name=names)
    def release(self, name: str) -> None:
        if name in self.stores:
            self.do(self.stores[name].leases.release(STREAM))
            self.believes.discard(name)
            if self.owner == name:
                self.owner = None

    @rule(name=names, to=st.sampled_from(("created", "running", "paused", "finished")))
    def go(self, name: str, to: str) -> None:
        """A client or the driver moves the run on, through any replica."""
        still_open = {"proposed", "running", "evaluated"} & set(self.trials)
        legal = to in GOES.get(self.state, ()) and not (to == "finished" and still_open)
        change = RunStateChanged(RunState(self.state), RunState(to), "because")
        if self._happens(name, lambda _: [change], legal=legal):
            self.state = to

    @rule(name=names)
    def cancel(self, name: str) -> None:
        """A client ends the run; whoever works on it has lost it."""

        def cancelled(search: Search) -> list[Event]:
            closing: list[Event] = []
            for trial in search.open_trials:
                if trial.state is TrialState.PROPOSED:
                    closing.append(TrialRejected(trial.number, "cancelled"))
                    continue
                if trial.state is TrialState.RUNNING:
                    closing.append(TrialEvaluated(trial.number, EvaluationResult(Outcome.CANCELLED)))
                closing.append(TrialDecided(trial.number, False, "cancelled"))
            return [*closing, RunStateChanged(search.run.state, RunState.CANCELLED, "cancelled")]

        added = 1 + sum({"proposed": 1, "running": 2, "evaluated": 1}.get(state, 0) for state in self.trials)
        if self._happens(name, cancelled, legal=self.state not in ENDED, added=added, revoke=True):
            ends = {"proposed": "rejected", "running": "discarded", "evaluated": "discarded"}
            self.state, self.trials = "cancelled", [ends.get(state, state) for state in self.trials]
            self.owner = None

    @rule(name=names, guarded=st.booleans())
    def propose(self, name: str, guarded: bool) -> None:
        origin = Origin.MODEL if "kept" in self.trials else Origin.BASELINE

        def proposed(search: Search) -> list[Event]:
            return [TrialProposed(Trial(len(search.trials), {"x": 0.0}, {}, "", origin))]

        if self._happens(name, proposed, legal=self.state not in ENDED, guarded=guarded):
            self.trials.append("proposed")
            self.attempts.append(0)

    @rule(name=names, action=st.sampled_from(tuple(NEXT)), number=numbers, guarded=st.booleans(), kept=st.booleans())
    def work(self, name: str, action: str, number: int, guarded: bool, kept: bool) -> None:
        """A step of a trial, by a driver or, unguarded, by hand."""
        known = number < len(self.trials)
        legal = known and self.trials[number] in NEXT[action] and self.state not in ENDED
        attempt = self.attempts[number] + 1 if known else 1
        event: Event = TrialDecided(number, kept, "because")
        if action == "begin":
            event = TrialStarted(number, attempt, 0)
        elif action == "measure":
            event = TrialEvaluated(number, EvaluationResult(Outcome.SUCCEEDED, 1.0))
        if self._happens(name, lambda _: [event], legal=legal, guarded=guarded):
            self.attempts[number] += action == "begin"
            ends = {"begin": "running", "measure": "evaluated", "decide": "kept" if kept else "discarded"}
            self.trials[number] = ends[action]

    def _happens(
        self,
        name: str,
        decide: Callable[[Search], list[Event]],
        *,
        legal: bool,
        added: int = 1,
        guarded: bool = False,
        revoke: bool = False,
    ) -> bool:
        """Commit; whether it happened, which must be when the model says so and the lease is not another's."""
        if name not in self.stores:
            return False
        store = self.stores[name]
        guard: AbstractContextManager[None] = store.leases.guard(STREAM) if guarded else nullcontext()

        async def commit() -> None:
            with guard:
                await store.commit(RUN, decide, revoke=revoke)

        allowed = not guarded or self.owner == name
        try:
            self.do(commit())
        except LeaseLost:
            assert not allowed
            return False
        except IllegalEvent:
            assert not legal
            return False
        assert legal
        assert allowed
        self.events += added
        return True

    @invariant()
    def every_replica_says_what_the_model_says(self) -> None:
        for store in self.stores.values():
            search = self.do(store.search(RUN))
            assert search.run.state.value == self.state
            assert [trial.state.value for trial in search.trials] == self.trials
            assert [trial.attempt for trial in search.trials] == self.attempts

    @invariant()
    def numbers_have_no_gaps_and_the_rows_are_the_fold_of_the_log(self) -> None:
        async def sequences(store: Store) -> list[int]:
            return [entry.sequence async for entry in store.entries(RUN)]

        for store in self.stores.values():
            assert self.do(sequences(store)) == list(range(1, self.events + 1))
            assert self.do(store.verify(RUN)) == []

    @invariant()
    def at_most_one_replica_may_drive(self) -> None:
        async def may(store: Store) -> bool:
            async with store._database.transaction() as connection:
                with store.leases.guard(STREAM):
                    try:
                        await connection.run_sync(store.leases.check)
                    except LeaseLost:
                        return False
            return True

        drivers = [name for name, store in self.stores.items() if self.do(may(store))]
        assert drivers == [name for name in self.stores if name == self.owner]


def lives(examples: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )


def on_sqlite(folder: Path) -> Callable[[], Replicas]:
    return lambda: Replicas(f"sqlite:///{tempfile.mkdtemp(dir=folder)}/inner.db", most=1)


def on_postgresql(server: PostgresServer, databases: ExitStack) -> Callable[[], Replicas]:
    return lambda: Replicas(databases.enter_context(server.database()), most=2)


def test_any_life_of_a_run_on_sqlite(tmp_path: Path) -> None:
    run_state_machine_as_test(on_sqlite(tmp_path), settings=lives(8))


def test_any_life_of_a_run_among_two_replicas_on_postgresql(postgres: PostgresServer) -> None:
    with ExitStack() as databases:
        run_state_machine_as_test(on_postgresql(postgres, databases), settings=lives(2))


@pytest.mark.long
def test_many_lives_of_a_run_on_sqlite(tmp_path: Path) -> None:
    run_state_machine_as_test(on_sqlite(tmp_path), settings=lives(100))


@pytest.mark.long
def test_many_lives_of_a_run_among_two_replicas_on_postgresql(postgres: PostgresServer) -> None:
    with ExitStack() as databases:
        run_state_machine_as_test(on_postgresql(postgres, databases), settings=lives(40))
