"""Metrics are exposed where they are asked for, on loopback unless told otherwise, and never count by name."""

import asyncio
import re
import socket
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest

from service_kit.errors import InvalidArgument, ServiceError
from service_kit.server import ServerSettings, serving
from service_kit.telemetry import metrics
from service_kit.telemetry.metrics import ALL
from service_kit.telemetry.serving import MetricsSettings, exposed

ROOT = Path(__file__).parents[3]


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        return str(response.read().decode())


async def test_calls_are_counted_by_method_and_code() -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        return b""

    def register(server: grpc.aio.Server) -> list[str]:
        handlers = {"Answer": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", handlers)])
        return ["t.T"]

    async with (
        exposed(MetricsSettings.load(listen="127.0.0.1:0")) as address,
        serving(register, ServerSettings(grace=0.1), name="test") as server,
        grpc.aio.insecure_channel(server) as channel,
    ):
        assert address is not None
        for _ in range(3):
            await channel.unary_unary("/t.T/Answer")(b"")
        shown = await asyncio.to_thread(scrape, address)
    assert 'bilevel_rpcs_total{code="OK",method="/t.T/Answer"} 3.0' in shown
    assert 'bilevel_rpc_seconds_count{method="/t.T/Answer"} 3.0' in shown
    assert 'bilevel_rpcs_running{method="/t.T/Answer"} 0.0' in shown
    assert "process_resident_memory_bytes" in shown
    assert "_created" not in shown
    assert shown.count("\nbilevel_rpc_seconds_") == 19  # what docs/operations.md says of a method


async def test_everything_that_is_declared_is_exposed_and_gone_afterwards() -> None:
    async with exposed(MetricsSettings.load(listen="127.0.0.1:0")) as address:
        assert address is not None
        metrics.WATCHERS.set(2)
        shown = await asyncio.to_thread(scrape, address)
    assert "bilevel_watchers 2.0" in shown
    assert {name for name in (i.name for i in ALL) if f"# HELP {name}" not in shown} == set()
    metrics.WATCHERS.set(3)
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(scrape, address)
    async with exposed(MetricsSettings.load()) as nothing:
        assert nothing is None


async def test_other_machines_read_them_only_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgument, match=r"BILEVEL_METRICS: must be .*METRICS_INSECURE=1.* got 0\.0\.0\.0:0"):
        async with exposed(MetricsSettings.load(listen="0.0.0.0:0")):
            pass
    monkeypatch.setenv("BILEVEL_METRICS_INSECURE", "1")
    async with exposed(MetricsSettings.load(listen="0.0.0.0:0")) as address:
        assert address is not None


async def test_an_address_that_is_taken_or_is_none_is_an_error_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServiceError, match=rf"cannot expose metrics on {listen}: address already in use"):
            async with exposed(MetricsSettings.load(listen=listen)):
                pass
    with pytest.raises(InvalidArgument, match="BILEVEL_METRICS: must be HOST:PORT"):
        async with exposed(MetricsSettings.load(listen="9464")):
            pass


async def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("service_kit.extras.import_module", missing)
    with pytest.raises(ServiceError, match=r"bilevel-autoresearch\[metrics\]"):
        async with exposed(MetricsSettings.load(listen="127.0.0.1:0")):
            pass


def test_labels_are_few_and_none_is_a_name() -> None:
    allowed = {"method", "code", "purpose", "result", "kind", "outcome", "decision", "hook"}
    assert {label for instrument in ALL for label in instrument.labels} <= allowed


def test_the_manual_lists_every_metric_with_its_unit_and_labels() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(bilevel_\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert rows == [(i.name, i.unit, ", ".join(f"`{label}`" for label in i.labels), i.meaning.rstrip(".")) for i in ALL]


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    asked = set(re.findall(r"bilevel_\w+", (ROOT / "docs" / "grafana.json").read_text()))
    exposed_names = {i.name for i in ALL} | {f"{i.name}_bucket" for i in ALL if i.kind == "Histogram"}
    assert asked
    assert asked <= exposed_names
