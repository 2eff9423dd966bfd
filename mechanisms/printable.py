"""Text that came out of a sandbox, made fit for terminals, pages and prompts."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` without control, invisible and direction characters, and without lone surrogates; line ends stay."""
    return "".join(c for c in text if c.isprintable() or c == "\n")


def one_line(text: str, limit: int) -> str:
    """``text`` as one line of at most ``limit`` characters."""
    return " ".join(printable(text[: 2 * limit].replace("\n", " ")).split())[:limit]
