"""The library: what is remembered, what is offered and tried again, and what goes in and out as files."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bilevel.v1 import outer_pb2 as pb

from clients.library_files import read, story
from clients.outer import OuterClient
from mechanisms import standard
from outer_service import library
from outer_service.campaign import Verdict
from outer_service.events import VerdictReached
from outer_service.library import LibraryEntry, LibraryTrial, offers
from outer_service.observed import MechanismEffect
from service_kit.errors import InvalidArgument, RemoteError
from tests.clients.cli.shape_check import check

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def verdict(outcome: Verdict, kept: int = 1) -> VerdictReached:
    return VerdictReached("m", outcome, "because", MechanismEffect((), 5, 2, kept), 0.0, 0.1)


def tried(outcome: Verdict | None, task: str = "gpt", *, imported: bool = False) -> LibraryTrial:
    verdicts = (verdict(outcome),) if outcome is not None else ()
    return LibraryTrial("campaigns/c", "runs/r", task, "m", NOW, verdicts, imported)


def entry(id_: str, *trials: LibraryTrial, age: int = 0, title: str = "") -> LibraryEntry:
    made = NOW - timedelta(days=age)
    return LibraryEntry(id_, f"Does {id_}.", "source", "m-1", "s", "gpt", made, title or id_, trials=trials)


def choices(*entries: LibraryEntry, task: str = "gpt", present: tuple[str, ...] = ()) -> list[str]:
    return [offer.choice for offer in offers(entries, task, present) if not offer.standard]


def test_what_stayed_is_offered_first_then_what_is_new_and_never_what_only_went() -> None:
    stayed = entry("stayed", tried(Verdict.KEEP), age=9)
    elsewhere = entry("elsewhere", tried(Verdict.KEEP, "other"), age=1)
    new = entry("new", age=2)
    removed_once = entry("removed", tried(Verdict.RETIRE))
    lost = entry("lost", tried(Verdict.RETIRE), tried(Verdict.REPLACE))
    came_back = entry("back", tried(Verdict.RETIRE), tried(Verdict.RETIRE), tried(Verdict.KEEP))
    found = choices(lost, new, removed_once, came_back, elsewhere, stayed)
    assert found == [f"library:{name}" for name in ("stayed", "elsewhere", "new", "back", "removed")]
    assert choices(stayed, new, present=("stayed",)) == ["library:new"]


def test_a_verdict_that_was_taken_back_later_does_not_count_as_kept() -> None:
    faded = entry("faded", replace(tried(Verdict.KEEP), verdicts=(verdict(Verdict.KEEP), verdict(Verdict.RETIRE))))
    assert (faded.kept, faded.passed) == (0, 1)
    assert "it passed its probation 1 times and stayed 0 times" in faded.record()


def test_what_passed_its_probation_is_offered_however_often_its_effect_faded_later() -> None:
    faded = replace(tried(Verdict.KEEP), verdicts=(verdict(Verdict.KEEP), verdict(Verdict.RETIRE)))
    assert choices(entry("faded", faded, faded, faded)) == ["library:faded"]
    assert choices(entry("failed", tried(Verdict.RETIRE), tried(Verdict.RETIRE))) == []


def test_what_was_installed_and_never_judged_is_not_said_to_be_untried() -> None:
    assert entry("cut-short", tried(None)).record() == "Installed 1 times and never judged."
    assert entry("new").record() == "It was never tried and judged here."


def test_imported_reports_are_told_apart_from_what_was_measured() -> None:
    known = entry("known", tried(Verdict.KEEP, imported=True))
    [offer] = [offer for offer in offers([known], "gpt", ()) if not offer.standard]
    assert (offer.judged, offer.kept) == (0, 0)
    assert offer.record == "It was never tried and judged here. An imported file tells of 1 more trials."


def test_standard_mechanisms_are_offered_and_labelled_until_they_are_entries() -> None:
    offered = offers((), "gpt", ())
    assert [offer.entry.partition("/")[2] for offer in offered] == list(standard.sources())
    assert all(offer.standard and offer.choice.startswith("standard:") and offer.summary for offer in offered)
    tabu = library._hash(standard.sources()["tabu"])
    known = replace(entry(tabu, tried(Verdict.KEEP), title="tabu"), origin=library.LibraryOrigin.STANDARD)
    again = [offer for offer in offers([known], "gpt", ()) if offer.title == "tabu"]
    assert [(offer.choice, offer.entry, offer.standard) for offer in again] == [
        ("standard:tabu", f"libraryEntries/{tabu}", True)
    ]


def test_entries_of_one_title_are_told_apart() -> None:
    one, two = entry("a" * 64, title="tabu"), entry("b" * 64, title="tabu")
    assert choices(one, two) == ["library:tabu-aaaaaa", "library:tabu-bbbbbb"]


def of_kind(events: list[Any], kind: str) -> list[Any]:
    return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]


async def bilevel(*arguments: str) -> str:
    """What ``bilevel library`` says, on both streams."""
    command = [sys.executable, "-c", "from clients.cli import main; main()", "library", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, "COLUMNS": "200"}
    )
    said, _ = await process.communicate()
    return said.decode()


async def searched(services: Any, outer: Any, task: str, trials: int = 16, **policy: Any) -> tuple[list[Any], str]:
    run = await services.run(trials=trials, task=task)
    levels = [pb.LEVEL_CONFIGURATION, pb.LEVEL_MECHANISM]
    campaign = await outer.campaign(run, levels=levels, probation_trials=5, **policy)
    await services.start(run)
    return await outer.events(campaign.name), run


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_stayed_is_tried_again_on_another_task_and_goes_out_and_in_as_a_file(
    services: Any, outer_service: Callable[..., Any], tmp_path: Path
) -> None:
    async with outer_service("library") as outer, OuterClient(outer.address) as client:
        first, _ = await searched(services, outer, "valley")
        [made] = of_kind(first, "research_finished")
        assert made.derived_from == ""
        [started] = of_kind(first, "research_started")
        assert {offer.choice for offer in started.offered} == {
            f"standard:{name.replace('_', '-')}" for name in standard.sources()
        }

        second, run = await searched(services, outer, "second-valley")
        [chosen] = of_kind(second, "library_entry_chosen")
        assert chosen.offer.choice == "library:opposite-direction"
        assert (chosen.offer.judged, chosen.offer.kept) == (1, 1)
        assert "stayed 1 of 1 times before" in chosen.reason
        rounds = [done.turn.round for done in of_kind(second, "round_finished")]
        assert rounds == [pb.RESEARCH_ROUND_EXPLORE, pb.RESEARCH_ROUND_CRITIQUE]
        [judged] = of_kind(second, "mechanism_judged")
        [finished] = of_kind(second, "research_finished")
        assert finished.derived_from == chosen.offer.entry
        [mechanism] = await services.mechanisms(run)
        assert (mechanism.source, mechanism.author) == (judged.source, "scripted researcher")
        said = [e.remarked.text for e in await services.trace(run) if e.WhichOneof("event") == "remarked"]
        assert any(text.startswith("level 2: tries library:opposite-direction again. Tried 1 times") for text in said)

        [known] = await client.list_library_entries()
        assert [(trial.task, len(trial.verdicts)) for trial in known.trials] == [("valley", 1), ("second-valley", 1)]
        assert known.trials[1].verdicts[0] == of_kind(second, "verdict_reached")[0]
        assert (known.title, known.scripted, known.origin) == ("opposite-direction", True, pb.LIBRARY_ORIGIN_RESEARCHED)
        assert known.model == "scripted-researcher"

        third, _ = await searched(services, outer, "valley", trials=11, library=pb.LIBRARY_USE_NONE)
        assert not of_kind(third, "research_started")[0].offered
        assert not of_kind(third, "library_entry_chosen")
        [known] = await client.list_library_entries()
        assert len(known.trials) == 3

        listed = await bilevel("list", "--outer", outer.address, "--json")
        check("library list", json.loads(listed))
        assert [entry["title"] for entry in json.loads(listed)] == ["opposite-direction"]
        assert "opposite-direction" in await bilevel("list", "--task", "second-valley", "--outer", outer.address)
        shown = await bilevel("show", known.name.removeprefix("libraryEntries/")[:10], "--outer", outer.address)
        assert known.trials[1].verdicts[0].reason in shown
        assert "(scripted, no evidence for the method)" in shown
        assert "Titles in the library: opposite-direction" in await bilevel("show", "x", "--outer", outer.address)
        file = tmp_path / "library.json"
        assert await bilevel("export", "--out", str(file), "--outer", outer.address) == f"1 written to {file}\n"
        assert read(file) == [known]
    async with outer_service("other-library") as outer, OuterClient(outer.address) as client:
        [given] = read(file)
        taken, created = await client.import_library_entry(given)
        assert created
        assert (taken.name, taken.source, taken.hooks) == (known.name, known.source, known.hooks)
        assert (taken.origin, taken.scripted) == (pb.LIBRARY_ORIGIN_IMPORTED, True)
        assert all(trial.imported for trial in taken.trials)
        assert "as the imported file says; not measured here" in story(taken)
        again, created = await client.import_library_entry(given)
        assert (again, created) == (taken, False)
        assert (await bilevel("import", str(file), "--outer", outer.address)).startswith("known already: opposite-dir")


@pytest.mark.asyncio(loop_scope="module")
async def test_an_import_is_compiled_in_the_sandbox_and_refused_with_the_findings(
    scripted_outer: Any, tmp_path: Path
) -> None:
    async with OuterClient(scripted_outer.address) as client:
        before = len(await client.list_library_entries())
        for source, said in (
            ("open('x', 'w')\nclass Mechanism:\n    def observe(self, trial):\n        pass\n", "open"),
            ("import os\nclass Mechanism:\n    def observe(self, trial):\n        os.remove('x')\n", "os"),
            ("x = 1\n", "there is no class Mechanism"),
            ("", "the source is empty"),
        ):
            with pytest.raises(RemoteError, match=said) as refused:
                await client.import_library_entry(pb.LibraryEntry(source=source))
            assert refused.value.code == "FAILED_PRECONDITION"
        plain = 'class Mechanism:\n    """Quiet."""\n\n    def veto(self, view, candidate):\n        return None\n'
        hangs = "while True:\n    pass\n" + plain.replace("Quiet", "Hangs")
        taken, _ = await client.import_library_entry(pb.LibraryEntry(source=hangs))  # so it was not run
        assert taken.summary == "Hangs."
        with pytest.raises(RemoteError, match=r"entry.title: must be 1 to 48 lowercase") as wrong:
            await client.import_library_entry(pb.LibraryEntry(source=plain, title="Not A Title"))
        assert wrong.value.code == "INVALID_ARGUMENT"
        trial = pb.LibraryTrial(verdicts=[pb.VerdictReached(verdict=pb.VERDICT_UNSPECIFIED)])
        with pytest.raises(RemoteError, match=r"entry.trials\[0\].verdicts\[0\].verdict"):
            await client.import_library_entry(pb.LibraryEntry(source=plain, trials=[trial]))
        assert len(await client.list_library_entries()) == before + 1
        file = tmp_path / "Quiet_One.py"
        file.write_text(plain)
        assert (await bilevel("import", str(file), "--outer", scripted_outer.address)).startswith(
            "imported: quiet-one ("
        )
        shown = await bilevel("show", "quiet-one", "--outer", scripted_outer.address)
        assert shown.startswith("quiet-one: Quiet.\n")
        assert "imported, by a person" in shown
        assert plain in shown


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "is not JSON"),
        ("{}", "the format of"),
        (json.dumps({"format": "bilevel-library/1", "entries": []}), "at least one entry"),
        (json.dumps({"format": "bilevel-library/1", "entries": [{"source": 5}]}), r"entries\[0\]"),
    ],
)
def test_a_file_that_is_no_library_is_refused_with_the_reason(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "library.json"
    file.write_text(content)
    with pytest.raises(InvalidArgument, match=said):
        read(file)
    with pytest.raises(InvalidArgument, match="must name a readable file"):
        read(tmp_path / "nowhere.json")


def test_a_source_file_is_an_entry_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "My_Idea.py"
    file.write_text("class Mechanism: ...\n")
    [found] = read(file)
    assert (found.title, found.source) == ("my-idea", "class Mechanism: ...\n")
