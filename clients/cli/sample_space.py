"""The space on which ``bilevel mechanisms check`` replays a synthetic history when no run is named.

Karpathy's hyperparameter names, one parameter of each kind: what the published benchmark lets a search change. The
trainer's own space, with its exact ranges, is the one of a run (``--run``).
"""

from __future__ import annotations

from service_kit.parameters import Direction, Kind, Objective, Parameter, ParameterSpace, Scale

OBJECTIVE = Objective("val_bpb", Direction.MINIMIZE, "bits/byte", "Validation loss of a small GPT.")


def _power(name: str, default: int, low: int, high: int, words: str) -> Parameter:
    return Parameter(name, Kind.INTEGER, default, words, minimum=low, maximum=high, scale=Scale.LOG2)


def _rate(name: str, default: float, words: str) -> Parameter:
    return Parameter(name, Kind.REAL, default, words, minimum=1e-4, maximum=10.0, scale=Scale.LOG10)


def _share(name: str, default: float, words: str) -> Parameter:
    return Parameter(name, Kind.REAL, default, words, minimum=0.0, maximum=1.0)


SPACE = ParameterSpace(
    (
        Parameter("DEPTH", Kind.INTEGER, 8, "Transformer layers.", locked=True, minimum=1, maximum=32),
        _power("TOTAL_BATCH_SIZE", 2**13, 2**9, 2**19, "Tokens of one optimiser step."),
        _power("DEVICE_BATCH_SIZE", 32, 1, 256, "Rows of one forward and backward pass."),
        Parameter("WINDOW_PATTERN", Kind.TEXT, "SSSL", "Attention windows.", max_length=32, pattern="[SL]+"),
        _rate("EMBEDDING_LR", 0.6, "Learning rate of embeddings."),
        _rate("UNEMBEDDING_LR", 0.004, "Learning rate of the output layer."),
        _rate("MATRIX_LR", 0.04, "Learning rate of matrices."),
        Parameter("ADAM_BETAS", Kind.LIST, (0.8, 0.95), "Adam's averages.", minimum=0.0, maximum=0.999, length=2),
        _share("WEIGHT_DECAY", 0.2, "Pull of matrices towards zero."),
        _share("WARMUP_RATIO", 0.0, "Share of the budget for warming up."),
        _share("WARMDOWN_RATIO", 0.5, "Share of the budget for warming down."),
        Parameter("HEAD_DIM", Kind.CATEGORICAL, 32, "Width of an attention head.", choices=(16, 32, 64)),
    )
)
