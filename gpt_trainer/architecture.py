"""The shape of a model, derived from hyperparameters. Pure arithmetic: importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

GATE_CHANNELS = 32
"""How many channels of the normalised residual stream the value-embedding gate reads."""

MLP_RATIO = 4
"""Hidden width of the MLP as a multiple of the model's width."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Everything that decides which tensors a model has."""

    depth: int
    width: int
    head_dim: int
    """Channels of one attention head; divides ``width``."""
    context: int
    """Tokens a row; attention never looks further back."""
    vocabulary: int
    window_pattern: str
    """One letter a layer, repeated: S sees half the context, L all of it. The last layer always sees all."""

    @property
    def heads(self) -> int:
        return self.width // self.head_dim

    @property
    def gate_channels(self) -> int:
        return min(GATE_CHANNELS, self.width)

    @property
    def windows(self) -> tuple[int, ...]:
        """How many tokens before its own each layer looks back."""
        sizes = {"S": max(1, self.context // 2), "L": self.context}
        pattern = [self.window_pattern[layer % len(self.window_pattern)] for layer in range(self.depth)]
        return (*(sizes[letter] for letter in pattern[:-1]), self.context)

    @property
    def value_layers(self) -> tuple[int, ...]:
        """Layers that mix a value embedding into their values: every second one, counted back from the last."""
        return tuple(layer for layer in range(self.depth) if layer % 2 == (self.depth - 1) % 2)

    @property
    def matrix_parameters(self) -> int:
        """Parameters of the transformer blocks: the ones that Muon updates."""
        block = (4 + 2 * MLP_RATIO) * self.width**2
        return self.depth * block + len(self.value_layers) * self.heads * self.gate_channels

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the token table and the value tables, which are looked up and never multiplied."""
        return (1 + len(self.value_layers)) * self.vocabulary * self.width

    @property
    def unembedding_parameters(self) -> int:
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        return self.matrix_parameters + self.embedding_parameters + self.unembedding_parameters + 2 * self.depth

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs a token as utilisation is counted: 6 a weight, 12 a channel and window position."""
        attention = sum(12 * self.width * window for window in self.windows)
        return 6.0 * (self.matrix_parameters + self.unembedding_parameters) + attention
