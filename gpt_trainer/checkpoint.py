"""A trained model in one file, with everything that is needed to use it: shape, tokeniser, origin.

The file holds tensors and plain values only and is read with ``weights_only``: loading it runs no code. It carries
hashes of its weights and its tokeniser, and what does not match is refused.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt_trainer.architecture import Architecture
from gpt_trainer.model import GPT
from gpt_trainer.tokenizer import Tokenizer
from service_kit.errors import InvalidArgument, NotFound

FORMAT = 1
"""Raised whenever the file's fields change."""

FIELDS = {"format", "architecture", "weights", "weights_sha256", "tokenizer", "tokenizer_identity", "facts"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on the CPU and where it comes from."""

    model: GPT
    tokenizer: Tokenizer
    facts: Mapping[str, str]
    """The result's lines: val_bpb, corpus, configuration, seed, code and so on."""


def save(path: Path, model: GPT, tokenizer: Tokenizer, facts: Mapping[str, str]) -> None:
    """Write a checkpoint to ``path``; it appears complete or not at all, also after a crash."""
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    content = {
        "format": FORMAT,
        "architecture": asdict(model.architecture),
        "weights": weights,
        "weights_sha256": _digest(weights),
        "tokenizer": tokenizer.to_json(),
        "tokenizer_identity": tokenizer.identity(),
        "facts": {name: str(fact) for name, fact in facts.items()},  # plain strings, no subclass of theirs
    }
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: Path, compute: torch.dtype = torch.float32) -> Checkpoint:
    """Read what :func:`save` wrote, to be computed in ``compute``.

    Raises NotFound, and InvalidArgument for a file that is foreign or damaged.
    """
    if not path.is_file():
        raise NotFound("checkpoint", str(path), hint="Keep one: python -m gpt_trainer train --keep PATH")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _refused(path, "it is no checkpoint of this trainer, or damaged") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not set(content) >= FIELDS:
        raise _refused(path, f"it is not of format {FORMAT}")
    if _digest(content["weights"]) != content["weights_sha256"]:
        raise _refused(path, "its weights are not the ones that were written")
    tokenizer = Tokenizer.from_json(content["tokenizer"])
    if tokenizer.identity() != content["tokenizer_identity"]:
        raise _refused(path, "its tokeniser is not the one that was written")
    model = GPT(Architecture(**content["architecture"]), compute)
    try:
        model.load_state_dict(content["weights"])
    except RuntimeError as error:
        raise _refused(path, "its weights do not fit its architecture") from error
    return Checkpoint(model, tokenizer, content["facts"])


def _refused(path: Path, reason: str) -> InvalidArgument:
    return InvalidArgument.of("checkpoint", f"{path} cannot be used: {reason}", hint="Train it again with --keep.")


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        header: tuple[Any, ...] = (name, str(tensor.dtype), tuple(tensor.shape))
        digest.update(repr(header).encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
