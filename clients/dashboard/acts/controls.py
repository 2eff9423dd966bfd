"""What a person does with a run: start, pause, resume, cancel, guide. Every act is on the trace as a person's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from bilevel.v1 import inner_pb2
from nicegui import ui
from nicegui.element import Element

from clients.dashboard.elements import box, button, disable, problem, text
from clients.dashboard.feeds import Status, StreamFeed
from clients.dashboard.frame import follow
from clients.dashboard.permission import driving_refusal
from clients.dashboard.projection.controls import ACTIONS, refusals
from clients.dashboard.projection.moments import PERSON
from clients.dashboard.projection.run import RunView
from clients.dashboard.services import REMEMBERED, Services
from service_kit.errors import RemoteError

AUTHOR = f"{PERSON}, on the dashboard"
"""Who acts, for the trace."""

GUIDANCE_LIMIT = 4000
"""Characters that the protocol allows."""


def controls(services: Services, feed: StreamFeed[RunView], run: str) -> None:
    """The buttons of the run ``run`` (its resource name), each disabled with a reason where its state forbids it."""
    inner, unreached = services.inner, False

    async def start() -> None:
        await attempt("start", lambda: inner.start_run(run), "The run starts.", remark="started the run")

    async def pause() -> None:
        reason = f"paused by {AUTHOR}"
        await attempt("pause", lambda: inner.pause_run(run, reason), "The run pauses after its current trials.")

    async def resume() -> None:
        await attempt("resume", lambda: inner.resume_run(run), "The run goes on.", remark="resumed the run")

    async def attempt(
        action: str,
        act: Callable[[], Awaitable[object]],
        done: str,
        *,
        remark: str = "",
        problems: Element | None = None,
    ) -> bool:
        """Do it, or say why not, in ``problems`` where it came from a dialog; whether it was done."""
        nonlocal unreached
        place = failed if problems is None else problems
        place.clear()
        unreached = False
        if reason := await driving_refusal(services) or refusals(feed.view)[action]:
            say(f"Not possible now: {reason}.")
            return False
        try:
            await act()
            if remark:
                await inner.remark(run, AUTHOR, remark)
        except RemoteError as error:
            unreached = error.code == "UNAVAILABLE"
            with place:
                problem(error, f"The service {'was not there' if unreached else 'refused'} to {action} the run")
            return False
        say(done)
        return True

    cancel_dialog, guidance_dialog = _cancel(feed, run, services, attempt), _guidance(feed, run, services, attempt)
    with box("div", "controls") as row:
        buttons = {
            "start": button("Start", start, kind="primary", key="s"),
            "pause": button("Pause", pause, key="p"),
            "resume": button("Resume", resume, key="p"),
            "guide": button("Guide…", lambda: guidance_dialog(), key="g"),
            "cancel": button("Cancel…", lambda: cancel_dialog(), kind="danger"),
        }
    row.props.update({"role": "group", "aria-label": "Control the run"})
    failed = box("div", "failed")

    forbidden = ""

    async def look() -> None:
        nonlocal forbidden
        forbidden = await driving_refusal(services)
        draw()

    def draw() -> None:
        nonlocal unreached
        if unreached and feed.status is Status.LIVE:
            unreached = False
            failed.clear()
        reasons = dict.fromkeys(ACTIONS, forbidden) if forbidden else refusals(feed.view)
        for action, element in buttons.items():
            disable(element, reasons[action])
        buttons["start"].set_visibility(not reasons["start"])

    follow(feed, draw)
    ui.timer(REMEMBERED, look, immediate=True)


def say(words: str) -> None:
    """A short message that goes away by itself."""
    ui.notify(words, position="bottom", color="dark", timeout=4000)


Attempt = Callable[..., Awaitable[bool]]


def _cancel(feed: StreamFeed[RunView], run: str, services: Services, attempt: Attempt) -> Callable[[], None]:
    with ui.dialog() as dialog, box("div", "sheet"):
        text("h2", "Cancel this run?")
        text("p", "It ends now: the evaluation that runs is killed, and a cancelled run cannot be resumed.")
        text("p", "Its trials and its trace are kept. To interrupt it only, pause it instead.")
        why = ui.input("Reason, kept on the trace").props("outlined dense maxlength=400 autofocus")

        async def cancel() -> None:
            said = (why.value or "").strip()
            reason = f"cancelled by {AUTHOR}" + (f": {said}" if said else "")
            dialog.close()
            await attempt("cancel", lambda: services.inner.cancel_run(run, reason), "The run is cancelled.")

        with box("div", "actions"):
            button("Keep it", dialog.close)
            button("Cancel the run", cancel, kind="danger")

    def open_dialog() -> None:
        if reason := refusals(feed.view)["cancel"]:
            say(f"Not possible now: {reason}.")
        else:
            dialog.open()

    return open_dialog


def _guidance(feed: StreamFeed[RunView], run: str, services: Services, attempt: Attempt) -> Callable[[], None]:
    revision = 0
    with ui.dialog() as dialog, box("div", "sheet"):
        text("h2", "Guidance for the search")
        text(
            "p",
            "The proposer is shown this text with every prompt, from the next proposal on. Level 1.5, where it is on, "
            "may replace it at its next look.",
        )
        area = ui.textarea("Guidance").props(f"outlined autogrow counter maxlength={GUIDANCE_LIMIT} autofocus")
        refused = box("div", "failed")

        async def send() -> None:
            nonlocal revision
            request = inner_pb2.UpdateSearchConfigRequest(
                run=run,
                guidance=(area.value or "").strip(),
                author=AUTHOR,
                expected_revision=revision,
                check_revision=True,
            )
            update = partial(services.inner.update_search_config, request)
            if await attempt("guide", update, "The guidance is on the trace.", problems=refused):
                dialog.close()
            elif (now := feed.view.config).revision != revision:
                revision = now.revision
                with refused:
                    text("p", f"Somebody else has changed it; the guidance is now: {now.guidance or 'none'}")
                    text("p", "Yours replaces it if you give it again.")

        with box("div", "actions"):
            button("Leave it", dialog.close)
            button("Give guidance", send, kind="primary")

    def open_dialog() -> None:
        nonlocal revision
        if reason := refusals(feed.view)["guide"]:
            say(f"Not possible now: {reason}.")
            return
        revision, area.value = feed.view.config.revision, feed.view.config.guidance
        refused.clear()
        dialog.open()

    return open_dialog
