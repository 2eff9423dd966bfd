"""The two services that the dashboard reads and drives."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property

from clients.inner import InnerClient
from clients.outer import OuterClient
from service_kit.errors import RemoteError

REMEMBERED = 30.0
"""Seconds for which an answer about the token is believed: tokens change while servers run."""

_NO_RUN = "runs/-"
"""A name that no run has."""


@dataclass
class Services:
    """Connections, opened with their first use: that must be inside the event loop that serves the pages."""

    inner_address: str
    """HOST:PORT."""
    outer_address: str
    """HOST:PORT."""
    _refusal: str = field(default="", init=False)
    _asked: float = field(default=float("-inf"), init=False)

    @cached_property
    def inner(self) -> InnerClient:
        return InnerClient(self.inner_address)

    @cached_property
    def outer(self) -> OuterClient:
        return OuterClient(self.outer_address)

    async def driving_refusal(self) -> str:
        """Why the dashboard's token may not drive runs; empty where it may. Believed for REMEMBERED seconds."""
        if time.monotonic() - self._asked > REMEMBERED:
            self._refusal, self._asked = await self._ask_to_drive(), time.monotonic()
        return self._refusal

    async def _ask_to_drive(self) -> str:
        """Asked with a call that can do nothing: a server looks at the role before it looks at the name."""
        try:
            await self.inner.pause_run(_NO_RUN)
        except RemoteError as error:
            if error.code == "PERMISSION_DENIED":
                return f"the dashboard's token may not drive runs. {error.hint}".strip()
        return ""

    async def close(self) -> None:
        """Close what was opened; calls that are running fail."""
        for name in ("inner", "outer"):
            if (client := self.__dict__.pop(name, None)) is not None:
                await client.close()
