"""How many runs or campaigns one token may have: at work at a time, and kept in all."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from service_kit.errors import Exhausted
from service_kit.settings import EnvironmentSettings


class Quota(EnvironmentSettings):
    """The limits of a service; 0 sets none. Without tokens all callers together are one."""

    active: int = Field(0, alias="BILEVEL_MAX_ACTIVE_RUNS", ge=0)
    stored: int = Field(0, alias="BILEVEL_MAX_STORED_RUNS", ge=0)

    @property
    def limited(self) -> bool:
        """Whether there is anything to count."""
        return bool(self.active or self.stored)

    def check(self, kind: str, owner: str, ended: Iterable[bool]) -> None:
        """Raise :class:`Exhausted` unless ``owner`` may have one more beside those that it has.

        ``kind`` is their plural, such as ``runs``; ``ended`` says of each whether nothing can happen to it any more.
        """
        states = list(ended)
        active, stored = states.count(False), len(states)
        whose = f"of the token {owner!r}" if owner else "of callers without a token"
        if self.active and active >= self.active:
            hint = "Cancel one or let one finish; the operator can raise BILEVEL_MAX_ACTIVE_RUNS."
            raise Exhausted(f"active {kind} {whose}", self.active, hint, current=active)
        if self.stored and stored >= self.stored:
            hint = "Nothing that is stored goes away by itself: the operator can raise BILEVEL_MAX_STORED_RUNS."
            raise Exhausted(f"stored {kind} {whose}", self.stored, hint, current=stored)


NO_LIMIT = Quota.model_construct(active=0, stored=0)
