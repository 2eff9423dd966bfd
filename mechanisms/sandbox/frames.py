"""Frames: a four-byte big-endian length, then that many bytes of UTF-8 JSON. Both sides speak it over pipes."""

from __future__ import annotations

import json
import os
from typing import Any

HEADER_BYTES = 4
MAX_DIGITS = 25


class FrameError(Exception):
    """A frame is too large, cut off or no JSON object."""


class FrameTooLarge(FrameError):
    """A frame is longer than its cap."""


def encode(message: dict[str, Any], limit: int) -> bytes:
    """The frame of ``message``; raises :class:`FrameTooLarge`."""
    body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(body) > limit:
        raise FrameTooLarge(f"a frame of {len(body)} bytes; at most {limit} are allowed")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_length(header: bytes, limit: int) -> int:
    """How many bytes follow ``header``; raises :class:`FrameTooLarge`."""
    length = int.from_bytes(header, "big")
    if length > limit:
        raise FrameTooLarge(f"a frame of {length} bytes; at most {limit} are allowed")
    return length


def decode(body: bytes) -> dict[str, Any]:
    """The JSON object in ``body``. NaN and infinities are no JSON. Raises :class:`FrameError`."""
    try:
        message = json.loads(body, parse_constant=_no_constant, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {error}") from None
    if type(message) is not dict:
        raise FrameError("not a JSON object")
    return message


def _integer(digits: str) -> int:
    # Longer than any that an honest side sends, and too large for arithmetic with floats.
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


# The worker's side: plain blocking descriptors, no buffering, no objects that a mechanism could reach.


def read_frame(descriptor: int, limit: int) -> dict[str, Any] | None:
    """The next message, or None at the end of the stream."""
    header = _read_exactly(descriptor, HEADER_BYTES)
    if header is None:
        return None
    body = _read_exactly(descriptor, body_length(header, limit))
    return decode(body) if body is not None else None


def write_frame(descriptor: int, message: dict[str, Any], limit: int) -> None:
    """Write one message completely."""
    rest = memoryview(encode(message, limit))
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _read_exactly(descriptor: int, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = os.read(descriptor, min(65536, count - len(parts)))
        if not part:
            return None
        parts += part
    return bytes(parts)
