"""What a visitor may do beyond looking: as far as their login allows, and the dashboard's own token."""

from __future__ import annotations

import time

from nicegui import ui

from clients.dashboard.door.login import SESSION
from clients.dashboard.door.sessions import Session
from clients.dashboard.door.settings import Access
from clients.dashboard.services import Services
from service_kit.errors import RemoteError

REMEMBERED = 30.0
"""Seconds for which an answer about the token is believed: tokens change while servers run."""
_NO_RUN = "runs/-"
"""A name that no run has."""

_VIEWER = "You are logged in for looking only. Log out, then log in with the other password."


class Permission:
    """Asked before a control is offered, and again before what it does is done."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._answer, self._asked = "", float("-inf")

    async def refusal(self) -> str:
        """Why whoever looks at this page may not drive runs; empty where they may, as far as is known."""
        session = ui.context.client.request.scope.get(SESSION)
        if isinstance(session, Session) and session.access is not Access.DRIVE:
            return _VIEWER
        if time.monotonic() - self._asked > REMEMBERED:
            self._answer = await self._of_token()
            self._asked = time.monotonic()
        return self._answer

    async def _of_token(self) -> str:
        """Asked with a call that can do nothing: the role is looked at before the name."""
        try:
            await self._services.inner.pause_run(_NO_RUN)
        except RemoteError as error:
            if error.code == "PERMISSION_DENIED":
                return f"The dashboard's token may not do this. {error.hint}".strip()
        return ""
