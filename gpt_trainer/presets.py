"""The sizes at which the benchmark is run: defaults, data and budgets that belong together."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from service_kit.errors import InvalidArgument

STANDARD_LIBRARY = "standard-library"
"""Corpus name: the text of the running Python's own standard library."""

CLIMBMIX = "climbmix"
"""Corpus name: the shards of karpathy/climbmix-400b-shuffle."""

LONGEST_BUDGET = 86_400.0
"""Seconds of training that one trial may ask for."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One size of the benchmark. Hyperparameters that a preset does not name keep the published script's values."""

    name: str
    summary: str
    context: int
    """Tokens a row."""
    vocabulary: int
    """Tokens of the BPE, special tokens included."""
    corpus: str
    budgets: Mapping[str, float]
    """Named training budgets in seconds of the preset's clock; ``full`` is the default."""
    evaluation_tokens: int
    """Validation tokens of a measurement, always the same ones."""
    estimate_tokens: int
    """Validation tokens of an estimate on the way: the first ones of a measurement."""
    hyperparameters: Mapping[str, int | str] = field(default_factory=dict)
    """What differs from the published script."""
    estimates_at: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Shares of the budget after which the metric is estimated; empty for never."""


PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="laptop",
            summary="0.3 M parameters on Python's own standard library: an experiment in seconds on one CPU core",
            context=128,
            vocabulary=1024,
            corpus=STANDARD_LIBRARY,
            budgets={"short": 4.0, "full": 8.0, "long": 16.0},
            evaluation_tokens=384 * 128,
            estimate_tokens=32 * 128,
            hyperparameters={
                "DEPTH": 2,
                "ASPECT_RATIO": 32,
                "HEAD_DIM": 32,
                "TOTAL_BATCH_SIZE": 2**13,
                "DEVICE_BATCH_SIZE": 32,
            },
        ),
        Preset(
            name="workstation",
            summary="7 M parameters on Python's own standard library: an experiment in minutes on a small GPU",
            context=512,
            vocabulary=4096,
            corpus=STANDARD_LIBRARY,
            budgets={"short": 60.0, "full": 300.0},
            evaluation_tokens=256 * 512,
            estimate_tokens=32 * 512,
            hyperparameters={
                "DEPTH": 4,
                "ASPECT_RATIO": 64,
                "HEAD_DIM": 64,
                "TOTAL_BATCH_SIZE": 2**16,
                "DEVICE_BATCH_SIZE": 32,
            },
        ),
        Preset(
            name="karpathy",
            summary="50 M parameters on ClimbMix: the published benchmark, five minutes of one data-centre GPU",
            context=2048,
            vocabulary=8192,
            corpus=CLIMBMIX,
            budgets={"short": 60.0, "full": 300.0},
            evaluation_tokens=40 * 2**19,
            estimate_tokens=2**19,
        ),
    )
}


def find_preset(name: str) -> Preset:
    """The preset called ``name``. Raises InvalidArgument with the nearest known name."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"Did you mean {near[0]}?" if near else "`python -m gpt_trainer presets` shows what each is."
        raise InvalidArgument.of("--preset", f"must be one of {', '.join(PRESETS)}; got {name!r}", hint=hint)
    return PRESETS[name]


def budget_seconds(preset: Preset, text: str) -> float:
    """Read a budget: one of the preset's names, such as ``short`` and ``full``, or a number of seconds. Raises
    InvalidArgument."""
    if text in preset.budgets:
        return preset.budgets[text]
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= LONGEST_BUDGET:
        names = ", ".join(f"{name} ({value:g} s)" for name, value in preset.budgets.items())
        allowed = f"{names} or a number of seconds above 0 and at most {LONGEST_BUDGET:g}"
        raise InvalidArgument.of("--budget", f"must be {allowed}; got {text!r}")
    return seconds
