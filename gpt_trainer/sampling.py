"""Text from a model, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt_trainer.kernels import SOFT_CAP
from gpt_trainer.model import GPT
from gpt_trainer.tokenizer import Tokenizer


def continue_text(
    model: GPT, tokenizer: Tokenizer, prompt: str, tokens: int, temperature: float, seed: int
) -> tuple[str, bool]:
    """At most ``tokens`` tokens after ``prompt`` as text, and whether the model ended the document by itself.

    ``temperature`` divides the logits; 0 always takes the likeliest token. The same seed gives the same text on the
    same device.
    """
    (ids,) = tokenizer.encode([prompt])
    generated: list[int] = []
    generator = torch.Generator().manual_seed(seed)
    for _ in range(tokens):
        token = choose(next_logits(model, [*ids, *generated], tokenizer.bos), temperature, generator)
        if token == tokenizer.bos:
            return tokenizer.decode(generated), True
        generated.append(token)
    return tokenizer.decode(generated), False


@torch.no_grad()
def next_logits(model: GPT, ids: Sequence[int], bos: int) -> Tensor:
    """Soft-capped logits [V] of the token after ``ids``, float32 on the CPU.

    As in training, the row begins with BOS and has the full context, of which the newest tokens are kept. What pads it
    on the right is never seen by the position that is read.
    """
    context = model.architecture.context
    row = [bos, *ids[max(0, len(ids) - (context - 1)) :]]
    padded = torch.tensor([row + [bos] * (context - len(row))], device=model.embedding.device)
    logits = model(padded)[0, len(row) - 1].float().cpu()
    return SOFT_CAP * torch.tanh(logits / SOFT_CAP)


def choose(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    """A token, drawn with softmax(logits / temperature); the likeliest for a temperature of 0."""
    if temperature == 0.0:
        return int(logits.argmax())
    return int(torch.multinomial(torch.softmax(logits / temperature, 0), 1, generator=generator))
