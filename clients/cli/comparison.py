"""Summaries of runs side by side on the terminal: the same numbers as in the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from clients import wording
from clients.report.record import Summary

_ROWS: Sequence[tuple[str, Callable[[Summary], str]]] = (
    ("levels", lambda s: s.levels),
    ("state", lambda s: s.state),
    ("baseline", lambda s: f"{wording.metric(s.baseline)} {s.unit}"),
    ("best", lambda s: f"{wording.metric(s.best)} {s.unit}"),
    ("gain, as the search saw it", lambda s: wording.gain(s.search_gain)),
    ("gain, confirmed", lambda s: confirmed(s)),
    (
        "trials",
        lambda s: f"{s.trials}: {s.kept} kept, {s.failed} failed, {s.refused} refused",
    ),
    ("stopped early", lambda s: stopped(s)),
    ("mechanisms installed", lambda s: str(s.mechanisms_installed)),
    ("decisions they changed", lambda s: str(s.changed_decisions)),
    ("tokens", lambda s: f"{s.prompt_tokens + s.completion_tokens:,} in {wording.count(s.model_calls, 'call')}"),
    ("cost", lambda s: wording.cost(s.cost_usd, scripted=s.scripted)),
    ("no evaluation ran", lambda s: f"{s.waiting_share:.0%} of {wording.duration(s.wall_seconds)}"),
    ("paused for the outer loop", lambda s: f"{s.paused_share:.0%}"),
    ("answered by", lambda s: s.answered_by),
)


def confirmed(summary: Summary) -> str:
    """The confirmed gain with its 95 % interval and what it was measured on."""
    if summary.confirmed_gain is None:
        return "not re-measured"
    text = wording.signed(summary.confirmed_gain)
    if summary.confirmed_low is not None:
        text += f" [{wording.signed(summary.confirmed_low)}, {wording.signed(summary.confirmed_high)}]"
    return f"{text} ({wording.count(summary.confirmation_seeds, 'fresh seed')}, {summary.confirmed_split})"


def stopped(summary: Summary) -> str:
    """How many trials were stopped early, and how often the rule erred where that was checked."""
    if not summary.audited_stops:
        return str(summary.stopped_early)
    return f"{summary.stopped_early}; wrong in {summary.wrong_stops} of {summary.audited_stops} audited"


def print_summaries(summaries: Sequence[Summary], console: Console) -> None:
    """A column a run."""
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    table.add_column(summaries[0].metric, style="dim")
    for summary in summaries:
        table.add_column(summary.title, overflow="fold")
    for label, show in _ROWS:
        table.add_row(label, *(show(summary) for summary in summaries))
    console.print(table)
    if any(summary.scripted for summary in summaries):
        console.print(
            "\nThe scripted researcher answered in place of a language model: this shows that the machinery works and\n"
            "is no evidence for the method. Set OPENAI_BASE_URL, OPENAI_API_KEY and BILEVEL_MODEL to use a model.",
            style="yellow",
            highlight=False,
        )


def terminal() -> Console:
    """Standard output for people; wide enough for tables where it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)
