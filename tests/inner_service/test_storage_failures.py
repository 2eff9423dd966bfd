"""A database that is full, read-only or gone stops a run, loses nothing, and the run goes on by itself."""

import asyncio
import resource
from pathlib import Path
from typing import Any

import grpc
import pytest
from bilevel.v1 import inner_pb2 as pb
from bilevel.v1 import trace_pb2
from sqlalchemy import event
from structlog.testing import capture_logs

from clients.doctor import Severity
from clients.doctor import services as doctor
from inner_service import store as store_module
from inner_service import trace
from inner_service.run import RunState
from inner_service.store import Store
from service_kit import waits
from service_kit.errors import InvalidArgument, ServiceError, StorageFailed
from service_kit.probe import probe
from service_kit.status import remote_error
from service_kit.waits import WAITS
from tests.inner_service.conftest import Inner, Process, QuadraticTask
from tests.storage import WAYS, Switch, bilevel


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PATIENCE_SECONDS", 0.0)


async def held(inner: Inner, task: QuadraticTask) -> str:
    """A run in the evaluation of its baseline."""
    task.gate.clear()
    name = await inner.create()
    await inner.start(name)
    await asyncio.wait_for(task.started.get(), 20)
    return name


async def refused(inner: Inner, name: str) -> str:
    """What a client is told who tries to write; what still fits into a full database is written."""
    async with asyncio.timeout(20):
        while True:
            try:
                await inner.stub.Remark(pb.RemarkRequest(run=name, author="me", text="x" * 2000))
            except grpc.aio.AioRpcError as refusal:
                error = remote_error(refusal)
                assert (error.code, error.reason) == ("UNAVAILABLE", "STORAGE_FAILED")
                return f"{error.message} {error.hint}"


async def goes_on(inner: Inner, name: str, cause: str) -> None:
    events = await asyncio.wait_for(inner.finished(name), 40)
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    assert [e.trial_decided.number for e in events if e.HasField("trial_decided")] == [0, 1, 2, 3]
    said = [e.remarked.text for e in events if e.HasField("remarked")]
    assert any(cause in text and "goes on" in text for text in said), said
    assert await inner.runs.store.verify() == []


@WAYS
async def test_a_full_or_read_only_sqlite_file(inner: Inner, task, broken: str, mended: str, cause: str, hint: str):
    switch, loop = Switch(inner.runs.store), asyncio.get_running_loop()
    name = await held(inner, task)
    switch.to(broken)
    failed: asyncio.Queue[None] = asyncio.Queue()

    def note(_: Any) -> None:
        loop.call_soon_threadsafe(failed.put_nowait, None)

    event.listen(switch.engine, "handle_error", note)
    said = await refused(inner, name)
    assert cause in said
    assert hint in said
    while not failed.empty():
        failed.get_nowait()
    task.gate.set()
    await asyncio.wait_for(failed.get(), 20)  # the driver has noticed
    assert (await inner.run(name)).state == trace_pb2.RUN_STATE_RUNNING, "reading goes on"
    switch.to(mended)
    await goes_on(inner, name, cause)


async def waiting(inner: Inner, name: str) -> trace_pb2.Run:
    """The run, once it waits."""
    async with asyncio.timeout(20):
        while WAITS not in (run := await inner.run(name)).state_reason:  # noqa: ASYNC110 (nothing is told)
            await asyncio.sleep(0.05)
    return run


async def test_that_a_run_waits_is_seen_while_it_does(inner: Inner, task: QuadraticTask) -> None:
    switch = Switch(inner.runs.store)
    name = await held(inner, task)
    (before,) = (await inner.stub.ListRuns(pb.ListRunsRequest())).runs
    assert before.state_reason == "started"
    switch.to("PRAGMA query_only=ON")
    task.gate.set()
    run = await waiting(inner, name)
    assert run.state == trace_pb2.RUN_STATE_RUNNING
    assert "readonly database" in run.state_reason
    (listed,) = (await inner.stub.ListRuns(pb.ListRunsRequest())).runs
    assert listed.state_reason == run.state_reason
    assert f"{name} {run.state_reason}" in await bilevel("runs", "--inner", inner.address)
    there, _ = await doctor.running(inner=inner.address, outer="127.0.0.1:1")
    assert there.severity is Severity.BAD
    assert "waits for its database" in there.text
    assert "`bilevel runs`" in there.advice
    assert await probe(inner.address), "a new container would wait as well"
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await inner.stub.CancelRun(pb.CancelRunRequest(name=name))
    assert remote_error(refusal.value).reason == "STORAGE_FAILED"
    await waiting(inner, name)
    switch.to("PRAGMA query_only=OFF")
    await goes_on(inner, name, "readonly database")
    assert WAITS not in (await inner.run(name)).state_reason
    there, _ = await doctor.running(inner=inner.address, outer="127.0.0.1:1")
    assert there.severity is Severity.GOOD


async def test_a_run_whose_lease_cannot_be_taken_is_driven_later(inner: Inner) -> None:
    switch, store, name = Switch(inner.runs.store), inner.runs.store, await inner.create()
    started = trace.RunStateChanged(RunState.CREATED, RunState.RUNNING, "started")
    await store.commit(name.removeprefix("runs/"), lambda _: [started])
    switch.to("PRAGMA query_only=ON")
    await inner.runs.recover()
    await waiting(inner, name)
    switch.to("PRAGMA query_only=OFF")
    await goes_on(inner, name, "readonly database")


