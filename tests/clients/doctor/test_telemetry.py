"""What the doctor says of metrics and traces that are asked for."""

from __future__ import annotations

import pytest

from clients.doctor import Severity, telemetry
from clients.wrong_settings import wrong_settings
from service_kit.errors import InvalidArgument
from tests.otlp import Receiver


async def test_nothing_is_said_of_what_nobody_asked_for() -> None:
    assert await telemetry.telemetry() == []


async def test_a_collector_that_listens_is_good_and_one_that_does_not_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        [finding] = await telemetry.telemetry()
        assert (finding.severity, finding.subject) == (Severity.GOOD, "traces")
    [finding] = await telemetry.telemetry()
    assert finding.severity is Severity.BAD
    assert f"the collector {receiver.endpoint} cannot be reached" in finding.text


async def test_metrics_that_a_service_would_refuse_are_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILEVEL_METRICS", "0.0.0.0:9400")
    assert [violation.field for violation in wrong_settings()] == ["BILEVEL_METRICS"]
    with pytest.raises(InvalidArgument, match=r"BILEVEL_METRICS.*only this machine reaches"):
        await telemetry.telemetry()
    monkeypatch.setenv("BILEVEL_METRICS_INSECURE", "1")
    [finding] = await telemetry.telemetry()
    assert (finding.severity, finding.text) == (Severity.GOOD, "services expose them at http://0.0.0.0:9400/metrics")
    monkeypatch.setenv("BILEVEL_METRICS", "9400")
    with pytest.raises(InvalidArgument, match="BILEVEL_METRICS"):
        await telemetry.telemetry()


async def test_without_the_extras_both_name_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "installed", lambda _: False)
    monkeypatch.setenv("BILEVEL_METRICS", "127.0.0.1:9400")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    metrics, traces = await telemetry.telemetry()
    assert metrics.severity is traces.severity is Severity.BAD
    assert "[metrics]" in metrics.advice
    assert "[telemetry]" in traces.advice
