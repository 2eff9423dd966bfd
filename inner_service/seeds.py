"""Seeds that the search itself does not evaluate on."""

from __future__ import annotations

import hashlib


def fresh_seeds(purpose: str, seed: int, count: int) -> tuple[int, ...]:
    """``count`` seeds that depend on the purpose and the run's seed and differ from it and from each other."""
    seeds: list[int] = []
    index = 0
    while len(seeds) < count:
        fresh = int(share(f"{purpose} {seed} {index}") * 2**31)
        if fresh != seed and fresh not in seeds:
            seeds.append(fresh)
        index += 1
    return tuple(seeds)


def share(text: str) -> float:
    """A number in [0, 1) that looks random and is the same for the same text, on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32
