"""What the researcher makes of a free text: the same text with one sentence of a fixed list more, or less."""

from __future__ import annotations

from collections.abc import Sequence

SENTENCES = (
    "Write beautifully.",
    "Give an example.",
    "Use short sentences.",
    "Begin with the main point.",
    "Say what is uncertain.",
    "Write for an expert.",
)
"""Advice that anyone gives to a writer; which of it helps is for the search to find out."""


def variants(text: str, max_length: int) -> Sequence[str]:
    """``text`` with each sentence toggled, as far as that fits."""
    toggled = [
        text.replace(f" {sentence}", "") if f" {sentence}" in text else f"{text} {sentence}" for sentence in SENTENCES
    ]
    return [changed for changed in toggled if 1 <= len(changed) <= max_length]
