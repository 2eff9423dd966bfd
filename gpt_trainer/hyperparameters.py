"""The benchmark's hyperparameters: their names, ranges and meanings, and which combinations can be built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, cast

from gpt_trainer.architecture import Architecture
from gpt_trainer.presets import Preset
from service_kit.parameters import (
    Configuration,
    InvalidConfiguration,
    Kind,
    Objective,
    Parameter,
    ParameterSpace,
    Scale,
    Value,
    Violation,
)

OBJECTIVE = Objective(
    metric="val_bpb",
    unit="bits/byte",
    documentation="Validation loss in bits per byte of text: independent of the tokeniser, lower is better.",
)

PUBLISHED: Mapping[str, int | float | str | tuple[float, ...]] = {
    "DEPTH": 8,
    "ASPECT_RATIO": 64,
    "HEAD_DIM": 128,
    "WINDOW_PATTERN": "SSSL",
    "TOTAL_BATCH_SIZE": 2**19,
    "EMBEDDING_LR": 0.6,
    "UNEMBEDDING_LR": 0.004,
    "MATRIX_LR": 0.04,
    "SCALAR_LR": 0.5,
    "WEIGHT_DECAY": 0.2,
    "ADAM_BETAS": (0.8, 0.95),
    "WARMUP_RATIO": 0.0,
    "WARMDOWN_RATIO": 0.5,
    "FINAL_LR_FRAC": 0.0,
    "DEVICE_BATCH_SIZE": 128,
}
"""Values of the published training script."""


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """One complete, checked set of values, under the names that the published script uses, in lower case."""

    depth: int
    aspect_ratio: int
    head_dim: int
    window_pattern: str
    total_batch_size: int
    embedding_lr: float
    unembedding_lr: float
    matrix_lr: float
    scalar_lr: float
    weight_decay: float
    adam_betas: tuple[float, float]
    warmup_ratio: float
    warmdown_ratio: float
    final_lr_frac: float
    device_batch_size: int

    @classmethod
    def from_configuration(cls, configuration: Configuration) -> Self:
        """Typed fields of a configuration that :func:`check` has returned."""
        return cls(**{name.lower(): value for name, value in configuration.items()})  # type: ignore[arg-type]

    def architecture(self, preset: Preset) -> Architecture:
        """The model that these values and the preset's data describe."""
        return Architecture(
            depth=self.depth,
            width=self.depth * self.aspect_ratio,
            head_dim=self.head_dim,
            context=preset.context,
            vocabulary=preset.vocabulary,
            window_pattern=self.window_pattern,
        )

    def micro_steps(self, preset: Preset) -> int:
        """Forward-backward passes that one optimiser step accumulates."""
        return self.total_batch_size // (self.device_batch_size * preset.context)


