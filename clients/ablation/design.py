"""What an ablation runs: groups, repeats with paired seeds, and the order in time.

Every repeat is a block that holds each group once, all on the same seed, so that differences between groups are paired
within it. The order of the groups within a block is drawn anew for every block from the ablation's seed: what drifts
with time (a warming machine, a busy endpoint) does not fall on one group.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from service_kit.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Group:
    """One way of searching."""

    name: str
    levels: tuple[str, ...]
    """Levels above the first."""
    words: str
    control: str = ""
    """What takes the place of level 2's research; empty for research."""


GROUPS: Mapping[str, Group] = {
    group.name: group
    for group in (
        Group("A", (), "level 1 alone"),
        Group("B", ("1.5",), "levels 1 and 1.5"),
        Group("C", ("1.5", "2"), "levels 1, 1.5 and 2"),
        Group("D", ("2",), "levels 1 and 2"),
        Group("noop", ("2",), "as D, but what is installed does nothing", "noop"),
        Group("restart", ("2",), "as D, but the history is cleared instead", "restart"),
    )
}
"""The paper's groups and the controls."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the ablation."""

    group: Group
    repeat: int
    """Counts from 1."""
    seed: int

    @property
    def title(self) -> str:
        return f"{self.group.name}, repeat {self.repeat}"


@dataclass(frozen=True, slots=True)
class Design:
    """Everything that decides what is run. Two ablations with equal designs are the same experiment."""

    task: str = "gpt"
    groups: tuple[str, ...] = tuple(GROUPS)
    repeats: int = 10
    trials: int = 30
    seed: int = 0
    confirmation_seeds: int = 3
    configuration_every: int = 5
    mechanism_every: int = 10
    own_services: bool = False
    """Whether services are started for it, and stopped with it."""
    researcher: str = ""
    """Model that answers; empty where the services decide it."""
    trainer: tuple[str, ...] = field(default=())
    """Options of the trainer that was started for it; none for services that run already."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.groups if name not in GROUPS]
        if unknown or not self.groups or len(set(self.groups)) != len(self.groups):
            known = ", ".join(GROUPS)
            raise InvalidArgument.of("--groups", f"must be some of {known}, each once; got {', '.join(self.groups)!r}")
        if self.mechanism_every % self.configuration_every:
            said = f"must be a multiple of --configuration-every ({self.configuration_every})"
            raise InvalidArgument.of("--mechanism-every", f"{said}; got {self.mechanism_every}")

    def seed_of(self, repeat: int) -> int:
        """The seed of a repeat, the same for every group: 31 bits."""
        digest = hashlib.sha256(f"ablation {self.seed} repeat {repeat}".encode()).digest()
        return int.from_bytes(digest[:4]) >> 1

    def schedule(self) -> tuple[Cell, ...]:
        """Every run, in the order in which they begin."""
        cells: list[Cell] = []
        for repeat in range(1, self.repeats + 1):
            block = list(self.groups)
            random.Random(f"order {self.seed} {repeat}").shuffle(block)  # noqa: S311 (an order is no secret)
            cells += [Cell(GROUPS[name], repeat, self.seed_of(repeat)) for name in block]
        return tuple(cells)

    @property
    def evaluations(self) -> int:
        """Evaluations of the whole ablation, at most: baselines, trials and confirmations."""
        return len(self.groups) * self.repeats * (1 + self.trials + 2 * self.confirmation_seeds)

    def differences(self, other: Design) -> list[str]:
        """What another design has otherwise, in words."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return [f"{name} is {_word(old)}, not {_word(new)}" for name, old, new in pairs if old != new]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`. Raises TypeError for what is none."""
        fields_: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        return cls(**fields_)


def _word(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value)) or "none"
    return str(value) or "none"
