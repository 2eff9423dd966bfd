"""The two services that the dashboard reads and drives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from clients.inner import InnerClient
from clients.outer import OuterClient


@dataclass
class Services:
    """Connections, opened with their first use: that must be inside the event loop that serves the pages."""

    inner_address: str
    """HOST:PORT."""
    outer_address: str
    """HOST:PORT."""

    @cached_property
    def inner(self) -> InnerClient:
        return InnerClient(self.inner_address)

    @cached_property
    def outer(self) -> OuterClient:
        return OuterClient(self.outer_address)

    async def close(self) -> None:
        """Close what was opened; calls that are running fail."""
        for name in ("inner", "outer"):
            if (client := self.__dict__.pop(name, None)) is not None:
                await client.close()
