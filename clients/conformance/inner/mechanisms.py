"""Mechanisms of an inner service that runs Python: the gate, installation, effect. INNER-5, profile full."""

from __future__ import annotations

import hashlib
from typing import Any

from bilevel.v1 import trace_pb2

from clients.conformance.expect import expect, invalid, refused, same, wrong_state
from clients.conformance.inner.subject import AUTHOR, GATE_SECONDS, INNER, InnerSubject
from clients.conformance.suite import NotSeen

FULL = ("full",)

WATCHER = '''class Mechanism:
    """Watches every trial and never has an opinion."""

    def observe(self, trial):
        pass
'''
KEEPER = '''class Mechanism:
    """Keeps every trial, whatever its metric."""

    def accept(self, view, trial):
        return True
'''
BROKEN = "class Mechanism:\n    def observe(self, trial)\n        pass\n"
FORBIDDEN = '''import os


class Mechanism:
    """Reads what it must not."""

    def observe(self, trial):
        os.listdir("/")
'''


@INNER.check("INNER-4.4", profiles=FULL)
async def capable(inner: InnerSubject) -> None:
    """The service says that it runs Python"""
    said = await inner.wire.call("DescribeSearch", run=(await inner.idle()).name)
    expect("python" in said.capabilities.mechanism_languages, "mechanism_languages must hold python in this profile")


@INNER.check("INNER-5.1", profiles=FULL)
async def checking(inner: InnerSubject) -> None:
    """CheckMechanism judges and installs nothing"""
    run = (await inner.by_hand()).run
    accepted = await _check(inner, run, WATCHER, allow_inert=True)
    same("the verdict on a harmless mechanism", _verdict(accepted), "GATE_VERDICT_ACCEPTED")
    for source, what in ((BROKEN, "a syntax error"), (FORBIDDEN, "an import of os")):
        report = await _check(inner, run, source)
        same(f"the verdict on {what}", _verdict(report), "GATE_VERDICT_REJECTED")
        expect(report.findings and report.findings[0].message, f"the report on {what} must say what is wrong")
    same("the mechanisms after checks alone", await _listed(inner, run), [])


@INNER.check("INNER-5.2", profiles=FULL)
async def installing(inner: InnerSubject) -> None:
    """InstallMechanism installs what the gate accepts"""
    run = (await inner.create()).name
    mechanism = await _install(inner, run, "watcher", WATCHER, allow_inert=True)
    same("its name", mechanism.name, f"{run}/mechanisms/watcher")
    same("its state", trace_pb2.MechanismState.Name(mechanism.state), "MECHANISM_STATE_ACTIVE")
    same("its source", mechanism.source, WATCHER)
    same("its SHA-256", mechanism.source_sha256, hashlib.sha256(WATCHER.encode()).hexdigest())
    same("the verdict in its report", _verdict(mechanism.report), "GATE_VERDICT_ACCEPTED")
    same("its author", mechanism.author, AUTHOR)
    same("what ListMechanisms gives", [m.name for m in await _listed(inner, run)], [mechanism.name])
    kinds = [event.WhichOneof("event") for event in await inner.trace.committed(run)]
    expect("mechanism_installed" in kinds, "mechanism_installed must be on the trace")


@INNER.check("INNER-5.3", profiles=FULL)
async def rejecting(inner: InnerSubject) -> None:
    """InstallMechanism refuses what the gate rejects, with the report"""
    run = (await inner.create()).name
    refusal = await refused(
        _install(inner, run, "forbidden", FORBIDDEN), "InstallMechanism of an import of os", "FAILED_PRECONDITION"
    )
    report = refusal.detail(trace_pb2.GateReport)
    expect(report is not None, "the refusal must carry the GateReport in its details")
    assert report is not None
    same("the verdict in the details", _verdict(report), "GATE_VERDICT_REJECTED")
    rejected = [e.mechanism_rejected for e in await inner.trace.committed(run) if e.HasField("mechanism_rejected")]
    same("the source of mechanism_rejected on the trace", [event.source for event in rejected], [FORBIDDEN])
    same("the mechanisms after a rejection", await _listed(inner, run), [])


@INNER.check("INNER-5.4", profiles=FULL)
async def inert(inner: InnerSubject) -> None:
    """A mechanism that would change nothing is rejected"""
    report = await _check(inner, (await inner.by_hand()).run, WATCHER)
    same("the verdict on a mechanism without effect", _verdict(report), "GATE_VERDICT_REJECTED")
    same("the stage that rejected it", trace_pb2.GateStage.Name(report.stage), "GATE_STAGE_EFFECT")


