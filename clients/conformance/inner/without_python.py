"""An inner service that does not run Python says so, loudly. INNER-5, profile no-python."""

from __future__ import annotations

from clients.conformance.expect import expect, refused, same
from clients.conformance.inner.mechanisms import WATCHER
from clients.conformance.inner.subject import AUTHOR, INNER, InnerSubject

NO_PYTHON = ("no-python",)


@INNER.check("INNER-4.4", profiles=NO_PYTHON)
async def incapable(inner: InnerSubject) -> None:
    """The service says that it does not run Python"""
    said = await inner.wire.call("DescribeSearch", run=(await inner.idle()).name)
    languages = list(said.capabilities.mechanism_languages)
    expect("python" not in languages, f"mechanism_languages must not hold python in this profile; it holds {languages}")


@INNER.check("INNER-5.9", profiles=NO_PYTHON)
async def loudly(inner: InnerSubject) -> None:
    """CheckMechanism and InstallMechanism fail with UNIMPLEMENTED, and the trace keeps the source"""
    run = (await inner.create()).name
    check = inner.wire.call("CheckMechanism", run=run, source=WATCHER)
    await refused(check, "CheckMechanism", "UNIMPLEMENTED", reason="UNIMPLEMENTED")
    install = inner.wire.call("InstallMechanism", run=run, mechanism_id="watcher", source=WATCHER, author=AUTHOR)
    refusal = await refused(install, "InstallMechanism", "UNIMPLEMENTED", reason="UNIMPLEMENTED")
    expect(refusal.status.message, "UNIMPLEMENTED must say in its message what is not offered")
    rejected = [e.mechanism_rejected for e in await inner.trace.committed(run) if e.HasField("mechanism_rejected")]
    same("the sources of mechanism_rejected on the trace", [event.source for event in rejected], [WATCHER])


@INNER.check("INNER-5.10", profiles=NO_PYTHON)
async def none(inner: InnerSubject) -> None:
    """There are no mechanisms"""
    run = (await inner.create()).name
    same("the mechanisms", list((await inner.wire.call("ListMechanisms", parent=run)).mechanisms), [])
    call = inner.wire.call("UninstallMechanism", name=f"{run}/mechanisms/none")
    await refused(call, "UninstallMechanism of no mechanism", "NOT_FOUND")
