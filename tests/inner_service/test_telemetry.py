"""What a run leaves in metrics and traces: its trials by outcome, its calls of the model, its mechanisms' hooks."""

import asyncio
import re
import urllib.request

import pytest
from bilevel.v1 import inner_pb2 as pb

from service_kit.telemetry import tracing
from service_kit.telemetry.serving import MetricsSettings, exposed
from tests.inner_service.conftest import Inner, QuadraticTask
from tests.otlp import Receiver

PICKY = '''
class Mechanism:
    """Picky: looks at every candidate and lets it pass."""

    def __init__(self, space, settings, rng):
        pass

    def veto(self, view, candidate):
        return None
'''


async def numbers(address: str) -> dict[str, float]:
    def read() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
            return str(response.read().decode())

    lines = re.findall(r"^(bilevel_\S+) (\S+)$", await asyncio.to_thread(read), re.MULTILINE)
    return {name: float(value) for name, value in lines}


async def test_a_run_is_counted(inner: Inner, task: QuadraticTask) -> None:
    async with exposed(MetricsSettings.load(listen="127.0.0.1:0")) as address:
        assert address is not None
        name = await inner.create(max_trials=3)
        await inner.one_trial(name)
        await inner.install(name, PICKY, allow_inert=True)
        task.fail("CRASHED", when=lambda values: values["x"] != 8.0)
        task.gate.clear()
        await inner.start(name)
        for _ in range(2):  # the baseline, by hand, and the first that the service drives
            await asyncio.wait_for(task.started.get(), 20)
        watch = inner.stub.WatchTrace(pb.WatchTraceRequest(run=name))
        await watch.read()  # from here on it is one that watches
        meanwhile = await numbers(address)
        task.gate.set()
        await inner.finished(name)
        watch.cancel()
        async with asyncio.timeout(20):  # the run has ended a moment before its driver has
            while (found := await numbers(address))["bilevel_runs_driven"] or found["bilevel_leases_held"]:
                pass
    assert meanwhile["bilevel_runs_driven"] == meanwhile["bilevel_evaluations_running"] == 1
    assert meanwhile["bilevel_leases_held"] == 1
    assert meanwhile["bilevel_watchers"] >= 1
    assert found["bilevel_evaluations_running"] == 0
    assert found['bilevel_trials_total{outcome="succeeded"}'] == 1
    assert found['bilevel_trials_total{outcome="crashed"}'] == 3
    assert found['bilevel_trial_decisions_total{decision="discarded"}'] == 3
    assert found['bilevel_model_calls_total{purpose="propose",result="answered"}'] == 3
    assert found['bilevel_model_tokens_total{kind="prompt"}'] == 300
    assert found['bilevel_mechanism_calls_total{hook="veto"}'] == 3
    assert found["bilevel_store_transaction_seconds_count"] > 10
    assert not [name for name in found if "runs/" in name], "no series has a run's name"


async def test_a_trial_by_hand_is_one_trace(inner: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        async with tracing.exported("inner"):
            name = await inner.create()
            await inner.one_trial(name)
            await inner.install(name, PICKY, allow_inert=True)
            trial = await inner.one_trial(name)
    [root] = [s for s in receiver.spans if s.name == "trial" and s.attributes["bilevel.trial"] == trial.name]
    spans = receiver.traces()[root.trace]
    by_name = {span.name: span for span in spans}
    assert {by_name[step].parent for step in ("propose", "evaluate", "decide")} == {root.id}
    assert by_name["model propose"].parent == by_name["mechanism veto"].parent == by_name["propose"].id
    assert by_name["model propose"].attributes["gen_ai.usage.input_tokens"] == 100
    assert root.attributes["bilevel.outcome"] == "succeeded"
