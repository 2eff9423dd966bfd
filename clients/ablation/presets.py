"""Sizes at which an ablation is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service_kit.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Size:
    """What is run where nothing else is said."""

    trials: int = 30
    repeats: int = 10
    confirm: int = 3
    parallel: int = 1
    configuration_every: int = 5
    mechanism_every: int = 10
    trainer: str = ""
    """Preset of the trainer that is started."""
    budget: str = "full"

    def options(self, budget: str) -> tuple[str, ...]:
        """Options of ``gpt_trainer serve``."""
        return ("--preset", self.trainer, "--budget", budget or self.budget)


SIZE = Size()
"""On services that run already: the paper's trials and intervals, with more repeats."""
PRESETS: Mapping[str, Size] = {
    # Two CPU cores, minutes: half of the trainer's short budget, and earlier looks, so that a run of 12 trials has some
    # left after the first mechanism.
    "laptop": Size(12, 2, 1, 2, 4, 8, "laptop", "2"),
    # One small GPU, hours.
    "workstation": Size(30, 3, 2, 1, 5, 10, "workstation", "short"),
    # The published benchmark: one data-centre GPU for more than a week.
    "paper": Size(trainer="karpathy"),
}


def find_preset(name: str) -> Size:
    """Raises :class:`InvalidArgument` with the names that there are."""
    if name not in PRESETS:
        raise InvalidArgument.of("--preset", f"must be one of {', '.join(PRESETS)}; got {name!r}")
    return PRESETS[name]
