"""What whoever looks at a page may do beyond looking: as far as their login allows, and the dashboard's own token."""

from __future__ import annotations

from nicegui import ui
from starlette.types import Scope

from clients.dashboard.door.login import LIVES, SESSION
from clients.dashboard.door.sessions import Session
from clients.dashboard.door.settings import Access
from clients.dashboard.services import Services

_ENDED = "your login has ended; load the page again to log in"
_VIEWER = "you are logged in for looking only; log out, then log in with the other password"


def visitor() -> Session | None:
    """The session of whoever looks at this page; None for a page without a door, as tests have it."""
    session = _scope().get(SESSION)
    return session if isinstance(session, Session) else None


async def driving_refusal(services: Services) -> str:
    """Why whoever looks at this page may not drive runs; empty where they may, as far as is known.

    Asked when a page is opened, and again before anything is done: a page may stay open for longer than its login.
    """
    if (lives := _scope().get(LIVES)) is not None and not lives():
        return _ENDED
    session = visitor()
    if session is not None and session.access is not Access.DRIVE:
        return _VIEWER
    return await services.driving_refusal()


def _scope() -> Scope:
    request = ui.context.client.request
    return request.scope if request is not None else {}
