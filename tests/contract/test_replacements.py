"""Services can be replaced, in any language: an inner service in Node.js under our outer one, a task in Node.js,
and a client in TypeScript, generated from the proto files as they are."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from bilevel.v1 import inner_pb2, inner_pb2_grpc, outer_pb2, outer_pb2_grpc, trace_pb2
from processes import NODE, ROOT, npm, served
from reference_task import ReferenceTask, started

from clients.conformance.inner import INNER, InnerSubject
from clients.conformance.outer import OUTER, OuterSubject
from clients.conformance.suite import Examination, Verdict
from clients.conformance.task import TASK, TaskSubject
from clients.conformance.wire import Wire

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long, NODE]
EXAMPLES = ROOT / "clients" / "examples"


@dataclass
class Replaced:
    """Our outer service over the inner service in Node.js."""

    inner_address: str
    outer_address: str
    inner: Any
    outer: Any


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replaced(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> AsyncIterator[Replaced]:
    assert pytestconfig.cache is not None
    project = npm(EXAMPLES / "services" / "node_inner", pytestconfig.cache)
    async with AsyncExitStack() as stack:

        async def start(name: str, *command: str, **environment: str) -> str:
            return await stack.enter_async_context(served(command, tmp_path_factory.mktemp(name), environment))

        server, task = await started(ReferenceTask())
        stack.push_async_callback(server.stop, None)
        node = ("node", str(project / "server.js"), "--proto", str(ROOT / "proto"))
        inner = await start("inner", *node, "--task", f"reference={task}")
        researcher = await start("researcher", sys.executable, "-m", "clients.scripted_researcher")
        model = {"OPENAI_BASE_URL": f"http://{researcher}/v1", "BILEVEL_MODEL": "scripted-researcher"}
        outer = await start("outer", sys.executable, "-m", "outer_service", "--inner", inner, **model)
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(at)) for at in (inner, outer)]
        yield Replaced(
            inner,
            outer,
            inner_pb2_grpc.InnerLoopServiceStub(channels[0]),
            outer_pb2_grpc.OuterLoopServiceStub(channels[1]),
        )


def wrong(examination: Examination) -> list[str]:
    found = examination.of(Verdict.VIOLATED, Verdict.ADVICE, Verdict.UNDECIDED)
    return [f"{finding.clause}: {finding.message}" for finding in found]


async def test_the_inner_service_in_node_keeps_the_protocol_without_python(replaced: Replaced) -> None:
    subject = InnerSubject(Wire.to("bilevel.v1.InnerLoopService", "inner service", replaced.inner_address))
    await subject.reach()
    examination = await INNER.examine(subject, replaced.inner_address, "no-python")
    await subject.close()
    assert wrong(examination) == []
    assert len(examination.called) == len(subject.wire.service.methods)


async def test_the_inner_service_in_node_does_not_claim_to_run_python(replaced: Replaced) -> None:
    subject = InnerSubject(Wire.to("bilevel.v1.InnerLoopService", "inner service", replaced.inner_address))
    await subject.reach()
    examination = await INNER.examine(subject, replaced.inner_address, "full", only=["INNER-4.4", "INNER-5.2"])
    await subject.close()
    assert {finding.clause for finding in examination.of(Verdict.VIOLATED)} == {"INNER-4.4", "INNER-5.2"}


async def test_our_outer_service_completes_a_campaign_over_it_and_says_what_cannot_be(
    replaced: Replaced,
) -> None:
    spec = trace_pb2.RunSpec(task="reference", max_trials=8, seed=3, checkpoint_every=2)
    run = (await replaced.inner.CreateRun(inner_pb2.CreateRunRequest(spec=spec))).run.name
    policy = outer_pb2.CampaignPolicy(
        levels=[outer_pb2.LEVEL_CONFIGURATION, outer_pb2.LEVEL_MECHANISM], configuration_every=2, mechanism_every=4
    )
    created = await replaced.outer.CreateCampaign(outer_pb2.CreateCampaignRequest(run=run, policy=policy))
    await replaced.inner.StartRun(inner_pb2.StartRunRequest(name=run))
    watch = replaced.outer.WatchCampaign(outer_pb2.WatchCampaignRequest(campaign=created.campaign.name))
    events = [item.event async for item in watch if item.HasField("event")]

    ended = (await replaced.outer.GetCampaign(outer_pb2.GetCampaignRequest(name=created.campaign.name))).campaign
    searched = (await replaced.inner.GetRun(inner_pb2.GetRunRequest(name=run))).run
    assert (ended.state, searched.state) == (outer_pb2.CAMPAIGN_STATE_FINISHED, trace_pb2.RUN_STATE_FINISHED)
    assert searched.decided_trials == 8
    assert [event.cycle_finished.error for event in events if event.HasField("cycle_finished")] == ["", "", ""]

    finished = [event.research_finished for event in events if event.HasField("research_finished")]
    assert [end.outcome for end in finished] == [outer_pb2.RESEARCH_OUTCOME_NOT_SUPPORTED]
    assert "random inner service 1.0.0" in finished[0].message
    assert not [event for event in events if event.HasField("round_finished")], "no model was asked for what cannot be"
    trace = replaced.inner.WatchTrace(inner_pb2.WatchTraceRequest(run=run, no_follow=True))
    remarks = [item.event.remarked.text async for item in trace if item.event.HasField("remarked")]
    assert [text for text in remarks if text.startswith("level 2: not supported. the inner service")]

    analyses = [event.analysis_finished for event in events if event.HasField("analysis_finished")]
    applied = [analysis for analysis in analyses if analysis.applied]
    assert len(analyses) == 3
    assert applied
    assert searched.search_config.revision == len(applied)
    assert searched.search_config.strategy


async def test_our_outer_service_keeps_the_protocol_over_it(replaced: Replaced) -> None:
    inner = InnerSubject(Wire.to("bilevel.v1.InnerLoopService", "inner service", replaced.inner_address))
    subject = OuterSubject(Wire.to("bilevel.v1.OuterLoopService", "outer service", replaced.outer_address), inner)
    await subject.reach()
    examination = await OUTER.examine(subject, replaced.outer_address, "full", only=["OUTER"])
    await subject.close()
    assert wrong(examination) == []
    assert "OUTER-4.3" in {finding.clause for finding in examination.of(Verdict.HOLDS)}


async def test_the_task_in_node_keeps_the_protocol(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    project = await asyncio.to_thread(npm, EXAMPLES / "tasks" / "brotli_delivery", pytestconfig.cache)
    command = ["node", str(project / "server.js"), "--proto", str(ROOT / "proto")]
    async with served(command, tmp_path) as address:
        subject = TaskSubject(Wire.to("bilevel.v1.TaskService", "task", address), 0.1)
        await subject.reach()
        examination = await TASK.examine(subject, address, "full")
        await subject.close()
    assert examination.of(Verdict.VIOLATED, Verdict.UNDECIDED) == []
    assert {"TASK-3.5", "TASK-5.2", "TASK-5.3", "TASK-5.4"} <= {f.clause for f in examination.of(Verdict.HOLDS)}


@pytest.mark.timeout(300)
async def test_a_client_in_typescript_is_generated_and_follows_a_run(
    replaced: Replaced, pytestconfig: pytest.Config
) -> None:
    assert pytestconfig.cache is not None
    source = EXAMPLES / "typescript_client"
    project = await asyncio.to_thread(npm, source, pytestconfig.cache, ["npm", "run", "build"])
    command = ["node", str(project / "dist" / "client.js"), replaced.inner_address]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False, cwd=project
    )
    assert done.returncode == 0, done.stderr
    first, *events, last = done.stdout.splitlines()
    assert "on reference is CREATED" in first
    assert [line.split()[1] for line in events][:2] == ["runCreated", "runStateChanged"]
    assert events[-1].endswith("trialDecided")
    assert last == f"baseline distance: {ReferenceTask().metric({'width': 0.25, 'rows': 4}, 0)}"
