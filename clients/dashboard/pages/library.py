"""The library: every mechanism that was ever accepted, with what it did where it was tried."""

from __future__ import annotations

from bilevel.v1 import outer_pb2
from nicegui import app, ui

from clients import wording
from clients.dashboard.elements import box, empty, facts, link, problem, tag, text
from clients.dashboard.feeds import Feeds
from clients.dashboard.frame import connection, follow, frame
from clients.dashboard.panels.code import code
from clients.dashboard.part import Part
from clients.dashboard.polling import PolledFeed
from clients.dashboard.services import Services
from clients.history import short
from service_kit.errors import RemoteError

MOST = 500
"""Entries that are listed, newest first."""


def register(services: Services, feeds: Feeds) -> None:
    """Serve the pages."""
    entries = PolledFeed[outer_pb2.LibraryEntry](lambda: services.outer.list_library_entries(MOST))
    app.on_shutdown(entries.stop)

    @ui.page("/library")
    def all_entries() -> None:
        with frame("Library", here="/library"):
            with box("div", "heading"):
                text("h1", "Library")
                connection(entries)
            part = Part()

        def draw() -> None:
            part.draw((entries.was_read, entries.version), lambda: _list(entries))

        follow(entries, draw)

    @ui.page("/library/{entry_id}")
    async def one(entry_id: str) -> None:
        with frame(f"Library: {entry_id[:12]}", here="/library"):
            try:
                entry = await services.outer.get_library_entry(f"libraryEntries/{entry_id}")
            except RemoteError as error:
                if error.code == "NOT_FOUND":
                    empty("The library has no such mechanism", "It has what a campaign accepted or a person imported.")
                    link("The whole library", "/library")
                else:
                    problem(error)
                return
            _entry(entry)


def _list(entries: PolledFeed[outer_pb2.LibraryEntry]) -> None:
    if not entries.was_read:
        return
    if not entries.items:
        empty(
            "The library is empty",
            "What a campaign accepts is kept here and offered to later ones. You can also bring mechanisms along:",
            command="bilevel library import FILE",
        )
    for entry in entries.items:
        with box("section", "panel"):
            with box("div", "panel-head"):
                with text("h2", ""):
                    link(_title(entry), f"/library/{short(entry.name)}")
                _tags(entry)
            text("p", entry.summary, "quiet")
            _counts(entry)


def _title(entry: outer_pb2.LibraryEntry) -> str:
    return entry.title or short(entry.name)[:12]


def _tags(entry: outer_pb2.LibraryEntry) -> None:
    tag(wording.member(outer_pb2.LibraryOrigin.Name(entry.origin), "LIBRARY_ORIGIN_"))
    if entry.scripted:
        tag("scripted", "warning")


def _counts(entry: outer_pb2.LibraryEntry) -> None:
    verdicts = [verdict for trial in entry.trials if not trial.imported for verdict in trial.verdicts]
    kept = sum(verdict.verdict == outer_pb2.VERDICT_KEEP for verdict in verdicts)
    changed = sum(verdict.changed_decisions for verdict in verdicts)
    facts(
        [
            ("Task", entry.task or wording.NOTHING),
            ("Hooks", ", ".join(wording.hook(hook) for hook in entry.hooks) or wording.NOTHING),
            ("Installed", wording.count(len(entry.trials), "time")),
            ("Verdicts", f"{len(verdicts)}, {kept} to keep it" if verdicts else "none yet"),
            ("Decisions changed", f"{changed:,}" if verdicts else wording.NOTHING),
            ("First accepted", wording.moment(entry.create_time)),
        ],
        "gap-above",
    )


def _entry(entry: outer_pb2.LibraryEntry) -> None:
    with box("div", "heading"):
        text("h1", _title(entry))
        _tags(entry)
    text("p", entry.summary, "said")
    with box("section", "panel"):
        _counts(entry)
        facts(
            [("Author", entry.author or wording.UNKNOWN), ("Model", entry.model or wording.NOTHING)],
            "gap-above",
        )
        with box("div", "line-up gap-above"):
            if entry.run:
                link(f"First accepted in {short(entry.run)}", f"/runs/{short(entry.run)}/mechanisms")
            if entry.derived_from:
                link("Derived from", f"/library/{short(entry.derived_from)}")
    for trial in entry.trials:
        with box("section", "panel"):
            with box("div", "panel-head"):
                with text("h2", ""):
                    if trial.imported:
                        text("span", short(trial.run))
                    else:
                        link(f"In {short(trial.run)}", f"/runs/{short(trial.run)}/mechanisms/{trial.mechanism}")
                if trial.imported:
                    tag("imported: not measured here", "warning")
                text("span", wording.moment(trial.time), "sub")
            for verdict in trial.verdicts:
                text("p", f"{wording.member(outer_pb2.Verdict.Name(verdict.verdict), 'VERDICT_')}: {verdict.reason}")
            if not trial.verdicts:
                text("p", "No verdict.", "quiet")
    with box("section", "panel flush"):
        with box("div", "panel-head"):
            text("h2", "Source")
            text("span", f"SHA-256 {short(entry.name)[:16]}", "sub mono")
        code(entry.source)
