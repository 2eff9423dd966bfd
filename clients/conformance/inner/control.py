"""Level 1.5's control surface, and what a researcher reads. INNER-4."""

from __future__ import annotations

from typing import Any

from bilevel.v1 import trace_pb2

from clients.conformance.expect import expect, invalid, refused, same
from clients.conformance.inner.subject import AUTHOR, INNER, InnerSubject
from clients.conformance.suite import NotSeen
from clients.conformance.values import UNKNOWN


@INNER.check("INNER-4.1")
async def update(inner: InnerSubject) -> None:
    """UpdateSearchConfig changes what it names, counts, and is on the trace"""
    run = await inner.create()
    first = (
        await inner.wire.call("UpdateSearchConfig", run=run.name, guidance="Look here.", author=AUTHOR)
    ).search_config
    same("the revision after one update", first.revision, run.search_config.revision + 1)
    second = await _update(inner, run.name, strategy="refine", author=AUTHOR)
    same("strategy and guidance after two updates", (second.strategy, second.guidance), ("refine", "Look here."))
    same("the revision after two updates", second.revision, first.revision + 1)
    same("the search_config of the run", (await inner.run(run.name)).search_config, second)
    updates = [
        e.search_config_updated for e in await inner.trace.committed(run.name) if e.HasField("search_config_updated")
    ]
    same("the updates on the trace", [update.search_config for update in updates], [first, second])
    same("the author on the trace", updates[-1].author, AUTHOR)


@INNER.check("INNER-4.1")
async def freezing(inner: InnerSubject) -> None:
    """Freezing and unfreezing are shown in the search configuration"""
    if len(inner.space.editable) < 2:
        raise NotSeen("the task has a single parameter, which cannot be frozen")
    run, name = (await inner.create()).name, inner.space.editable[0].name
    reason = [trace_pb2.FreezeReason(parameter=name, reason="conformance")]
    frozen = (await _update(inner, run, freeze=reason)).frozen
    same("what is frozen", list(frozen), [name])
    thawed = (await _update(inner, run, unfreeze=reason)).frozen
    same("what is frozen after unfreezing", list(thawed), [])


@INNER.check("INNER-4.2")
async def conflict(inner: InnerSubject) -> None:
    """An update of an old revision is refused"""
    run = (await inner.create()).name
    now = (await _update(inner, run, strategy="explore", check_revision=True)).revision
    same("the revision of the first update", now, 1)
    first = _update(inner, run, strategy="first again", check_revision=True)
    await refused(first, "a second first UpdateSearchConfig", "ABORTED", reason="CONFLICT")
    unchecked = (await _update(inner, run, strategy="explore")).revision
    same("the revision of an update without an expected one", unchecked, now + 1)
    now = unchecked
    based = await _update(inner, run, strategy="refine", expected_revision=now)
    same("the revision of an update of the current one", based.revision, now + 1)
    late = _update(inner, run, strategy="too late", expected_revision=now)
    await refused(late, "UpdateSearchConfig of an old revision", "ABORTED", reason="CONFLICT")
    same("the strategy after a refused update", (await inner.run(run)).search_config.strategy, "refine")


@INNER.check("INNER-4.3")
async def wrong_parameters(inner: InnerSubject) -> None:
    """Unknown parameters, and all parameters, cannot be frozen"""
    run = (await inner.create()).name
    unknown = [trace_pb2.FreezeReason(parameter=UNKNOWN, reason="conformance")]
    await invalid(_update(inner, run, freeze=unknown), "freezing an unknown parameter", "freeze[0].parameter")
    everything = [trace_pb2.FreezeReason(parameter=p.name, reason="conformance") for p in inner.space.editable]
    await invalid(_update(inner, run, freeze=everything), "freezing everything", "freeze")


@INNER.check("INNER-4.4")
async def description(inner: InnerSubject) -> None:
    """DescribeSearch says how the search works and what the service can do"""
    said = await inner.wire.call("DescribeSearch", run=(await inner.idle()).name)
    expect(said.capabilities.implementation, "capabilities.implementation must name the implementation")
    expect(said.loop_sources, "loop_sources must hold the loop's own source")
    expect(all(file.path and file.content for file in said.loop_sources), "every source must have a path and a content")
    if said.capabilities.mechanism_languages:
        expect(said.capabilities.hooks, "capabilities.hooks must say which hooks are called")
        expect(said.mechanism_reference, "mechanism_reference must hold the hook interface")
        expect(said.examples, "examples must hold mechanisms to learn from")


async def _update(inner: InnerSubject, run: str, **fields: Any) -> trace_pb2.SearchConfig:
    config: trace_pb2.SearchConfig = (await inner.wire.call("UpdateSearchConfig", run=run, **fields)).search_config
    return config