@INNER.check("INNER-5.5", profiles=FULL)
async def ids(inner: InnerSubject) -> None:
    """A mechanism's id is unique and has a form"""
    run = (await inner.create()).name
    await _install(inner, run, "watcher", WATCHER, allow_inert=True)
    again = _install(inner, run, "watcher", WATCHER, allow_inert=True)
    await refused(again, "InstallMechanism under a taken id", "ALREADY_EXISTS", reason="ALREADY_EXISTS")
    for id_ in ("", "Not A Slug", "x" * 49):
        call = _install(inner, run, id_, WATCHER, allow_inert=True)
        await invalid(call, f"InstallMechanism under the id {id_!r}", "mechanism_id")


@INNER.check("INNER-5.6", profiles=FULL)
async def watching(inner: InnerSubject) -> None:
    """An installed mechanism sees every decided trial, and its calls are counted"""
    run = (await inner.create()).name
    await _install(inner, run, "watcher", WATCHER, allow_inert=True)
    [baseline] = await inner.propose(run)
    await inner.through(baseline)
    [mechanism] = await _listed(inner, run)
    calls = {effect.hook: effect.calls for effect in mechanism.effect.hooks}
    same("the counted calls of observe", calls.get(trace_pb2.MECHANISM_HOOK_OBSERVE, 0), 1)


@INNER.check("INNER-5.7", profiles=FULL)
async def changing(inner: InnerSubject) -> None:
    """A decision that a mechanism changed is on the trace"""
    run = (await inner.create(max_trials=20)).name
    [baseline] = await inner.propose(run)
    await inner.through(baseline)
    await _install(inner, run, "keeper", KEEPER, allow_inert=True)
    for _ in range(6):
        _, trial = await inner.changed(run)
        done = await inner.through(trial)
        better = done.after.best_trial == trial.name
        if done.accepted.HasField("metric") and not better:
            break
    else:
        raise NotSeen("every trial was better than the one before: there was nothing to change")
    same("the state of a worse trial", trace_pb2.TrialState.Name(done.accepted.state), "TRIAL_STATE_KEPT")
    changes = [e.decision_changed for e in await inner.trace.committed(run) if e.HasField("decision_changed")]
    mine = [change.mechanism for change in changes if change.trial == trial.number]
    same("who changed the decision on it, on the trace", mine, ["keeper"])
    same("the best after a worse trial was kept", done.after.best_trial, done.before.best_trial)


@INNER.check("INNER-5.8", profiles=FULL)
async def uninstalling(inner: InnerSubject) -> None:
    """UninstallMechanism removes it once, and it stays listed"""
    run = (await inner.create()).name
    name = (await _install(inner, run, "watcher", WATCHER, allow_inert=True)).name
    gone = (await inner.wire.call("UninstallMechanism", name=name, reason="the end")).mechanism
    same("its state", trace_pb2.MechanismState.Name(gone.state), "MECHANISM_STATE_UNINSTALLED")
    same("its state_reason", gone.state_reason, "the end")
    same("what is listed", [m.state for m in await _listed(inner, run)], [trace_pb2.MECHANISM_STATE_UNINSTALLED])
    await wrong_state(inner.wire.call("UninstallMechanism", name=name), "UninstallMechanism a second time")
    unknown = inner.wire.call("UninstallMechanism", name=f"{run}/mechanisms/none")
    await refused(unknown, "UninstallMechanism of no mechanism", "NOT_FOUND")


async def _check(inner: InnerSubject, run: str, source: str, **fields: Any) -> trace_pb2.GateReport:
    answer = await inner.wire.call("CheckMechanism", run=run, source=source, timeout=GATE_SECONDS, **fields)
    report: trace_pb2.GateReport = answer.report
    return report


async def _install(inner: InnerSubject, run: str, id_: str, source: str, **fields: Any) -> trace_pb2.Mechanism:
    answer = await inner.wire.call(
        "InstallMechanism", run=run, mechanism_id=id_, source=source, author=AUTHOR, timeout=GATE_SECONDS, **fields
    )
    mechanism: trace_pb2.Mechanism = answer.mechanism
    return mechanism


async def _listed(inner: InnerSubject, run: str) -> list[trace_pb2.Mechanism]:
    return list((await inner.wire.call("ListMechanisms", parent=run)).mechanisms)


def _verdict(report: trace_pb2.GateReport) -> str:
    return trace_pb2.GateVerdict.Name(report.verdict)
