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

from inner_service import store as store_module
from inner_service.store import Store
from service_kit.errors import InvalidArgument, ServiceError
from service_kit.status import remote_error
from tests.inner_service.conftest import Inner, Process, QuadraticTask


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


@pytest.mark.parametrize(
    ("broken", "mended", "cause", "hint"),
    [
        ("PRAGMA max_page_count=1", "PRAGMA max_page_count=1073741823", "disk is full", "Make space"),
        ("PRAGMA query_only=ON", "PRAGMA query_only=OFF", "readonly database", "Make it writable"),
    ],
    ids=["full", "read-only"],
)
async def test_a_full_or_read_only_sqlite_file(inner: Inner, task, broken: str, mended: str, cause: str, hint: str):
    name = await held(inner, task)
    engine, switch = inner.runs.store._database._engine.sync_engine, [broken]
    loop = asyncio.get_running_loop()

    def apply(connection: Any) -> None:
        connection.exec_driver_sql(switch[0])

    failed: asyncio.Queue[None] = asyncio.Queue()
    event.listen(engine, "begin", apply)

    def note(_: Any) -> None:
        loop.call_soon_threadsafe(failed.put_nowait, None)

    event.listen(engine, "handle_error", note)
    said = await refused(inner, name)
    assert cause in said
    assert hint in said
    while not failed.empty():
        failed.get_nowait()
    task.gate.set()
    await asyncio.wait_for(failed.get(), 20)  # the driver has noticed
    assert (await inner.run(name)).state == trace_pb2.RUN_STATE_RUNNING, "reading goes on"
    switch[0] = mended
    await goes_on(inner, name, cause)


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
