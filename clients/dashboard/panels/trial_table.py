"""Rows of trials in a table, and the panel that one of them opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nicegui import ui

from clients.dashboard.elements import MARKS, box, button, column, link
from clients.dashboard.feeds import StreamFeed
from clients.dashboard.panels.trial_detail import trial_detail
from clients.dashboard.projection.run import RunView
from clients.dashboard.projection.trials import row

COLUMNS = [
    column("number", "Trial", right=True, sortable=True),
    column("outcome", "Outcome", field="status"),
    column("metric", "Metric", right=True, sortable=True),
    column("gain", "Gain", right=True, sortable=True),
    column("changes", "Change and hypothesis"),
    column("proposer", "Proposed by"),
    column("elapsed", "Time", right=True, sortable=True),
]

_CELLS = {
    "number": """<q-td :props="props"><a class="row-link number" :href="props.row.href"
        @click.exact.prevent="() => $parent.$emit('open', props.row.number)">{{ props.row.number }}</a></q-td>""",
    "outcome": """<q-td :props="props"><span class="mark"><span class="shape" aria-hidden="true"
        :data-kind="props.row.kind">{{ props.row.shape }}</span><span>{{ props.row.status }}</span></span></q-td>""",
    "changes": """<q-td :props="props" class="changes"><span class="change">{{ props.row.changes }}</span>
        <span class="sub">{{ props.row.hypothesis }}</span></q-td>""",
    "proposer": """<q-td :props="props">{{ props.row.proposer }}
        <span v-if="props.row.changed_by" class="sub by">changed by {{ props.row.changed_by }}</span></q-td>""",
}


def trial_table(run_id: str, feed: StreamFeed[RunView], **options: Any) -> ui.table:
    """An empty table of trials; a click on a row opens the trial in a panel at the side."""
    opened = _panel(run_id, feed)
    table = ui.table(rows=[], columns=COLUMNS, row_key="number", **options).props("flat dense")
    table.classes("list trials")
    for name, cell in _CELLS.items():
        table.add_slot(f"body-cell-{name}", cell)
    table.on("open", lambda event: opened(int(event.args)))
    return table


def rows(run_id: str, view: RunView, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """What the table shows of these trials."""
    return [
        asdict(shown) | {"href": f"/runs/{run_id}/trials/{shown.number}", "shape": MARKS.get(shown.kind, "·")}
        for shown in (row(view, number) for number in numbers)
    ]


def _panel(run_id: str, feed: StreamFeed[RunView]) -> Any:
    with ui.dialog().props("position=right full-height") as dialog, box("div", "side-panel") as panel:
        pass

    def open_trial(number: int) -> None:
        panel.clear()
        with panel:
            with box("div", "panel-actions"):
                link("Open as a page", f"/runs/{run_id}/trials/{number}")
                box("span", "space")
                button("Close", dialog.close, kind="quiet")
            trial_detail(run_id, feed.view, number)
        dialog.open()

    return open_trial
