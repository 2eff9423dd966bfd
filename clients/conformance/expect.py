"""Expectations that several checks have, in the words in which their violation is reported."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from google.protobuf.message import Message

from clients.conformance.suite import Violated
from clients.conformance.wire import Refusal


def expect(condition: object, otherwise: str) -> None:
    """Raise :class:`Violated` with ``otherwise`` unless the condition holds."""
    if not condition:
        raise Violated(otherwise)


def same(what: str, got: Any, wanted: Any) -> None:
    """Raise :class:`Violated` unless both are equal."""
    if got != wanted:
        raise Violated(f"{what} must be {shown(wanted)}; it is {shown(got)}")


def shown(value: Any) -> str:
    """A value on one line, shortened."""
    text = str(value).strip() if isinstance(value, Message) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 160 else f"{text[:157]}..."


async def refused(
    call: Awaitable[Any], doing: str, code: str, *, reason: str = "", fields: Sequence[str] = ()
) -> Refusal:
    """The refusal of a call that must be refused with ``code`` and, where given, a reason and one of the fields."""
    try:
        answer = await call
    except Refusal as refusal:
        expect(refusal.code == code, f"{doing} must be refused with {code}; it was refused with {refusal}")
        if reason:
            got = refusal.info.reason or "none"
            expect(got == reason, f"{doing} must be refused with the reason {reason}; the reason is {got}")
        if fields:
            wanted, named = " or ".join(fields), ", ".join(refusal.fields) or "no field"
            expect(set(fields) & set(refusal.fields), f"{doing} must be refused naming {wanted}; it names {named}")
        return refusal
    raise Violated(f"{doing} must be refused with {code}; it was answered: {shown(answer) or 'OK'}")


async def wrong_state(call: Awaitable[Any], doing: str) -> Refusal:
    """The refusal of a call that does not fit the state of its resource."""
    return await refused(call, doing, "FAILED_PRECONDITION", reason="WRONG_STATE")


async def invalid(call: Awaitable[Any], doing: str, *fields: str) -> Refusal:
    """The refusal of a call with a wrong field, one of ``fields``."""
    return await refused(call, doing, "INVALID_ARGUMENT", fields=fields)
