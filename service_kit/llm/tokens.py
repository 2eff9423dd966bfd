"""How many tokens a text will be, before any endpoint has counted it.

No tokeniser runs here: each model has its own, and most are not at hand offline. The estimate leans to the high side,
so that a budget is not exceeded and a context not overfull because of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from service_kit.llm.failures import Message

ASCII_CHARACTER = 1 / 3
"""Tokens for an ASCII character. English text is near 1/4, JSON and Python near 1/3; DeepSeek's documentation says 0.3
(https://api-docs.deepseek.com/quick_start/token_usage)."""
OTHER_CHARACTER = 1.0
"""Tokens for any other character; the same page says 0.6 for a Chinese one."""
MESSAGE = 8
"""Tokens that a message costs beside its text: role and separators."""


def estimate(text: str) -> int:
    """Tokens of a text, on the high side."""
    plain = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return math.ceil(plain * ASCII_CHARACTER + (len(text) - plain) * OTHER_CHARACTER)


def at_least(characters: int) -> int:
    """Tokens below which :func:`estimate` is for no text of so many characters."""
    return math.floor(characters * ASCII_CHARACTER)


def estimate_messages(messages: Sequence[Message]) -> int:
    """Tokens of a conversation, on the high side."""
    return sum(estimate(message.content) + MESSAGE for message in messages)
