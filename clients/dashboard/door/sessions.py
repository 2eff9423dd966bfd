"""Sessions: signed cookies that expire, end with a logout, and end when the password changes."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from itsdangerous import BadSignature, URLSafeTimedSerializer

from clients.dashboard.door.settings import Access, DoorSettings

FORM_SECONDS = 3600
"""How long a form may stay open before it is sent."""
MOST_ENDED = 100_000
"""Ended sessions that are remembered; beyond it everyone logs in again."""


@dataclass(frozen=True, slots=True)
class Session:
    """Someone who is let in."""

    identity: str
    """Random; nothing is known of a person."""
    access: Access
    expires: float
    """Seconds since the epoch."""
    key: bytes = b""
    """The signing key of its time; empty where nobody has to log in."""

    @property
    def by_login(self) -> bool:
        """Whether there is a login, and so a way out."""
        return bool(self.key)


class Sessions:
    """Makes and reads session cookies and form tokens.

    The signing key is random, in memory only, so that a restart ends every session; it depends on the passwords too, so
    that a changed one does.
    """

    def __init__(self, settings: DoorSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._ended: dict[str, float] = {}

    def begin(self, access: Access) -> str:
        """The cookie of a new session."""
        expires = self._clock() + self._settings.lifetime.total_seconds()
        return str(_serializer(self._key(), "session").dumps([secrets.token_urlsafe(18), access.value, expires]))

    def read(self, cookie: str) -> Session | None:
        """The session of ``cookie``; None for one that is forged, expired or ended.

        Raises :class:`ServiceError` for a password file that cannot be read, as all methods do.
        """
        key = self._key()
        try:
            identity, access, expires = _serializer(key, "session").loads(cookie)
        except BadSignature:
            return None
        session = Session(identity, Access(access), expires, key)
        return session if self.alive(session) else None

    def alive(self, session: Session) -> bool:
        """Whether it has neither expired nor been ended, and the passwords are those of its beginning."""
        return session.expires > self._clock() and session.identity not in self._ended and session.key == self._key()

    def end(self, session: Session) -> None:
        """Log out: the cookie is worth nothing from now on, wherever it is."""
        now = self._clock()
        self._ended = {identity: expires for identity, expires in self._ended.items() if expires > now}
        if len(self._ended) >= MOST_ENDED:
            self._secret, self._ended = secrets.token_bytes(32), {}
        self._ended[session.identity] = session.expires

    def form_token(self, bound_to: str) -> str:
        """A token for one form of the browser that holds ``bound_to``: a session's identity, or a cookie before it."""
        return str(_serializer(self._key(), "form").dumps(bound_to))

    def form_token_holds(self, token: str, bound_to: str) -> bool:
        try:
            value = _serializer(self._key(), "form").loads(token, max_age=FORM_SECONDS)
        except BadSignature:
            return False
        return bool(bound_to) and isinstance(value, str) and secrets.compare_digest(value.encode(), bound_to.encode())

    def _key(self) -> bytes:
        return hashlib.sha256(self._secret + b"".join(self._settings.digests().values())).digest()


def _serializer(key: bytes, salt: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(key, salt, signer_kwargs={"digest_method": hashlib.sha256})
