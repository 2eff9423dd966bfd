"""What an examination finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    GOOD = "good"
    """As it should be."""
    NOTE = "note"
    """Worth knowing; everything works."""
    BAD = "bad"
    """Something will not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    severity: Severity
    text: str
    """What is the case, in a sentence."""
    advice: str = ""
    """What to do; empty when nothing needs doing."""


def good(subject: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(subject, Severity.GOOD, text)


def note(subject: str, text: str, advice: str = "") -> Finding:
    """Worth knowing."""
    return Finding(subject, Severity.NOTE, text, advice)


def bad(subject: str, text: str, advice: str) -> Finding:
    """Will not work."""
    return Finding(subject, Severity.BAD, text, advice)