async def test_a_disk_that_takes_small_writes_only_does_not_burn_money(
    inner: Inner, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is stored but new trials, so that each attempt asks the model and then fails."""
    monkeypatch.setattr(waits, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(waits, "LONGEST_PAUSE", 0.4)
    store, pauses, full = inner.runs.store, list[float](), True
    attempt, begin = store._attempt, store.waits.begin

    def almost_full(connection: Any, attempted: Any, *rest: Any) -> None:
        if full and any(isinstance(e, trace.TrialProposed) and e.trial.number for e in attempted.events):
            raise StorageFailed("the database cannot be written: disk is full")
        attempt(connection, attempted, *rest)

    def noted(name: str, reason: str) -> waits.Wait | None:
        if (wait := begin(name, reason)) is not None:
            pauses.append(wait.pause)
        return wait

    monkeypatch.setattr(store, "_attempt", almost_full)
    monkeypatch.setattr(store.waits, "begin", noted)
    name = await inner.create()
    await inner.start(name)
    async with asyncio.timeout(20):
        while len(pauses) < 6:  # noqa: ASYNC110 (nothing is told)
            await asyncio.sleep(0.05)
    assert pauses[:6] == [0.05, 0.1, 0.2, 0.4, 0.4, 0.4]
    assert "rests 0.4 s first" in (await waiting(inner, name)).state_reason
    assert len(endpoint.prompts) <= len(pauses) + 1, "asked once for each attempt"
    full = False
    await goes_on(inner, name, "disk is full")


async def test_whatever_else_keeps_a_lease_from_being_taken_is_loud_and_tried_again(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, name = inner.runs.store, await inner.create()
    keep = store.leases.keep

    async def broken(_: str) -> bool:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(store.leases, "keep", broken)
    with capture_logs() as logs:
        await inner.start(name)
        assert "internal error (ZeroDivisionError)" in (await waiting(inner, name)).state_reason
    assert [line for line in logs if isinstance(line.get("exc_info"), ZeroDivisionError)]
    monkeypatch.setattr(store.leases, "keep", keep)
    events = await asyncio.wait_for(inner.finished(name), 40)
    assert [e.trial_decided.number for e in events if e.HasField("trial_decided")] == [0, 1, 2, 3]
    assert WAITS not in (await inner.run(name)).state_reason


async def test_a_file_that_the_system_does_not_let_grow(tmp_path: Path, served, task, endpoint) -> None:
    process = Process(tmp_path, served.address, endpoint.url)
    stub = await process.start()
    inner = Inner(stub, None, process.address)  # type: ignore[arg-type]
    name = await held(inner, task)
    pid = process.service_pid()
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    said = await refused(inner, name)
    assert "the database cannot be written" in said
    before = (await inner.run(name)).last_sequence
    task.gate.set()
    assert (await inner.run(name)).last_sequence == before
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
    events = await asyncio.wait_for(inner.finished(name), 40)
    assert [e.trial_decided.number for e in events if e.HasField("trial_decided")] == [0, 1, 2, 3]
    await process.kill()
    store = await Store.open(f"sqlite:///{tmp_path / 'inner.db'}")
    assert await store.verify() == []
    await store.close()


async def test_a_postgresql_that_restarts_interrupts_nothing(postgres, serve_inner, task) -> None:
    with postgres.database() as url:
        async with serve_inner(database=url) as inner:
            name = await held(inner, task)
            watching = asyncio.create_task(inner.finished(name))
            await asyncio.to_thread(postgres.halt)
            assert "the database cannot be" in await refused(inner, name)
            task.gate.set()
            await asyncio.sleep(0.5)
            postgres.start()  # by this thread: the kernel ends the server with the thread that started it
            events = await asyncio.wait_for(inner.finished(name), 40)
            assert [e.trial_decided.number for e in events if e.HasField("trial_decided")] == [0, 1, 2, 3]
            assert [e.sequence for e in events] == list(range(1, len(events) + 1))
            assert await inner.runs.store.verify() == []
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def test_a_database_that_cannot_be_written_from_the_start_is_one_message(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 'inner.db'}")
    await store.close()
    with pytest.raises(ServiceError, match=r"cannot be written: .*readonly database\nMake it writable"):
        await Store.open(f"sqlite:///file:{tmp_path / 'inner.db'}?mode=ro&uri=true")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_uri_of_sqlite_means_the_file_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "the data").mkdir()
    file = tmp_path / "the data" / "inner.db"
    for name in (f"file:{tmp_path}/the%20data/inner.db", f"file://{tmp_path}/the%20data/inner.db"):
        store = await Store.open(f"sqlite:///{name}?uri=true")
        with pytest.raises(ServiceError, match="in use by another process"):
            await Store.open(f"sqlite:///{file}")
        await store.close()
    assert names(tmp_path) == {"the data"}
    assert names(file.parent) == {"inner.db", "inner.db.lock"}
    with pytest.raises(InvalidArgument, match="must name a file"):
        await Store.open("sqlite:///file::memory:?uri=true")
