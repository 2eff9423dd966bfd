"""The library of mechanisms. OUTER-5."""

from __future__ import annotations

import hashlib

from bilevel.v1 import outer_pb2

from clients.conformance import common
from clients.conformance.expect import expect, invalid, refused, same
from clients.conformance.inner.mechanisms import FORBIDDEN
from clients.conformance.inner.subject import GATE_SECONDS
from clients.conformance.outer.subject import OUTER, OuterSubject
from clients.conformance.suite import NotSeen

_NONE = "libraryEntries/" + "0" * 64


@OUTER.check("OUTER-5.1")
async def entries(outer: OuterSubject) -> None:
    """Entries are named by their source and can be read one by one"""
    listed = await common.pages(outer.wire, "ListLibraryEntries", "entries", 2)
    for entry in listed[:10]:
        digest = hashlib.sha256(entry.source.encode()).hexdigest()
        same("the name of a library entry", entry.name, f"libraryEntries/{digest}")
        same(
            f"GetLibraryEntry of {entry.name}", (await outer.wire.call("GetLibraryEntry", name=entry.name)).entry, entry
        )
    if not listed:
        raise NotSeen("the library is empty")


@OUTER.check("OUTER-5.2")
async def names(outer: OuterSubject) -> None:
    """Unknown entries and names of another form are refused"""
    await refused(outer.wire.call("GetLibraryEntry", name=_NONE), "GetLibraryEntry of no entry", "NOT_FOUND")
    await invalid(outer.wire.call("GetLibraryEntry", name="no/such:form"), "GetLibraryEntry of another form", "name")


@OUTER.check("OUTER-5.3")
async def importing(outer: OuterSubject) -> None:
    """What is outside the language is not imported, and what is there is not imported again"""
    for source, what in ((FORBIDDEN, "an import of os"), ("", "nothing")):
        entry = outer_pb2.LibraryEntry(source=source)
        call = outer.wire.call("ImportLibraryEntry", entry=entry, timeout=GATE_SECONDS)
        await refused(call, f"ImportLibraryEntry of {what}", "FAILED_PRECONDITION")
    for entry in (await outer.wire.call("ListLibraryEntries", page_size=1)).entries:
        again = await outer.wire.call("ImportLibraryEntry", entry=entry, timeout=GATE_SECONDS)
        same("the entry of a source that is there", again.entry.name, entry.name)
        expect(not again.created, "an entry that is there must not be created again")
