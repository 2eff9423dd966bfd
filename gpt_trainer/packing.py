"""Documents to full rows of tokens. Importing this needs no torch."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator

PACKING_BUFFER = 1000
"""Pieces of text that compete for the room left in a row."""


def cut(documents: Iterable[list[int]], context: int, bos: int) -> Iterator[list[int]]:
    """Documents cut to at most a row's length, each piece opened by BOS, so that no text is lost."""
    for ids in documents:
        for start in range(0, len(ids), context):
            yield [bos, *ids[start : start + context]]


def pack(pieces: Iterable[list[int]], length: int, bos: int) -> Iterator[list[int]]:
    """Rows of exactly ``length`` tokens, each opened by BOS, by best fit (arXiv 2404.10830).

    The longest waiting piece that fits goes next; where none fits, the shortest is cut and its rest waits as a piece
    of its own. No padding. What cannot fill a last row is left out.
    """
    source, waiting = iter(pieces), list[list[int]]()
    while True:
        for piece in itertools.islice(source, PACKING_BUFFER - len(waiting)):
            bisect.insort(waiting, piece, key=len)
        row: list[int] = []
        while len(row) < length:
            if not waiting:
                return
            room = length - len(row)
            fitting = bisect.bisect_right(waiting, room, key=len)
            if fitting:
                row += waiting.pop(fitting - 1)
            else:
                shortest = waiting.pop(0)
                row += shortest[:room]
                bisect.insort(waiting, [bos, *shortest[room:]], key=len)
        yield row
