"""Traces leave by real OTLP where the standard variables ask for them, and nothing is imported where they do not."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from service_kit.errors import InvalidArgument, ServiceError
from service_kit.security.channels import ChannelSecurity, open_channel
from service_kit.server import ServerSettings, serving
from service_kit.telemetry import tracing
from tests.otlp import Receiver

NOW = datetime.now(UTC)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        yield receiver


def register(server: grpc.aio.Server) -> list[str]:
    async def answer(request: bytes, context: Any) -> bytes:
        with tracing.span("below", {"bilevel.hook": "veto"}):
            return b""

    handler = grpc.method_handlers_generic_handler("t.T", {"Answer": grpc.unary_unary_rpc_method_handler(answer)})
    server.add_generic_rpc_handlers([handler])
    return ["t.T"]


async def test_the_steps_of_a_trial_are_one_trace_whoever_takes_them(receiver: Receiver) -> None:
    trial = "runs/a/trials/1"
    async with serving(register, ServerSettings(grace=0.1), name="server") as address:
        with tracing.trial(trial, "propose"):
            pass
        async with open_channel(address, ChannelSecurity()) as channel:
            with tracing.trial(trial, "evaluate"):
                assert tracing.for_logs()["trace"]
                await channel.unary_unary("/t.T/Answer")(b"")
            await channel.unary_unary("/t.T/Answer")(b"")  # belongs to no trace
        tracing.trial_ended(trial, NOW, datetime.now(UTC), {"bilevel.decision": "kept"})
    of_trial = {span.name: span for span in receiver.spans if span.attributes.get("bilevel.trial") == trial}
    root = of_trial["trial"]
    assert root.parent == ""
    assert {of_trial[step].parent for step in ("propose", "evaluate")} == {root.id}
    call = next(span for span in receiver.spans if span.name == "t.T/Answer")
    assert call.parent == of_trial["evaluate"].id
    below = [span for span in receiver.spans if span.name == "below"]
    assert [span.parent == call.id for span in below].count(True) == 1
    assert {span.trace for span in [*of_trial.values(), call]} == {root.trace}
    assert root.start <= of_trial["propose"].start
    assert root.attributes["bilevel.decision"] == "kept"


async def test_a_restart_in_the_middle_goes_on_with_the_same_trace(receiver: Receiver) -> None:
    for step in ("propose", "evaluate"):
        async with tracing.exported("inner"):
            with tracing.trial("runs/a/trials/2", step):
                pass
    assert len({span.trace for span in receiver.spans}) == 1
    assert len({span.parent for span in receiver.spans}) == 1


async def test_the_sampler_decides_for_a_whole_trial(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    async with tracing.exported("inner"):
        for number in range(40):
            name = f"runs/a/trials/{number}"
            for step in ("propose", "evaluate"):
                with tracing.trial(name, step):
                    pass
            tracing.trial_ended(name, NOW, NOW, {})
    assert 5 <= len(receiver.traces()) <= 35
    assert all(len(spans) == 3 for spans in receiver.traces().values())


async def test_a_collector_that_is_away_costs_spans_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    async with (
        serving(register, ServerSettings(grace=0.1), name="server") as address,
        open_channel(address, ChannelSecurity()) as channel,
    ):
        with tracing.trial("runs/a/trials/1", "evaluate"):
            assert await channel.unary_unary("/t.T/Answer")(b"") == b""


def test_nothing_is_imported_and_a_span_is_nothing_where_nobody_asks() -> None:
    program = """
import sys
from service_kit.telemetry import tracing
import service_kit.server
with tracing.span("x") as span, tracing.trial("runs/a/trials/1", "propose"):
    assert span is None
assert tracing.to_metadata() == [] and tracing.for_logs() == {}
print([name for name in sys.modules if name.startswith(("opentelemetry", "prometheus"))])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_without_the_extra_the_error_names_it(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("service_kit.extras.import_module", missing)
    with pytest.raises(ServiceError, match=r"bilevel-autoresearch\[telemetry\]"):
        async with serving(register, ServerSettings(), name="x"):
            pass


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4317"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_standard_variables_ask(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], asked: bool) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tracing.asked_for() is asked


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]
)
def test_what_is_not_offered_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidArgument, match=name):
        tracing.asked_for()
