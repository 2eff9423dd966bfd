"""Real processes, real training, a real receiver: one trial is found in all services' logs and is one trace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clients.inner import InnerClient
from clients.local_stack import LocalStack, StackSettings
from clients.outer import OuterClient
from clients.report import collect, write_report
from clients.searching import Search, SearchPlan, begin, follow
from service_kit import context
from tests.end_to_end.conftest import served
from tests.end_to_end.person import User
from tests.otlp import Receiver

KEY = "swordfish-of-the-model"
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@dataclass
class Story:
    """What a short bilevel search left behind."""

    run: str
    campaign: str
    receiver: Receiver
    logs: dict[str, list[dict[str, Any]]]
    """Lines by service."""
    folder: Path
    """Logs, databases and report."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder, user = tmp_path_factory.mktemp("operations"), User(tmp_path_factory.mktemp("user"))
    key = user.folder / "key"
    key.write_text(KEY)
    with pytest.MonkeyPatch.context() as patch, Receiver() as receiver, served(user, "researcher") as researcher:
        patch.setenv("OPENAI_BASE_URL", f"http://{researcher}/v1")
        patch.setenv("OPENAI_API_KEY_FILE", str(key))
        patch.setenv("BILEVEL_MODEL", "scripted-researcher")
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        patch.setenv("BILEVEL_LOG_FORMAT", "json")
        patch.setenv("BILEVEL_LOG_LEVEL", "debug")
        search = asyncio.run(_searched(folder))
        logs = {path.stem: _lines(path) for path in (folder / "logs").glob("*.log")}
        yield Story(search.run, search.campaign, receiver, logs, folder)


async def _searched(folder: Path) -> Search:
    settings = StackSettings(folder, trainer=("--budget", "short", "--workers", "1"))
    async with (
        LocalStack(settings) as stack,
        InnerClient(stack.inner) as inner,
        OuterClient(stack.outer) as outer,
    ):
        plan = SearchPlan("gpt", trials=2, levels=("1.5",), configuration_every=1, confirmation_seeds=0)
        with context.bound(request="the-request"):
            search = await begin(inner, outer, plan)
        await follow(search, inner, outer, lambda *_: None)
        write_report([await collect(inner, outer, search.run)], folder / "report")
    return search


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def test_a_trial_is_found_in_the_logs_of_all_services_by_its_name(story: Story) -> None:
    trial = f"{story.run}/trials/1"
    events = {
        name: [(line["service"], line["event"]) for line in lines if line.get("trial") == trial]
        for name, lines in story.logs.items()
    }
    told = [event for _, event in events["inner"] if event.startswith("trial")]
    assert told == ["trial proposed", "trial started", "trial evaluated", "trial decided"]
    assert ("gpt_trainer", "trial ended") in events["trainer"]
    assert ("gpt_trainer.worker", "trained") in events["trainer"], "in the training process too"


def test_a_request_and_a_campaign_are_found_in_the_services_that_they_reach(story: Story) -> None:
    for name in ("inner", "outer"):
        lines = [line for line in story.logs[name] if line.get("request") == "the-request"]
        assert any(line["event"] == "call answered" for line in lines), name
    of_campaign = [line for line in story.logs["inner"] if line.get("campaign") == story.campaign]
    assert any(line["method"].endswith("/UpdateSearchConfig") for line in of_campaign if "method" in line)
    assert {line["run"] for line in of_campaign if "run" in line} == {story.run}


def test_a_trial_is_one_trace_with_spans_of_both_services(story: Story) -> None:
    trial = f"{story.run}/trials/1"
    [root] = [s for s in story.receiver.spans if s.name == "trial" and s.attributes["bilevel.trial"] == trial]
    spans = story.receiver.traces()[root.trace]
    by_name = {span.name: span for span in spans}
    parents = {name: by_name[name].parent for name in ("propose", "evaluate", "decide")}
    assert set(parents.values()) == {root.id}
    assert by_name["model propose"].parent == by_name["propose"].id
    call = by_name["bilevel.v1.TaskService/Evaluate"]
    assert (call.parent, by_name["train"].parent) == (by_name["evaluate"].id, call.id)
    assert {span.service for span in spans} == {"inner loop", "gpt_trainer"}
    assert call.start <= by_name["train"].start < by_name["train"].end <= call.end
    [line] = [x for x in story.logs["trainer"] if x.get("trial") == trial and x["event"] == "trained"]
    assert line["trace"] == root.trace


def test_a_cycle_is_a_trace_with_its_calls_of_the_inner_service(story: Story) -> None:
    cycles = [span for span in story.receiver.spans if span.name == "cycle"]
    assert cycles
    spans = story.receiver.traces()[cycles[0].trace]
    assert {span.service for span in spans} == {"outer loop", "inner loop"}
    assert any(span.name.endswith("/UpdateSearchConfig") for span in spans)


def test_the_key_is_in_no_log_no_database_no_report_and_no_span(story: Story) -> None:
    files = [path for path in story.folder.rglob("*") if path.is_file()]
    assert {"inner.log", "outer.log", "trainer.log", "inner.db", "outer.db", "report.html"} <= {f.name for f in files}
    secret = KEY.encode()
    assert [str(path) for path in files if secret in path.read_bytes()] == []
    assert secret not in story.receiver.raw
    answered = [line for line in story.logs["inner"] if line["event"] == "model answered"]
    assert answered, "the model was called with it"
