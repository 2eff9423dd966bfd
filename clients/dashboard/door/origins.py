"""Which pages a browser may call the dashboard from.

A page of another site can make a browser send requests here, on loopback too. Two headers that such a page cannot
forge say so: Host, which names the site as the browser knows it (a name that was made to point here betrays itself),
and Origin, which names the page that asks.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def host_allowed(host: str | None, names: Collection[str]) -> bool:
    """Whether a Host header names the dashboard: localhost, an IP address, or one of ``names``.

    An address is no danger: only a name can be pointed elsewhere by whoever owns it.
    """
    if host is None or (name := _host(host)) is None:
        return False
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def origin_allowed(origin: str | None, host: str | None, scheme: str) -> bool:
    """Whether ``origin`` is the page of this very server: same scheme, host and port. None and "null" are not."""
    if origin is None or host is None:
        return False
    try:
        page, here = urlsplit(origin), urlsplit(f"{scheme}://{host}")
        ports = [part.port or _PORTS.get(part.scheme) for part in (page, here)]
    except ValueError:
        return False
    return page.scheme == scheme and page.hostname == here.hostname and ports[0] == ports[1]


def _host(header: str) -> str | None:
    """The host of a Host header in lower case, without port and brackets; None where it is malformed."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises for a port that is none
    except ValueError:
        return None
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return parts.hostname
