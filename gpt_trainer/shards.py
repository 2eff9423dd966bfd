"""ClimbMix, the corpus of the published benchmark: parquet shards from the Hugging Face Hub.

The last shard of the dataset is pinned for validation, however many others train. Whole shards that arrived stay, a
broken connection is taken up where it broke, and every shard is checked against the hub's SHA-256. Importing this needs
neither torch nor the network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpt_trainer.text_files import file_digest
from service_kit.errors import InvalidArgument, ServiceError, Unavailable

REPOSITORY = "karpathy/climbmix-400b-shuffle"
"""Dataset on the hub; HF_ENDPOINT names another hub, HF_TOKEN a token, as huggingface_hub documents."""

DEFAULT_SHARDS = 10
"""Training shards of a first download: about an epoch of five minutes on a data-centre GPU."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One file as the hub lists it."""

    name: str
    bytes: int
    sha256: str


def download_shards(folder: Path, count: int, announce: Callable[[str], None]) -> list[Path]:
    """Bring the first ``count`` shards and the last one of the dataset into ``folder``; returns them in order.

    What is there and whole is not fetched again. Raises InvalidArgument for a count that the dataset has not,
    Unavailable when the hub cannot be reached, ServiceError when a shard arrives damaged twice.
    """
    revision, shards = _list_shards()
    if not 1 <= count < len(shards):
        raise InvalidArgument.of("--shards", f"must be from 1 to {len(shards) - 1}; got {count}")
    wanted = [shards[-1], *shards[:count]]  # the pinned one first: without it nothing can be measured
    for number, shard in enumerate(wanted, 1):
        path = folder / shard.name
        if path.is_file() and file_digest(path).hex() == shard.sha256:
            continue
        announce(f"downloading {shard.name}, {shard.bytes / 1e6:.0f} MB ({number} of {len(wanted)})")
        _download(shard, revision, folder)
    return sorted(folder / shard.name for shard in wanted)


def _list_shards() -> tuple[str, list[Shard]]:
    """The dataset's newest commit and its shards in order."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(REPOSITORY, files_metadata=True, timeout=30)
    except Exception as error:
        raise _unavailable(error) from error
    shards = []
    for file in info.siblings or []:
        if file.rfilename.startswith("shard_") and file.rfilename.endswith(".parquet"):
            if file.lfs is None:
                raise ServiceError(f"the hub tells no checksum of {REPOSITORY}/{file.rfilename}")
            shards.append(Shard(file.rfilename, file.lfs.size, file.lfs.sha256))
    if len(shards) < 2 or info.sha is None:
        raise ServiceError(f"{REPOSITORY} on the hub holds {len(shards)} shards; at least 2 are needed")
    return info.sha, sorted(shards, key=lambda shard: shard.name)


def _download(shard: Shard, revision: str, folder: Path) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # exported lazily

    if not sys.stderr.isatty():
        disable_progress_bars()
    for again in (False, True):
        try:
            path = hf_hub_download(
                REPOSITORY, shard.name, repo_type="dataset", revision=revision, local_dir=folder, force_download=again
            )
        except Exception as error:
            raise _unavailable(error) from error
        if file_digest(Path(path)).hex() == shard.sha256:
            return
        Path(path).unlink()
    raise ServiceError(f"{shard.name} arrived twice with a wrong checksum and was deleted", hint="Try again later.")


def _unavailable(error: Exception) -> Unavailable:
    """Every transport of the hub's library has exceptions of its own; the first one stays chained as the cause."""
    reason = (str(error).strip().splitlines() or [""])[0]
    return Unavailable(
        f"the dataset {REPOSITORY} ({type(error).__name__}: {reason})",
        hint="Check the network and run the same command again: whole shards are kept. "
        "--preset laptop needs no download.",
    )
