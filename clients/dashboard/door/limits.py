"""How often one address may try to log in, and how much one session may ask for."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections import Counter
from collections.abc import Iterator

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

LOGINS = (RateLimitItemPerMinute(5), RateLimitItemPerHour(30))
"""Failed attempts of one address."""
REQUESTS = RateLimitItemPerMinute(1200)
"""Requests of one session, or of one address without a session: a page is some thirty files."""
ACTIONS = RateLimitItemPerSecond(200, 5)
"""Messages of one session's sockets."""
SOCKETS = 32
"""Open sockets of one session, which is open pages."""


class Limits:
    """Counts in this process; moving windows."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._sockets: Counter[str] = Counter()

    def login(self, address: str) -> float | None:
        """Seconds to wait before an attempt to log in, after too many that failed; None where it may be made."""
        who = network(address)
        waits = [self._wait(item, "login", who) for item in LOGINS if not self._limiter.test(item, "login", who)]
        return max(waits, default=None)

    def login_failed(self, address: str) -> None:
        """Count an attempt to log in that failed."""
        for item in LOGINS:
            self._limiter.hit(item, "login", network(address))

    def request(self, who: str) -> float | None:
        """Count a request; seconds to wait where it is one too many, else None."""
        return self._over("request", who, REQUESTS)

    async def action(self, who: str) -> None:
        """Count a message; one too many waits for its turn, and so does whoever sends it."""
        while (seconds := self._over("action", who, ACTIONS)) is not None:  # noqa: ASYNC110 (a time is waited for)
            await asyncio.sleep(seconds)

    @contextlib.contextmanager
    def socket(self, who: str) -> Iterator[bool]:
        """A place for one socket; yields whether there is one."""
        if self._sockets[who] >= SOCKETS:
            yield False
            return
        self._sockets[who] += 1
        try:
            yield True
        finally:
            self._sockets[who] -= 1
            if not self._sockets[who]:
                del self._sockets[who]

    def _over(self, kind: str, who: str, *items: RateLimitItem) -> float | None:
        for item in items:
            if not self._limiter.hit(item, kind, who):
                return self._wait(item, kind, who)
        return None

    def _wait(self, item: RateLimitItem, kind: str, who: str) -> float:
        return max(0.05, self._limiter.get_window_stats(item, kind, who).reset_time - time.time())


def network(address: str) -> str:
    """The address; of IPv6 its /64, of which one machine has every address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
