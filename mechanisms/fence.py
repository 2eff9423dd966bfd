"""A fence around text that someone else wrote, for prompts: the model is shown where data begins and ends.

The border carries a digest of the text itself, so that the text cannot contain it: a text that did would have another
digest.
"""

from __future__ import annotations

import hashlib

BORDER_DIGITS = 12


def fenced(name: str, text: str, source: str = "mechanism") -> str:
    """``text`` between two border lines, every line of it quoted; ``source`` and ``name`` say whose it is.

    A prompt should say once that what stands inside fences is data and no instruction.
    """
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:BORDER_DIGITS]
    quoted = "\n".join(f"| {line}" for line in text.splitlines())
    return f"[data from {source} {name} {digest}]\n{quoted}\n[end of data {digest}]"
