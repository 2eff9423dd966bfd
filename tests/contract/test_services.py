"""The conformance kit on our own inner and outer service, and on proxies before them that break the protocol."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import service_faults as faults
from bilevel.v1 import trace_pb2
from fault_proxy import Fault, proxied
from reference_task import ReferenceTask, started

from clients.conformance.inner import INNER, InnerSubject
from clients.conformance.outer import OUTER, OuterSubject
from clients.conformance.suite import Examination, Verdict
from clients.conformance.wire import Wire
from clients.local_stack import LocalStack, StackSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
INNER_NAME, OUTER_NAME = "bilevel.v1.InnerLoopService", "bilevel.v1.OuterLoopService"
PATIENCE = {faults.Endless: 2.0, faults.Silent: 2.0}
"""Seconds after which a check is taken for stuck, where a fault makes it so."""
WITHOUT_MECHANISMS = [*(f"COMMON-{n}" for n in range(1, 6)), *(f"INNER-{n}" for n in (1, 2, 3, 4, 6))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStack]:
    """The inner and the outer service with the scripted researcher, on the reference task."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "BILEVEL_MODEL"):
            environment.delenv(name, raising=False)
        server, address = await started(ReferenceTask())
        settings = StackSettings(tmp_path_factory.mktemp("stack"), {"reference": address}, trainer=None)
        async with LocalStack(settings) as stack:
            yield stack
        await server.stop(None)


async def examined_inner(address: str, *, profile: str = "full", only: Any = (), patience: float = 0) -> Examination:
    subject = InnerSubject(Wire.to(INNER_NAME, "inner service", address))
    try:
        await subject.reach()
        subject.patience = patience or subject.patience
        return await INNER.examine(subject, address, profile, only=only)
    finally:
        await subject.close()


async def examined_outer(address: str, inner: str, *, only: Any = (), patience: float = 0) -> Examination:
    runs = InnerSubject(Wire.to(INNER_NAME, "inner service", inner))
    subject = OuterSubject(Wire.to(OUTER_NAME, "outer service", address), runs)
    try:
        await subject.reach()
        subject.patience = patience or subject.patience
        return await OUTER.examine(subject, address, "full", only=only)
    finally:
        await subject.close()


def violated(examination: Examination) -> set[str]:
    return {finding.clause for finding in examination.of(Verdict.VIOLATED)}


def messages(examination: Examination) -> list[str]:
    wrong = examination.of(Verdict.VIOLATED, Verdict.ADVICE, Verdict.UNDECIDED)
    return [f"{finding.clause}: {finding.message}" for finding in wrong]


async def test_our_inner_service_keeps_the_protocol(stack: LocalStack) -> None:
    examination = await examined_inner(stack.inner, only=WITHOUT_MECHANISMS)
    assert messages(examination) == []
    assert examination.exit_code == 0


@pytest.mark.long
async def test_our_inner_service_keeps_all_of_it_and_every_rpc_is_called(stack: LocalStack) -> None:
    examination = await examined_inner(stack.inner)
    assert messages(examination) == []
    assert len(examination.called) == len(Wire.to(INNER_NAME, "", stack.inner).service.methods)


async def test_our_outer_service_keeps_the_protocol_and_every_rpc_is_called(stack: LocalStack) -> None:
    examination = await examined_outer(stack.outer, stack.inner)
    assert messages(examination) == []
    assert len(examination.called) == len(Wire.to(OUTER_NAME, "", stack.outer).service.methods)


async def test_an_examination_leaves_nothing_behind(stack: LocalStack) -> None:
    ended = (trace_pb2.RUN_STATE_FINISHED, trace_pb2.RUN_STATE_CANCELLED)
    await examined_inner(stack.inner, only=["INNER-1.9", "INNER-2.1", "INNER-4.1", "INNER-6.1"])
    wire = Wire.to(INNER_NAME, "inner service", stack.inner)
    runs = (await wire.call("ListRuns", page_size=1000)).runs
    lessons = (await wire.call("ListLessons", page_size=1000)).lessons
    await wire.close()
    assert [run.name for run in runs if run.state not in ended] == []
    assert [lesson.name for lesson in lessons] == []


async def test_a_service_that_runs_python_does_not_fit_the_other_profile(stack: LocalStack) -> None:
    examination = await examined_inner(stack.inner, profile="no-python", only=["INNER-4.4", "INNER-5"])
    assert violated(examination) == {"INNER-4.4", "INNER-5.9"}


async def test_an_examination_that_runs_out_of_time_says_that_it_is_undecided(stack: LocalStack) -> None:
    subject = InnerSubject(Wire.to(INNER_NAME, "inner service", stack.inner))
    await subject.reach()
    examination = await INNER.examine(subject, stack.inner, "full", only=["INNER-1"], seconds=0.0)
    await subject.close()
    assert {finding.verdict for finding in examination.findings} == {Verdict.UNDECIDED}
    assert examination.exit_code == 9


