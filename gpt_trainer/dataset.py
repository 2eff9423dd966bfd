"""Prepared data: a tokeniser and packed rows of tokens for each split, cached by what they were made from.

Preparing takes some ten seconds for the embedded corpus and happens once; two processes may start at once. Importing
this needs no torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpt_trainer.corpus import Corpus, find_corpus
from gpt_trainer.packing import cut, pack
from gpt_trainer.presets import Preset
from gpt_trainer.text_files import SPLITS
from gpt_trainer.tokenizer import Tokenizer
from service_kit.errors import InvalidArgument, ServiceError

FORMAT = 2
"""Raised whenever splitting or packing changes, so that older caches are not read."""

ANNOUNCE_EVERY = 10.0
"""Seconds between two sentences about the same work."""

Announce = Callable[[str], None]
"""Is told in a sentence what takes time."""

Rows = npt.NDArray[np.uint16]
"""Packed rows [R, context + 1]: inputs are all but the last token, targets all but the first."""


class TooLittleText(ServiceError):
    """The corpus cannot fill what a preset needs; the message says what is short."""


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

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """What :func:`prepare` left in ``folder``."""
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return cls(
            folder, meta["corpus"], meta["tokenizer"], meta["bos"], tuple(meta["token_bytes"]), meta["row_length"]
        )

    def rows(self, split: str) -> Rows:
        """The packed rows of a split, read from disk as they are used."""
        flat = np.memmap(self.folder / f"{split}.bin", dtype=np.uint16, mode="r")
        return flat.reshape(-1, self.row_length)

    def load_tokenizer(self) -> Tokenizer:
        return Tokenizer.from_json((self.folder / "tokenizer.json").read_text(encoding="utf-8"))


def prepare(preset: Preset, cache: Path, announce: Announce = lambda _: None) -> Dataset:
    """The preset's dataset, made now if the folder ``cache`` does not hold it.

    A lock makes a second process wait for the first, and the result appears under its name only when it is complete.
    Raises what :func:`gpt_trainer.corpus.find_corpus` raises, UnreadableText and :class:`TooLittleText` for unfit
    files, and InvalidArgument when the cache folder cannot be written.
    """
    return prepare_corpus(find_corpus(preset.corpus, cache), preset.vocabulary, preset.context, cache, announce)


def prepare_corpus(
    corpus: Corpus, vocabulary: int, context: int, cache: Path, announce: Announce = lambda _: None
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
            reason = (error.strerror or str(error)).lower()
            raise InvalidArgument.of(
                "BILEVEL_CACHE",
                f"must be a folder that can be written; {cache}: {reason}",
                hint="Set BILEVEL_CACHE to a folder of yours.",
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                announce(f"preparing {corpus.name} with {vocabulary} tokens; this happens once")
                _build(corpus, identity, vocabulary, context, folder, announce)
    return Dataset.open(folder)


def _build(corpus: Corpus, identity: str, vocabulary: int, context: int, folder: Path, announce: Announce) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        texts = _DisjointSplits(corpus)
        tokenizer = Tokenizer.train(texts.documents("train"), vocabulary)
        if tokenizer.vocabulary != vocabulary:
            raise TooLittleText(
                f"{corpus.name} has too little text: its training part yields {tokenizer.vocabulary} different tokens, "
                f"and the vocabulary needs {vocabulary}",
                hint="Add text: some hundred kilobytes make a vocabulary of 1,024 tokens, some megabytes one of 8,192.",
            )
        (temporary / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        for split in SPLITS:
            encoded = _encoded(texts.documents(split), tokenizer, _Meter(f"{corpus.name}, {split}", announce))
            rows = pack(cut(encoded, context, tokenizer.bos), context + 1, tokenizer.bos)
            if _write_rows(temporary / f"{split}.bin", rows) == 0:
                raise TooLittleText(
                    f"{corpus.name} has too little text: split {split} does not fill one row of {context} tokens",
                    hint="Add text. One document in twenty goes to each validation split; a plain file counts as one "
                    "document for every 8,192 characters, a row of JSONL or parquet as one.",
                )
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


class _DisjointSplits:
    """A corpus whose repeated documents stay on one side: text that measures is taken out of what trains."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._digests: dict[str, set[bytes]] = {
            split: {_text_digest(text) for text in corpus.documents(split)} for split in ("search", "held_out")
        }

    def documents(self, split: str) -> Iterator[str]:
        before = {"train": ("search", "held_out"), "held_out": ("search",), "search": ()}[split]
        for text in self._corpus.documents(split):
            digest = _text_digest(text)
            if not any(digest in self._digests[other] for other in before):
                yield text


def _text_digest(text: str) -> bytes:
    """Eight bytes that only the words of a text decide, not the blanks around it."""
    return hashlib.blake2b(text.strip().encode(errors="surrogatepass"), digest_size=8).digest()


class _Meter:
    """Announces from time to time how many tokens are done."""

    def __init__(self, what: str, announce: Announce) -> None:
        self._what, self._announce, self._tokens, self._told = what, announce, 0, time.monotonic()

    def add(self, tokens: int) -> None:
        self._tokens += tokens
        if time.monotonic() - self._told >= ANNOUNCE_EVERY:
            self._told = time.monotonic()
            self._announce(f"{self._what}: {self._tokens / 1e6:.1f} M tokens so far")


def _encoded(documents: Iterable[str], tokenizer: Tokenizer, meter: _Meter) -> Iterator[list[int]]:
    iterator = iter(documents)
    while batch := list(itertools.islice(iterator, 128)):
        encoded = tokenizer.encode(batch)
        meter.add(sum(map(len, encoded)))
        yield from encoded


def _write_rows(path: Path, rows: Iterator[list[int]]) -> int:
    count = 0
    with path.open("wb") as file:
        while block := list(itertools.islice(rows, 4096)):
            file.write(np.asarray(block, dtype=np.uint16).tobytes())
            count += len(block)
    return count
