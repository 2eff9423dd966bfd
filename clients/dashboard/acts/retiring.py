"""Taking a mechanism out of a run: asked for twice, with a reason that stays on the trace."""

from __future__ import annotations

from nicegui import ui

from clients.dashboard.elements import box, button, text
from clients.dashboard.permission import driving_refusal
from clients.dashboard.services import Services
from clients.history import short
from service_kit.errors import RemoteError


def ask_to_retire(services: Services, name: str) -> None:
    """Open the dialog for the mechanism ``name`` (``runs/{run}/mechanisms/{mechanism}``)."""
    with ui.dialog() as dialog, box("div", "sheet"):
        text("h2", f"Retire {short(name)}?")
        text("p", "Its hooks are no longer called, from the next trial on. What it did stays on the trace.")
        reason = ui.input("Reason, for the trace").props("dense outlined maxlength=500").classes("wide")

        async def retire() -> None:
            if refusal := await driving_refusal(services):
                ui.notify(f"Not possible: {refusal}.", type="negative")
                return
            try:
                await services.inner.uninstall_mechanism(name, (reason.value or "").strip() or "retired by a person")
            except RemoteError as error:
                ui.notify(str(error), type="negative", multi_line=True)
                return
            dialog.close()
            ui.notify(f"{short(name)} is retired")

        with box("div", "actions"):
            button("Keep it", dialog.close)
            button("Retire it", retire, kind="danger")
    dialog.on("hide", dialog.delete)
    dialog.open()
