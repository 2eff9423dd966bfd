"""Where the services are by default, and how to talk about them. Imports nothing heavy: the command starts here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """One service at one address, with the words that error messages need."""

    service: str
    """What it is called, for example "inner service"."""
    address: str
    """HOST:PORT."""
    start: str
    """The command that starts one."""
    option: str
    """The command line option that names another address."""

    def at(self, address: str) -> Self:
        """The same service at another address."""
        return replace(self, address=address)


INNER = ServiceAddress("inner service", "127.0.0.1:7402", "bilevel serve inner", "--inner")
OUTER = ServiceAddress("outer service", "127.0.0.1:7403", "bilevel serve outer", "--outer")
TRAINER = ServiceAddress(
    "trainer", "127.0.0.1:7401", "bilevel serve trainer", "--task NAME=HOST:PORT of the inner service"
)
RESEARCHER = ServiceAddress("scripted researcher", "127.0.0.1:7400", "bilevel serve researcher", "OPENAI_BASE_URL")
