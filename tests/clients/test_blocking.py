"""The clients without await: the same methods, streams as iterators, no thread left behind."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator

import grpc
import pytest
from bilevel.v1 import inner_pb2, inner_pb2_grpc, outer_pb2, trace_pb2

import clients
from clients import BlockingInnerClient, BlockingOuterClient, InnerClient, OuterClient, inner, outer, read_run
from clients.connection import DEADLINE, LONG_DEADLINE, Methods
from service_kit.errors import NotFound, RemoteError
from service_kit.server import ServerSettings, serving

BY_CONSTRUCTION = {"close"}


class Inner(inner_pb2_grpc.InnerLoopServiceServicer):
    """Knows one run, whose trace has five events; counts the streams that are open and the calls of GetRun."""

    def __init__(self) -> None:
        self.open = self.asked = 0

    async def GetRun(self, request, context) -> inner_pb2.GetRunResponse:  # noqa: N802
        self.asked += 1
        if request.name == "runs/lost":
            raise NotFound("run", request.name)
        if request.name == "runs/away" and self.asked < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "a moment")
        return inner_pb2.GetRunResponse(run=trace_pb2.Run(name=request.name))

    async def StartRun(self, request, context) -> inner_pb2.StartRunResponse:  # noqa: N802
        self.asked += 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "a moment")
        return inner_pb2.StartRunResponse()

    async def WatchTrace(self, request, context):  # noqa: N802
        self.open += 1
        try:
            for sequence in range(request.after_sequence + 1, 6):
                event = trace_pb2.TraceEvent(run=request.run, sequence=sequence)
                event.remarked.text = f"remark {sequence}"
                yield inner_pb2.WatchTraceResponse(event=event)
            if not request.no_follow:
                await asyncio.Event().wait()
        finally:
            self.open -= 1


@pytest.fixture
def served() -> Iterator[tuple[Inner, str]]:
    """The servicer and its address, on a loop of its own: the test's thread may block."""
    servicer, loop, ready = Inner(), asyncio.new_event_loop(), threading.Event()
    address: list[str] = []
    stop = asyncio.Event()

    async def serve() -> None:
        def register(server: grpc.aio.Server) -> list[str]:
            inner_pb2_grpc.add_InnerLoopServiceServicer_to_server(servicer, server)
            return ["bilevel.v1.InnerLoopService"]

        async with serving(register, ServerSettings(grace=0.1), name="inner") as at:
            address.append(at)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    ready.wait(10)
    yield servicer, address[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def test_calls_errors_and_streams_without_await(served) -> None:
    servicer, address = served
    threads = threading.active_count()
    with BlockingInnerClient(address) as client:
        assert client.get_run("runs/one").name == "runs/one"
        with pytest.raises(RemoteError, match="'runs/lost' does not exist"):
            client.get_run("runs/lost")
        assert [event.sequence for event in client.watch_trace("runs/one", 2, follow=False)] == [3, 4, 5]
        for event in client.watch_trace("runs/one"):  # never ends by itself
            assert servicer.open == 1
            if event.sequence == 3:
                break
        assert [remark.text for remark in read_run(client, "runs/one").history.remarks][-1] == "remark 5"
    client.close()
    assert threading.active_count() == threads


async def test_it_works_where_a_loop_is_running_already(served) -> None:
    with BlockingInnerClient(served[1]) as client:
        assert client.get_run("runs/one").name == "runs/one"


def test_a_read_is_repeated_by_grpc_and_a_start_is_not(served) -> None:
    servicer, address = served
    with BlockingInnerClient(address) as client:
        assert client.get_run("runs/away").name == "runs/away"
        assert servicer.asked == 3
        servicer.asked = 0
        with pytest.raises(RemoteError):
            client.start_run("runs/away")
        assert servicer.asked == 1


def test_a_wrong_address_leaves_no_thread() -> None:
    threads = threading.active_count()
    with pytest.raises(Exception, match="--inner: must be HOST:PORT"):
        BlockingInnerClient("nonsense")
    assert threading.active_count() == threads


@pytest.mark.parametrize(("blocking", "asynchronous"), [
    (BlockingInnerClient, InnerClient), (BlockingOuterClient, OuterClient),
])  # fmt: skip
def test_both_kinds_of_client_have_the_same_methods(blocking: type, asynchronous: type) -> None:
    def methods(client: type) -> dict[str, inspect.Signature]:
        found = inspect.getmembers(client, inspect.isfunction)
        return {name: inspect.signature(method) for name, method in found if not name.startswith("_")}

    one, other = methods(blocking), methods(asynchronous)
    assert one.keys() == other.keys(), "a new method belongs in clients/blocking.py too"
    for name in one.keys() - BY_CONSTRUCTION:
        assert list(one[name].parameters) == list(other[name].parameters), name


@pytest.mark.parametrize("methods", [inner.METHODS, outer.METHODS], ids=lambda methods: methods.service.name)
def test_every_unary_method_has_a_deadline_and_no_stream_has_one(methods: Methods) -> None:
    deadlines = {entry["name"][0]["method"]: entry["timeout"] for entry in methods.config()["methodConfig"]}
    streams = {method.name for method in methods.service.methods if method.server_streaming}
    assert deadlines.keys() | streams == {method.name for method in methods.service.methods}
    assert not deadlines.keys() & streams
    assert set(deadlines.values()) <= {f"{DEADLINE:g}s", f"{LONG_DEADLINE:g}s"}
    repeated = {entry["name"][0]["method"] for entry in methods.config()["methodConfig"] if "retryPolicy" in entry}
    assert repeated == set(methods.repeatable)
    assert not any(name.startswith(("Start", "Cancel", "Install", "Accept", "Update", "Propose")) for name in repeated)


def test_a_method_that_the_service_does_not_have_is_a_mistake() -> None:
    service = outer_pb2.DESCRIPTOR.services_by_name["OuterLoopService"]
    with pytest.raises(ValueError, match="no unary methods WatchCampaign"):
        Methods(service, repeatable=("WatchCampaign",)).config()


def test_every_public_method_says_what_it_does_and_what_each_argument_is() -> None:
    for name in clients.__all__:
        public = getattr(clients, name)
        assert inspect.getdoc(public), name
        functions = inspect.getmembers(public, inspect.isfunction) if inspect.isclass(public) else [(name, public)]
        for method, function in functions:
            if method.startswith("_") or (inspect.isclass(public) and method.startswith("on_")):
                continue
            documentation = inspect.getdoc(function)
            assert documentation, f"{name}.{method}"
            if public in (InnerClient, OuterClient) or not inspect.isclass(public):
                arguments = set(inspect.signature(function).parameters) - {"self"}
                silent = [a for a in arguments if f"``{a}``" not in documentation and f"{a}:" not in documentation]
                obvious = {"spec", "name", "run", "limit", "inner", "outer", "endpoint"}
                assert set(silent) <= obvious, f"{name}.{method}: {silent}"
