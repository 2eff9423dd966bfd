"""What storage costs: appending, replaying and watching a trace, opening a run, and the loop's own work per trial.

    python benchmarks/trace.py                       # everything, on SQLite and, where it is installed, PostgreSQL
    python benchmarks/trace.py --only overhead       # one part: append, open, watch or overhead
    python benchmarks/trace.py --database sqlite     # on one database alone
    python benchmarks/trace.py --largest 1000000     # runs of up to so many events in the part `open`

PostgreSQL is a private server on this machine, SQLite a file in a temporary folder; both keep their defaults for
durability, so that a commit waits for the disk. "Overhead" drives a real run with 1,000 past trials through the
inner service's loop against a task and a model that answer at once over real sockets, and measures from one decision to
the next what is left without the model's latency and the evaluation: prompts, proposing, deciding, events and commits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from aiohttp import web
from bilevel.v1 import common_pb2, task_pb2, task_pb2_grpc
from google.protobuf.duration_pb2 import Duration

from inner_service import trace
from inner_service.run import RunSpec, RunState, Search, Trial
from inner_service.runs import Runs
from inner_service.store import Store
from inner_service.task import EvaluationProgress, EvaluationResult, TaskDescription
from inner_service.task_address import TaskAddress
from inner_service.tasks import Tasks
from mechanisms.interface import Origin
from service_kit import eventlog, logs
from service_kit.database import Database
from service_kit.eventlog import EventLog, NewEvent
from service_kit.llm.client import LanguageModel
from service_kit.parameters import Direction, Kind, Objective, Outcome, Parameter, ParameterSpace
from service_kit.settings import ModelSettings
from service_kit.translate import objective_to_proto, space_to_proto
from tests.postgres import PostgresServer, binaries

TARGET_MS = 15.0
SPACE = ParameterSpace(
    tuple(Parameter(f"p{i}", Kind.REAL, 1.0, "a number", minimum=0.0, maximum=10.0) for i in range(12))
)
OBJECTIVE = Objective("loss", Direction.MINIMIZE)
TASK = TaskDescription(
    name="nothing",
    title="Nothing",
    documentation="",
    space=SPACE,
    objective=OBJECTIVE,
    budget=timedelta(seconds=1),
    budget_clock="wall",
    capacity=1,
    hard_limit=timedelta(seconds=60),
)
OPENED = 7
"""Times that a run is opened, each by a store that has just been opened itself."""
DECIDED = 12
"""Events that make a trial in these traces."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("append", "watch", "open", "overhead"), action="append")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--largest", type=int, default=100_000, help="events of the longest run in the part `open`")
    parser.add_argument("--smallest", type=int, default=1000, help="events of the shortest run in the part `open`")
    parser.add_argument("--folded", type=int, default=100_000, help="events of the longest run that is also folded")
    parser.add_argument("--trials", type=int, default=60, help="trials measured in the part `overhead`")
    parser.add_argument("--past", type=int, default=1000, help="trials that the run has had before, for `overhead`")
    parser.add_argument("--profile", action="store_true", help="print where `overhead` spends its time")
    os.environ.setdefault("BILEVEL_LOG_LEVEL", "warning")  # otherwise each call is a line among the results
    logs.configure("benchmark")
    asyncio.run(measure(parser.parse_args()))


