"""Prepared data: a tokeniser and packed rows of tokens for each split, cached by what they were made from.

Preparing takes some ten seconds for the embedded corpus and happens once; two processes may start at once. Importing
this needs no torch.
"""

from __future__ import annotations

import bisect
import fcntl
import hashlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpt_trainer.corpus import SPLITS, Corpus, find_corpus
from gpt_trainer.presets import Preset
from gpt_trainer.tokenizer import Tokenizer
from service_kit.errors import ServiceError

FORMAT = 1
"""Raised whenever packing changes, so that older caches are not read."""

PACKING_BUFFER = 1000
"""Pieces of text that compete for the room left in a row."""

Rows = npt.NDArray[np.uint16]
"""Packed rows [R, context + 1]: inputs are all but the last token, targets all but the first."""


@dataclass(frozen=True)
class Dataset:
    """Everything that training and evaluation read."""

    folder: Path
    corpus: str
    """Identity of the text and its split."""
    tokenizer: str
    """Identity of the byte-pair encoding."""
    bos: int
    token_bytes: tuple[int, ...]
    """Bytes of text of each token; 0 for BOS."""
    row_length: int

    def rows(self, split: str) -> Rows:
        """The packed rows of a split, read from disk as they are used."""
        flat = np.memmap(self.folder / f"{split}.bin", dtype=np.uint16, mode="r")
        return flat.reshape(-1, self.row_length)

    def load_tokenizer(self) -> Tokenizer:
        return Tokenizer.from_json((self.folder / "tokenizer.json").read_text(encoding="utf-8"))


def prepare(preset: Preset, cache: Path, announce: Callable[[str], None] = lambda _: None) -> Dataset:
    """The preset's dataset, made now if the folder ``cache`` does not hold it.

    ``announce`` is told in a sentence what takes time. A lock makes a second process wait for the first, and the
    result appears under its name only when it is complete. Raises CorpusMissing, and ServiceError when the cache folder
    cannot be written.
    """
    return prepare_corpus(find_corpus(preset.corpus, cache), preset.vocabulary, preset.context, cache, announce)


def prepare_corpus(
    corpus: Corpus, vocabulary: int, context: int, cache: Path, announce: Callable[[str], None] = lambda _: None
) -> Dataset:
    """As :func:`prepare`, for any corpus, vocabulary and context."""
    identity = corpus.identity()
    key = hashlib.sha256(f"{FORMAT}:{identity}:{vocabulary}:{context}".encode()).hexdigest()[:16]
    folder = cache / "datasets" / f"{corpus.name}-{vocabulary}-{context}-{key}"
    if not folder.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = (folder.parent / f"{folder.name}.lock").open("w")
        except OSError as error:
            problem = f"the cache folder {cache} cannot be written: {error.strerror}"
            raise ServiceError(problem, hint="Set BILEVEL_CACHE to a folder of yours.") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                announce(f"preparing {corpus.name} with {vocabulary} tokens; this happens once")
                _build(corpus, identity, vocabulary, context, folder)
    return _open(folder)


def _open(folder: Path) -> Dataset:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return Dataset(
        folder, meta["corpus"], meta["tokenizer"], meta["bos"], tuple(meta["token_bytes"]), meta["row_length"]
    )


def _build(corpus: Corpus, identity: str, vocabulary: int, context: int, folder: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        tokenizer = Tokenizer.train(corpus.documents("train"), vocabulary)
        if tokenizer.vocabulary != vocabulary:
            raise ValueError(
                f"vocabulary: the corpus only yields {tokenizer.vocabulary} tokens, {vocabulary} were asked for"
            )
        (temporary / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        for split in SPLITS:
            pieces = _pieces(_encoded(corpus.documents(split), tokenizer), context, tokenizer.bos)
            count = _write_rows(temporary / f"{split}.bin", pack(pieces, context + 1, tokenizer.bos))
            if count == 0:
                raise ValueError(f"corpus: {corpus.name} has too little text for one row of split {split}")
        meta = {
            "corpus": identity,
            "tokenizer": tokenizer.identity(),
            "bos": tokenizer.bos,
            "token_bytes": tokenizer.token_bytes(),
            "row_length": context + 1,
        }
        (temporary / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _encoded(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    iterator = iter(documents)
    while batch := list(itertools.islice(iterator, 128)):
        yield from tokenizer.encode(batch)


def _pieces(documents: Iterable[list[int]], context: int, bos: int) -> Iterator[list[int]]:
    """Documents cut to at most a row's length, each piece opened by BOS, so that no text is lost."""
    for ids in documents:
        for start in range(0, len(ids), context):
            yield [bos, *ids[start : start + context]]


def pack(pieces: Iterable[list[int]], length: int, bos: int) -> Iterator[list[int]]:
    """Rows of exactly ``length`` tokens, each opened by BOS, by best fit (arXiv 2404.10830).

    The longest waiting piece that fits goes next; where none fits, the shortest is cut and its rest waits as a piece
    of its own. No padding. What cannot fill a last row is left out.
    """
    source, waiting = iter(pieces), list[list[int]]()
    while True:
        for piece in itertools.islice(source, PACKING_BUFFER - len(waiting)):
            bisect.insort(waiting, piece, key=len)
        row: list[int] = []
        while len(row) < length:
            if not waiting:
                return
            room = length - len(row)
            fitting = bisect.bisect_right(waiting, room, key=len)
            if fitting:
                row += waiting.pop(fitting - 1)
            else:
                shortest = waiting.pop(0)
                row += shortest[:room]
                bisect.insort(waiting, [bos, *shortest[room:]], key=len)
        yield row


def _write_rows(path: Path, rows: Iterator[list[int]]) -> int:
    count = 0
    with path.open("wb") as file:
        while block := list(itertools.islice(rows, 4096)):
            file.write(np.asarray(block, dtype=np.uint16).tobytes())
            count += len(block)
    return count