def parameter_space(preset: Preset) -> ParameterSpace:
    """The space of a preset: the published names with the preset's defaults."""
    default = {**PUBLISHED, **preset.hyperparameters}
    width = cast(int, default["DEPTH"]) * cast(int, default["ASPECT_RATIO"])
    batch = cast(int, default["TOTAL_BATCH_SIZE"])
    rows = cast(int, default["DEVICE_BATCH_SIZE"])

    def integer(name: str, low: int, high: int, documentation: str, locked: bool = False) -> Parameter:
        return Parameter(name, Kind.INTEGER, default[name], documentation, locked, low, high, Scale.LOG2)

    def rate(name: str, low: float, high: float, documentation: str) -> Parameter:
        return Parameter(name, Kind.REAL, default[name], documentation, False, low, high, Scale.LOG10)

    def fraction(name: str, documentation: str, high: float = 1.0) -> Parameter:
        return Parameter(name, Kind.REAL, default[name], documentation, False, 0.0, high)

    return ParameterSpace(
        parameters=(
            integer("DEPTH", 1, 64, "Transformer layers. Locked: the search tunes training, not model size.", True),
            integer("ASPECT_RATIO", 8, 256, "Width as a multiple of DEPTH. Locked with it.", True),
            integer("HEAD_DIM", 8, width, f"Channels of an attention head; an even divisor of the width {width}."),
            Parameter(
                "WINDOW_PATTERN",
                Kind.TEXT,
                default["WINDOW_PATTERN"],
                "Attention window of each layer, repeated: S sees half the context, L all of it; the last layer all.",
                max_length=16,
                pattern="[SL]+",
            ),
            integer(
                "TOTAL_BATCH_SIZE",
                max(preset.context, batch // 64),
                batch * 16,
                "Tokens of one optimiser step. Smaller means more steps in the same budget.",
            ),
            rate(
                "EMBEDDING_LR",
                1e-3,
                10.0,
                "AdamW learning rate of the token and value embeddings, scaled by (width/768)^-0.5.",
            ),
            rate("UNEMBEDDING_LR", 1e-5, 1.0, "AdamW learning rate of the output matrix, scaled by (width/768)^-0.5."),
            rate("MATRIX_LR", 1e-4, 1.0, "Muon learning rate of the matrices inside the blocks."),
            rate(
                "SCALAR_LR",
                1e-3,
                10.0,
                "AdamW learning rate of the per-layer x0 scalars; the residual scalars take a hundredth.",
            ),
            fraction(
                "WEIGHT_DECAY", "Cautious weight decay of the Muon matrices; falls linearly to 0 over the budget.", 2.0
            ),
            Parameter(
                "ADAM_BETAS",
                Kind.LIST,
                default["ADAM_BETAS"],
                "AdamW decay rates of the first and second moment.",
                minimum=0.0,
                maximum=0.9999,
                length=2,
            ),
            fraction("WARMUP_RATIO", "Fraction of the budget over which learning rates rise from 0."),
            fraction("WARMDOWN_RATIO", "Fraction of the budget, at its end, over which learning rates fall."),
            fraction("FINAL_LR_FRAC", "Learning rate at the end of the budget, as a fraction of its peak."),
            integer(
                "DEVICE_BATCH_SIZE",
                1,
                rows * 16,
                "Rows of one forward-backward pass: memory and speed, not the size of a step.",
            ),
        ),
        constraints=(
            f"HEAD_DIM must be even and divide the locked width {width}.",
            f"TOTAL_BATCH_SIZE must be a multiple of DEVICE_BATCH_SIZE * {preset.context} tokens (the context).",
        ),
    )


def check(preset: Preset, changes: Mapping[str, object]) -> dict[str, Value]:
    """Complete ``changes`` with the preset's defaults and check ranges and combinations.

    Raises InvalidConfiguration with every violation: unknown, locked, out of range, or a combination that cannot be
    built, each with the values that are allowed.
    """
    configuration = parameter_space(preset).validate(changes)
    values = Hyperparameters.from_configuration(configuration)
    violations = [*_head_violations(values), *_batch_violations(values, preset.context)]
    if violations:
        raise InvalidConfiguration(violations)
    return configuration


def _head_violations(values: Hyperparameters) -> list[Violation]:
    width = values.depth * values.aspect_ratio
    if width % values.head_dim == 0 and values.head_dim % 2 == 0:
        return []
    allowed = ", ".join(str(d) for d in range(8, width + 1, 2) if width % d == 0)
    return [
        Violation("HEAD_DIM", f"must be even and divide the width {width}: one of {allowed}; got {values.head_dim}")
    ]


def _batch_violations(values: Hyperparameters, context: int) -> list[Violation]:
    total, rows = values.total_batch_size, values.device_batch_size
    if total % (rows * context) == 0:
        return []
    problem = f"{total} is not a multiple of DEVICE_BATCH_SIZE * context = {rows} * {context} = {rows * context} tokens"
    if total % context:
        return [Violation("TOTAL_BATCH_SIZE", f"{problem}; set TOTAL_BATCH_SIZE to a multiple of {rows * context}")]
    divisors = [d for d in range(1, rows + 1) if (total // context) % d == 0]
    remedy = f"set DEVICE_BATCH_SIZE to at most {divisors[-1]} (one of {', '.join(map(str, reversed(divisors)))})"
    return [
        Violation("TOTAL_BATCH_SIZE", f"{problem}; {remedy}, or TOTAL_BATCH_SIZE to a multiple of {rows * context}")
    ]