async def measure(arguments: argparse.Namespace) -> None:
    """Run the parts on each database."""
    parts = arguments.only or ["append", "watch", "open", "overhead"]
    print(f"{datetime.now(UTC):%Y-%m-%d}  {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    missed = False
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {"SQLite": f"sqlite:///{folder}/"} if arguments.database != "postgresql" else {}
        if arguments.database == "postgresql" and binaries() is None:
            sys.exit("no PostgreSQL server is installed here: install Debian's package postgresql")
        if arguments.database != "sqlite" and binaries() is not None:
            server = PostgresServer(durable=True)
            stack.callback(server.stop)
            urls["PostgreSQL"] = ""
        for name in urls:

            def fresh(name: str = name) -> str:
                if name == "SQLite":
                    return f"sqlite:///{folder}/{time.monotonic_ns()}.db"
                return stack.enter_context(server.database())

            if "append" in parts:
                await append(name, fresh())
            if "watch" in parts:
                await watch(name, fresh())
            if "open" in parts:
                await opening(name, fresh(), arguments)
            if "overhead" in parts:
                slow = await overhead(name, fresh(), arguments)
                missed = missed or (slow and name == "SQLite")
    if missed:
        sys.exit("a target is missed")


async def filled(url: str, count: int) -> tuple[Database, EventLog]:
    database = await Database.open(url)
    async with database.transaction() as connection:
        await connection.run_sync(eventlog.metadata.create_all)
    log = EventLog(database)
    for _ in range(count // 1000):
        async with database.transaction() as connection:
            await log.append(connection, "s", [NewEvent("k", {"n": 1, "text": "x" * 200})] * 1000)
    return database, log


async def append(name: str, url: str) -> None:
    """One event a transaction by one writer, and by eight streams at the same time; then reading all of it."""
    database, log = await filled(url, 10_000)

    async def one(stream: str, count: int) -> None:
        for _ in range(count):
            async with database.transaction() as connection:
                await log.append(connection, stream, [NewEvent("k", {"n": 1, "text": "x" * 200})])

    began = time.perf_counter()
    await one("alone", 300)
    alone = 300 / (time.perf_counter() - began)
    began = time.perf_counter()
    await asyncio.gather(*(one(f"s{i}", 60) for i in range(8)))
    together = 480 / (time.perf_counter() - began)
    began, read = time.perf_counter(), 0
    while events := await log.read("s", read, 1000):
        read = events[-1].sequence
    replayed = read / (time.perf_counter() - began)
    print(
        f"{name:11} append {alone:8.0f} events/s alone, {together:8.0f} from 8 streams; replay {replayed:8.0f} events/s"
    )
    await database.close()


async def watch(name: str, url: str) -> None:
    """Ten watchers that follow 2,000 appended events, and what a watcher of 100,000 stored ones needs of memory."""
    database, log = await filled(url, 100_000)

    async def follow(after: int, until: int) -> None:
        async for event in log.watch("s", after):
            if event.sequence == until:
                return

    following = [asyncio.create_task(follow(100_000, 102_000)) for _ in range(10)]
    began = time.perf_counter()
    for _ in range(100):
        async with database.transaction() as connection:
            await log.append(connection, "s", [NewEvent("k", {"n": 1})] * 20)
    await asyncio.gather(*following)
    rate = 20_000 / (time.perf_counter() - began)
    tracemalloc.start()
    await follow(0, 100_000)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    told = f"{rate:9.0f} events/s to 10 watchers; one that reads 100,000 events holds {peak:.1f} MiB at most"
    print(f"{name:11} watch {told}")
    await database.close()


def lived(number: int) -> list[trace.Event]:
    """The events of one trial, from proposal to decision, with progress in between."""
    origin = Origin.MODEL if number else Origin.BASELINE
    configuration = dict.fromkeys((p.name for p in SPACE.parameters), 1.0)
    trial = Trial(number, configuration, {"p1": 1.0}, "because it may help", origin, incumbent_metric=1.0)
    progress = [
        trace.TrialProgressed(number, EvaluationProgress(i / 8, i, timedelta(seconds=i), {"loss": 1.0}))
        for i in range(8)
    ]
    result = EvaluationResult(Outcome.SUCCEEDED, 1.0 - number * 1e-7, {"steps": 1.0}, elapsed=timedelta(seconds=1))
    ended = [trace.TrialEvaluated(number, result), trace.TrialDecided(number, number == 0, "why", number == 0)]
    return [trace.TrialProposed(trial), trace.TrialStarted(number, 1, 0), *progress, *ended]


async def populated(store: Store, trials: int, progress: int = 8, **spec: Any) -> Search:
    """A run with so many decided trials."""
    await store.create("r", trace.RunCreated(RunSpec("nothing", 10_000_000, **spec), TASK))
    going = trace.RunStateChanged(RunState.CREATED, RunState.RUNNING, "started")
    search = (await store.commit("r", lambda _: [going])).search
    for first in range(0, trials, 100):
        happening = [event for number in range(first, min(first + 100, trials)) for event in lived(number)]
        search = (await store.commit("r", lambda _, e=happening: e)).search
    paused = trace.RunStateChanged(RunState.RUNNING, RunState.PAUSED, "so far")
    return (await store.commit("r", lambda _: [paused])).search if trials else search


async def opening(name: str, url: str, arguments: argparse.Namespace) -> None:
    """Opening a run of N events from its rows, and folding its whole trace instead. A fifth of the events are a trial's
    own and the others progress; in the second half of the table all others are progress of one trial."""
    size = arguments.smallest
    while size <= arguments.largest:
        for shape in ("20 trials", "many trials"):
            if shape == "20 trials" and size < 10_000:
                continue
            at = f"{url}.{size}.{shape[0]}.db" if name == "SQLite" else url
            store = await Store.open(at)
            run = f"r{size}{shape[0]}"
            await long_run(store, run, size, size // DECIDED if shape == "many trials" else 20)
            await store.close()
            opened = []
            for _ in range(OPENED):
                store = await Store.open(at)
                began = time.perf_counter()
                search = await store.search(run)
                opened.append((time.perf_counter() - began) * 1e3)
                await store.close()
            folding = "not folded"
            if size <= arguments.folded:
                store = await Store.open(at)
                began = time.perf_counter()
                assert await store.rebuild(run) == search
                folding = f"{(time.perf_counter() - began) * 1e3:9.1f} ms by folding and writing the rows anew"
                await store.close()
            print(
                f"{name:11} open {search.run.last_sequence:8} events, {len(search.trials):6} trials: "
                f"{statistics.median(opened):8.1f} ms from rows ({min(opened):.1f} to {max(opened):.1f}, the first "
                f"{opened[0]:.1f}), {folding}; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        size *= 10


async def long_run(store: Store, run: str, size: int, trials: int) -> None:
    await store.create(run, trace.RunCreated(RunSpec("nothing", 10_000_000), TASK))
    going = trace.RunStateChanged(RunState.CREATED, RunState.RUNNING, "started")
    await store.commit(run, lambda _: [going])
    each = max(0, size // trials - DECIDED)
    batch: list[trace.Event] = []
    for number in range(trials):
        events = lived(number)
        more = [events[3]] * each
        batch += [*events[:3], *more, *events[3:]]
        while len(batch) >= 2000 or (batch and number == trials - 1):
            now, batch = batch[:2000], batch[2000:]
            await store.commit(run, lambda _, e=now: e)


class Task(task_pb2_grpc.TaskServiceServicer):
    """Answers at once."""

    async def Describe(self, request: Any, context: Any) -> task_pb2.DescribeResponse:  # noqa: N802
        return task_pb2.DescribeResponse(
            task=task_pb2.TaskDescription(
                name="nothing",
                title="Nothing",
                space=space_to_proto(SPACE),
                objective=objective_to_proto(OBJECTIVE),
                budget=Duration(seconds=1),
                budget_clock="wall",
                capacity=1,
                hard_limit=Duration(seconds=60),
            )
        )

    async def Validate(self, request: Any, context: Any) -> task_pb2.ValidateResponse:  # noqa: N802
        return task_pb2.ValidateResponse()

    async def Evaluate(self, request: Any, context: Any) -> AsyncIterator[task_pb2.EvaluateResponse]:  # noqa: N802
        result = task_pb2.EvaluationResult(outcome=common_pb2.OUTCOME_SUCCEEDED, metric=2.0)
        yield task_pb2.EvaluateResponse(result=result)


async def answer(request: web.Request) -> web.Response:
    """A model's answer with one candidate."""
    read = len(await request.read()) // 3
    candidate = {"changes": [{"parameter": "p1", "value": 2.0}], "hypothesis": "it may help"}
    message = {"role": "assistant", "content": json.dumps({"candidates": [candidate]})}
    usage = {"prompt_tokens": read, "completion_tokens": 50, "total_tokens": read + 50}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return web.json_response(body)


@asynccontextmanager
async def peers() -> AsyncIterator[tuple[str, str]]:
    """Addresses of a task and a model endpoint."""
    server = grpc.aio.server()
    task_pb2_grpc.add_TaskServiceServicer_to_server(Task(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{port}", f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await runner.cleanup()
    await server.stop(None)


async def overhead(name: str, url: str, arguments: argparse.Namespace) -> bool:
    """The loop's own time per trial; whether it misses its target."""
    async with peers() as (task, endpoint):
        store = await Store.open(url)
        await populated(store, arguments.past)
        model = LanguageModel(ModelSettings.load(base_url=endpoint, model="m", retries=0))
        tasks = Tasks({"nothing": TaskAddress(task)})
        runs = Runs(store, tasks, model)
        profiler = profiling(arguments.profile)
        await runs.resume("r")
        after, spent, busy = (await store.search("r")).run.last_sequence, [], []
        began, cpu, elsewhere, started = time.perf_counter(), time.process_time(), 0.0, datetime.now(UTC)
        async for entry in store.watch("r", after, heartbeat=60, draining=asyncio.Event()):
            happened = getattr(entry, "event", None)
            if isinstance(happened, trace.ModelCalled):
                elsewhere += happened.latency.total_seconds()
            elif isinstance(happened, trace.TrialStarted):
                started = entry.time
            elif isinstance(happened, trace.TrialEvaluated):
                elsewhere += (entry.time - started).total_seconds()
            elif isinstance(happened, trace.TrialDecided):
                spent.append((time.perf_counter() - began - elsewhere) * 1e3)
                busy.append((time.process_time() - cpu) * 1e3)
                began, cpu, elsewhere = time.perf_counter(), time.process_time(), 0.0
                if len(spent) == arguments.trials + 5:
                    break
            elif isinstance(happened, trace.RunStateChanged) and happened.to_state is RunState.PAUSED:
                sys.exit(f"the run paused: {happened.reason}")
        profiler()
        await runs.close()
        for close in (tasks.close, model.close, store.close):
            await close()
    spent, median = sorted(spent[5:]), statistics.median(spent[5:])
    print(
        f"{name:11} overhead per trial after {arguments.past} trials: p50 {median:.1f} ms, "
        f"p90 {spent[int(len(spent) * 0.9)]:.1f} ms; target {TARGET_MS:g} ms; CPU of everything, the task's and the "
        f"endpoint's own work included: p50 {statistics.median(busy[5:]):.1f} ms"
    )
    return median > TARGET_MS


def profiling(wanted: bool) -> Any:
    if not wanted:
        return lambda: None
    import cProfile
    import pstats

    profile = cProfile.Profile()
    profile.enable()

    def done() -> None:
        profile.disable()
        for order in ("tottime", "cumulative"):
            pstats.Stats(profile).sort_stats(order).print_stats(60)

    return done


if __name__ == "__main__":
    main()
