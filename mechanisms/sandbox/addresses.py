"""Addresses that differ from process to process, so that an answer which follows them shows in a replay.

Without this, two workers that do the same work can lay their objects out alike: address space randomisation moves whole
pages, which leaves the low bits of an address, and with them the order of a small set, as they were; and where it is
switched off nothing moves at all.
"""

from __future__ import annotations

import random

_HEADER_BYTES = bytes(0).__sizeof__()
# The size classes of CPython's allocator for small objects (Objects/obmalloc.c); larger ones come from the C library.
_ALIGNMENT, _LARGEST = 16, 512
_BLOCKS = 256


def scatter(generator: random.Random) -> list[bytes]:
    """Take blocks of every small size and free about half of them in random order: the next objects fall in between.

    Returns the blocks that are kept; they must live as long as the process.
    """
    kept: list[bytes] = []
    for size in range(3 * _ALIGNMENT, _LARGEST + 1, _ALIGNMENT):
        blocks = [bytes(size - _HEADER_BYTES) for _ in range(_BLOCKS + generator.randrange(_BLOCKS))]
        generator.shuffle(blocks)
        half = len(blocks) // 2
        kept += blocks[:half]
        # The list goes at the end of the pass and frees the other half in the order of the shuffle.
    return kept