async def test_an_outer_loop_of_a_few_lines_drives_our_inner_service(stack: LocalStack) -> None:
    script = ROOT / "clients" / "examples" / "outer_loop.py"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    arguments = ["--inner", stack.inner, "--task", "reference", "--trials", "20", "--every", "4"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), *arguments, stdout=pipe, stderr=pipe, env=environment
    )
    said, complained = await process.communicate()
    assert process.returncode == 0, complained.decode()
    lines = said.decode().splitlines()
    wire = Wire.to(INNER_NAME, "inner service", stack.inner)
    run = (await wire.call("GetRun", name=lines[0].split()[0])).run
    mechanisms = (await wire.call("ListMechanisms", parent=run.name)).mechanisms
    events = [item.event for item in await wire.messages("WatchTrace", run=run.name)]
    await wire.close()
    assert (run.state, run.decided_trials) == (trace_pb2.RUN_STATE_FINISHED, 20)
    frozen = {line.split()[1].rstrip(":") for line in lines if line.startswith("froze ")}
    assert frozen, said.decode() + str(run.search_config)
    assert set(run.search_config.frozen) == frozen
    assert len(mechanisms) == 1, said.decode()
    [mechanism] = mechanisms
    assert mechanism.author == "a minimal outer loop"
    assert f"installed {mechanism.name.rsplit('/', 1)[-1]}: {mechanism.summary}" in lines
    authors = {e.search_config_updated.author for e in events if e.HasField("search_config_updated")}
    assert authors == {"a minimal outer loop"}
    assert "20 trials decided" in lines[-1]
    assert len(script.read_text().splitlines()) <= 60


INNER_FAULTS: dict[type[Fault], tuple[list[str], set[str]]] = {
    faults.Forgetful: (["COMMON-4"], {"COMMON-4.1"}),
    faults.Unexplained: (["COMMON-2"], {"COMMON-2.1", "COMMON-2.2", "COMMON-2.3", "COMMON-2.4"}),
    faults.Unpaged: (["COMMON-3"], {"COMMON-3.1"}),
    faults.Gap: (["COMMON-5.1"], {"COMMON-5.1"}),
    faults.OneTooMany: (["COMMON-5"], {"COMMON-5.2"}),
    faults.Silent: (["COMMON-5.4"], {"COMMON-5.4"}),
    faults.Stuttering: (["COMMON-5.5"], {"COMMON-5.5"}),
    faults.Endless: (["COMMON-5.6"], {"COMMON-5.6"}),
    faults.ConstantEtag: (["COMMON-5.8"], {"COMMON-5.8"}),
    faults.PausesAnything: (["INNER-1.4"], {"INNER-1.4"}),
    faults.CancelsNothing: (["INNER-1.5"], {"INNER-1.5"}),
    faults.KeepsNothing: (["INNER-2"], {"INNER-2.7"}),
    faults.LosesRemarks: (["INNER-3"], {"INNER-3.3"}),
    faults.NeverFreezes: (["INNER-4", "INNER-2.11"], {"INNER-4.1", "INNER-4.3", "INNER-2.11"}),
    faults.IgnoresRevisions: (["INNER-4"], {"INNER-4.2"}),
    faults.ApprovesEverything: (["INNER-5.1"], {"INNER-5.1"}),
}
OUTER_FAULTS: dict[type[Fault], tuple[list[str], set[str]]] = {
    faults.Forgetful: (["COMMON-4"], {"COMMON-4.1"}),
    faults.Gap: (["COMMON-5.1"], {"COMMON-5.1"}),
    faults.ConstantEtag: (["COMMON-5.8"], {"COMMON-5.8"}),
    faults.BarePolicy: (["OUTER-1"], {"OUTER-1.1"}),
    faults.TakesAnyPolicy: (["OUTER-1"], {"OUTER-1.3"}),
    faults.PausesAnything: (["OUTER-2.1"], {"OUTER-2.1"}),
    faults.CancelsNothing: (["OUTER-2.2"], {"OUTER-2.2"}),
    faults.OpenCycles: (["OUTER-3"], {"OUTER-3.2"}),
    faults.FoundEverything: (["OUTER-5"], {"OUTER-5.2"}),
}
"""Every fault with the clauses that are examined and those of them that it breaks."""


@pytest.mark.parametrize("fault", INNER_FAULTS, ids=lambda fault: fault.__name__)
async def test_a_fault_of_an_inner_service_is_caught_by_its_clause(fault: type[Fault], stack: LocalStack) -> None:
    only, clauses = INNER_FAULTS[fault]
    async with proxied(INNER_NAME, stack.inner, fault()) as address:
        examination = await examined_inner(address, only=only, patience=PATIENCE.get(fault, 0))
    assert violated(examination) == clauses
    assert examination.exit_code == 1


@pytest.mark.parametrize("fault", OUTER_FAULTS, ids=lambda fault: fault.__name__)
async def test_a_fault_of_an_outer_service_is_caught_by_its_clause(fault: type[Fault], stack: LocalStack) -> None:
    only, clauses = OUTER_FAULTS[fault]
    async with proxied(OUTER_NAME, stack.outer, fault()) as address:
        examination = await examined_outer(address, stack.inner, only=only)
    assert violated(examination) == clauses


async def test_a_proxy_without_a_fault_passes(stack: LocalStack) -> None:
    async with proxied(INNER_NAME, stack.inner, Fault()) as address:
        examination = await examined_inner(address, only=["COMMON-2", "COMMON-3", "COMMON-4", "COMMON-5", "INNER-4"])
    assert messages(examination) == []
