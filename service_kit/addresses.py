"""Where servers listen: HOST:PORT, whether other machines can reach it, and the file that says it."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from service_kit.errors import InvalidArgument


def parse_address(text: str, field: str = "listen") -> tuple[str, int]:
    """HOST:PORT or [IPV6]:PORT as host and port. Raises :class:`InvalidArgument` naming ``field``."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument.of(field, f"must be HOST:PORT with a port from 0 to 65535; got {text!r}")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether ``host`` is only reachable from this machine. A name other than localhost counts as reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def publish(file: Path | None, address: str) -> None:
    """Write ``address`` into ``file`` where there is one, in one step: whoever finds the file reads it whole."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        draft.write_text(address + "\n")
        draft.replace(file)
