"""What people see while a search runs: on a terminal, and in lines."""

from __future__ import annotations

import io

import pytest
from bilevel.v1 import trace_pb2
from rich.console import Console

from clients.cli.comparison import print_summaries
from clients.cli.lines import LineView
from clients.cli.live import display, shown, sparkline
from clients.report.record import RunRecord
from clients.searching import Search


def search_of(record: RunRecord, events: int | None = None) -> Search:
    search = Search(record.history.name, "campaigns/c1" if record.campaign_events else "")
    for event in record.events[:events]:
        search.trace.apply(event)
    for event in record.campaign_events:
        search.outer.apply(event)
    return search


def rendered(*searches: Search) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(display(list(searches)))
    return console.file.getvalue()


def at(record: RunRecord, kind: str, count: int) -> int:
    """Number of events up to and with the ``count``-th of a kind."""
    positions = [i for i, event in enumerate(record.events) if event.WhichOneof("event") == kind]
    return positions[count] + 1


def test_the_display_shows_training_best_and_the_outer_loop(bilevel: RunRecord) -> None:
    text = rendered(search_of(bilevel, at(bilevel, "trial_progressed", 15)))
    assert "trial 14/30" in text
    assert "trial 15 training" in text
    assert "loss 4.200" in text
    assert "outer loop" in text
    assert "turn-round" in text
    assert "scripted researcher" in text


def test_several_searches_are_shown_together(bare: RunRecord, bilevel: RunRecord) -> None:
    text = rendered(search_of(bare), search_of(bilevel))
    assert "level 1" in text
    assert "bilevel" in text


def test_a_search_without_any_event_can_be_shown() -> None:
    assert "between trials" in rendered(Search("runs/new"))


def test_the_sparkline_falls_with_a_minimised_metric(bilevel: RunRecord) -> None:
    line = sparkline(search_of(bilevel))
    assert line[0] == "█"
    assert line[-1] == "▁"


def test_a_display_that_is_no_terminal_is_lines(bilevel: RunRecord) -> None:
    lines: list[str] = []
    view = LineView(lines.append)
    search = Search(bilevel.history.name)
    for event in bilevel.events:
        search.trace.apply(event)
        view(search, event)
    decided = [line for line in lines if "best 1" in line or "best 2" in line]
    assert len(decided) == 31
    assert "  8/30  diverged" in "\n".join(lines)
    complaints = search.trace.complaints
    assert complaints
    assert all(any(line.endswith(f": {why}") for line in decided) for why in complaints.values())
    assert any("[turn-round]" in line for line in decided)
    assert any(line.startswith("mechanism turn-round installed") for line in lines)
    assert any(line.startswith("confirmed gain +") for line in lines)


async def test_lines_do_not_interpret_what_a_model_wrote(bilevel: RunRecord) -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    search = search_of(bilevel)
    event = trace_pb2.TraceEvent(remarked=trace_pb2.Remarked(author="[red]x[/red]", text="[bold]y[/bold]"))
    async with shown([search], console) as listener:
        listener(search, event)
    assert console.file.getvalue() == "[red]x[/red]: [bold]y[/bold]\n"


@pytest.mark.parametrize("which", ["bare", "bilevel"])
def test_the_summary_labels_the_scripted_researcher(which: str, request: pytest.FixtureRequest) -> None:
    console = Console(file=io.StringIO(), width=160)
    print_summaries([request.getfixturevalue(which).summary()], console)
    text = console.file.getvalue()
    assert "no evidence for the method" in text.replace("\n", " ")
    assert "unknown" in text
