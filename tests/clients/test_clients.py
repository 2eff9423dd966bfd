"""The client library covers the protocol, and its errors say what to do."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest
from bilevel.v1 import inner_pb2, outer_pb2

import clients
from clients import InnerClient, OuterClient
from clients.addresses import INNER
from service_kit.errors import RemoteError
from service_kit.server import ServerSettings, serving


@pytest.mark.parametrize(
    ("client", "service"),
    [
        (InnerClient, inner_pb2.DESCRIPTOR.services_by_name["InnerLoopService"]),
        (OuterClient, outer_pb2.DESCRIPTOR.services_by_name["OuterLoopService"]),
    ],
)
def test_every_rpc_has_a_method(client: type, service: object) -> None:
    methods = {name for name, _ in inspect.getmembers(client, inspect.isfunction)}
    for rpc in service.methods:
        assert re.sub(r"(?<!^)(?=[A-Z])", "_", rpc.name).lower() in methods, rpc.name


async def test_an_unreachable_service_is_named_with_how_to_start_it() -> None:
    async with InnerClient("127.0.0.1:1") as inner:
        with pytest.raises(RemoteError) as caught:
            await inner.get_run("runs/one")
    assert caught.value.code == "UNAVAILABLE"
    assert "the inner service at 127.0.0.1:1 cannot be reached" in str(caught.value)
    assert "bilevel serve inner" in caught.value.hint


async def test_a_server_of_another_kind_is_recognised() -> None:
    nothing = serving(lambda server: [], ServerSettings(grace=0.1), name="other")
    async with nothing as address, InnerClient(address) as inner:
        with pytest.raises(RemoteError, match="is not the inner service"):
            await inner.get_run("runs/one")


def test_public_names_exist() -> None:
    for name in clients.__all__:
        assert getattr(clients, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = clients.nonsense


def test_addresses_are_loopback() -> None:
    assert INNER.address.startswith("127.0.0.1:")


def test_the_command_imports_nothing_heavy_for_its_help() -> None:
    heavy = ("grpc", "torch", "matplotlib", "jinja2", "pydantic", "google.protobuf")
    code = f"import sys; from clients import cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
