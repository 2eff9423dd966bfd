"""Text to rows: splits, tokens, packing, caching and the order of batches."""

from __future__ import annotations

import json
import multiprocessing
import re
import threading
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from gpt_trainer.batches import Batches, PrefetchedBatches, TrainingBatches, evaluation_batches, open_batches
from gpt_trainer.corpus import CorpusMissing, StandardLibrary, find_corpus
from gpt_trainer.dataset import Dataset, TooLittleText, prepare_corpus
from gpt_trainer.packing import cut, pack
from gpt_trainer.presets import CLIMBMIX, PRESETS
from gpt_trainer.text_files import SPLITS, TextFiles
from gpt_trainer.tokenizer import Tokenizer

CPU = torch.device("cpu")
SENTENCES = [f"Sentence {i} says that {i} times {i} is {i * i}, naïvely.\n" for i in range(600)]


def write_jsonl(folder: Path) -> TextFiles:
    path = folder / "text.jsonl"
    path.write_text("".join(json.dumps({"text": sentence}) + "\n" for sentence in SENTENCES), encoding="utf-8")
    return TextFiles((path,), "sentences")


def test_no_document_is_in_two_splits_and_none_is_lost() -> None:
    corpus = StandardLibrary()
    counts = {split: sum(1 for _ in corpus.documents(split)) for split in SPLITS}
    assert sum(counts.values()) == len(corpus.files())
    assert min(counts.values()) > 10
    train, search, held_out = (set(corpus.documents(split)) - {""} for split in SPLITS)
    assert not search & held_out
    assert len(train & (search | held_out)) <= 2  # a few one-line modules exist twice in the library itself


def test_the_identity_of_a_corpus_follows_its_text(tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path)
    before = corpus.identity()
    assert before == corpus.identity()
    corpus.paths[0].write_text(json.dumps({"text": "other"}) + "\n", encoding="utf-8")
    assert corpus.identity() != before
    assert StandardLibrary().identity() == StandardLibrary().identity()


def test_parquet_shards_keep_the_last_one_for_validation(tmp_path: Path) -> None:
    folder = tmp_path / CLIMBMIX
    folder.mkdir()
    with pytest.raises(CorpusMissing, match="found 0"):
        find_corpus(CLIMBMIX, tmp_path)
    for shard in range(3):
        table = pyarrow.table({"text": [f"shard {shard} row {row}" for row in range(4)]})
        parquet.write_table(table, folder / f"shard_{shard:05d}.parquet")
    corpus = find_corpus(CLIMBMIX, tmp_path)
    assert [*corpus.documents("train")][-1] == "shard 1 row 3"
    assert [*corpus.documents("search")] == ["shard 2 row 0", "shard 2 row 2"]
    assert [*corpus.documents("held_out")] == ["shard 2 row 1", "shard 2 row 3"]


def test_the_tokenizer_writes_every_text_and_knows_each_tokens_bytes() -> None:
    tokenizer = Tokenizer.train(SENTENCES, 320)
    texts = ["Sentence 1", "naïve 你好 \U0001f600", "\x00\t\r\n", "<|bos|>"]
    sizes = tokenizer.token_bytes()
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        if text != "<|bos|>":
            assert tokenizer.decode(ids) == text
            assert sum(sizes[i] for i in ids) == len(text.encode())
    assert tokenizer.vocabulary == 320
    assert sizes[tokenizer.bos] == 0
    assert Tokenizer.from_json(tokenizer.to_json()).identity() == tokenizer.identity()
    assert Tokenizer.train(SENTENCES, 320).identity() == tokenizer.identity()


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=9), max_size=60), st.integers(2, 10))
@settings(deadline=None)
def test_packed_rows_are_full_and_begin_with_bos(pieces: list[list[int]], length: int) -> None:
    bos = 0
    opened = [[bos, *piece][:length] for piece in pieces]
    rows = list(pack(iter(opened), length, bos))
    assert all(len(row) == length and row[0] == bos for row in rows)
    text = sum(len(piece) - 1 for piece in opened)
    kept = sum(token != bos for row in rows for token in row)
    assert kept <= text
    assert text - kept < length or not rows or len(rows) * length >= text - length  # only the last row may be missing


def test_cutting_loses_no_text() -> None:
    documents = [list(range(1, 24)), [], [30], list(range(40, 48))]
    pieces = list(cut(documents, 8, 0))
    assert all(piece[0] == 0 and len(piece) <= 9 for piece in pieces)
    assert [token for piece in pieces for token in piece[1:]] == [token for document in documents for token in document]


def test_packing_loses_only_what_cannot_fill_the_last_row() -> None:
    pieces = [[0, 1, 2], [0, 3], [0, 4, 5, 6], [0, 7, 8, 9, 9]]
    rows = list(pack(iter(pieces), 5, 0))
    assert rows[0] == [0, 7, 8, 9, 9]
    assert rows[1] == [0, 4, 5, 6, 0] or rows[1][:4] == [0, 4, 5, 6]


def test_two_processes_may_prepare_at_once_and_the_second_finds_the_first_ones_work(tmp_path: Path) -> None:
    corpus, context = write_jsonl(tmp_path), multiprocessing.get_context("spawn")
    processes = [context.Process(target=prepare_corpus, args=(corpus, 300, 16, tmp_path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    announced: list[str] = []
    dataset = prepare_corpus(corpus, 300, 16, tmp_path, announced.append)
    assert announced == []
    assert [path.name for path in (tmp_path / "datasets").glob(".making*")] == []
    assert dataset.rows("train").shape[1] == 17
    assert dataset.load_tokenizer().identity() == dataset.tokenizer


def test_a_failed_preparation_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TooLittleText, match="vocabulary needs 60000"):
        prepare_corpus(write_jsonl(tmp_path), 60_000, 16, tmp_path)
    assert not any(path.is_dir() for path in (tmp_path / "datasets").iterdir())


def test_text_that_measures_never_trains_even_when_the_corpus_repeats_it(tmp_path: Path) -> None:
    """Every document three times: whatever the split, each sentence ends up on one side only."""
    path = tmp_path / "repeated.jsonl"
    repeated = [sentence for _ in range(3) for sentence in SENTENCES]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in repeated), encoding="utf-8")
    dataset = prepare_corpus(TextFiles((path,), "repeated"), 300, 64, tmp_path)
    tokenizer = dataset.load_tokenizer()

    def numbers(split: str) -> set[str]:
        text = tokenizer.decode([int(t) for t in dataset.rows(split).ravel() if t != dataset.bos])
        return set(re.findall(r"says that (\d+) times \1 is \d+, naïvely", text))

    train, search, held_out = (numbers(split) for split in SPLITS)
    assert min(len(train), len(search), len(held_out)) > 20
    assert not train & search
    assert not train & held_out
    assert not search & held_out


def test_the_laptop_dataset_is_what_its_preset_says(dataset: Dataset) -> None:
    preset = PRESETS["laptop"]
    assert len(dataset.token_bytes) == preset.vocabulary
    for split in SPLITS:
        rows = dataset.rows(split)
        assert rows.shape[1] == preset.context + 1
        assert (rows[:, 0] == dataset.bos).all()
        assert rows.max() < preset.vocabulary
    for split in ("search", "held_out"):
        assert dataset.rows(split).size > preset.evaluation_tokens


def test_training_rows_depend_on_the_seed_and_not_on_how_many_are_taken_at_a_time() -> None:
    rows = np.arange(70, dtype=np.uint16).reshape(10, 7)

    def stream(seed: int, sizes: list[int]) -> torch.Tensor:
        batches = TrainingBatches(rows, seed, CPU)
        return torch.cat([batches.take(size)[0] for size in sizes])

    assert torch.equal(stream(1, [12, 12]), stream(1, [5, 7, 8, 4]))
    assert not torch.equal(stream(1, [10]), stream(2, [10]))
    assert sorted(stream(3, [10])[:, 0].tolist()) == rows[:, 0].tolist()
    inputs, targets = TrainingBatches(rows, 0, CPU).take(3)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


class Gate:
    """Rows that count how often they are read and wait for permission each time."""

    def __init__(self, rows: np.ndarray, permits: int) -> None:
        self.rows, self.reads, self.permits = rows, 0, threading.Semaphore(permits)
        self.nbytes = rows.nbytes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: np.ndarray) -> np.ndarray:
        self.permits.acquire()
        self.reads += 1
        return self.rows[chosen]


def test_prefetching_changes_neither_rows_nor_order_nor_epochs() -> None:
    rows = np.arange(70, dtype=np.uint16).reshape(10, 7)

    def taken(batches: Batches) -> list[tuple[list[list[int]], int]]:
        return [(batches.take(4)[0].tolist(), batches.epoch) for _ in range(9)]

    with PrefetchedBatches(TrainingBatches(rows, 5, CPU), 4) as prefetched:
        assert taken(prefetched) == taken(TrainingBatches(rows, 5, CPU))


def test_batches_are_loaded_before_they_are_asked_for_and_leaving_ends_the_loading() -> None:
    gate = Gate(np.arange(70, dtype=np.uint16).reshape(10, 7), permits=3)
    batches = PrefetchedBatches(TrainingBatches(gate, 0, CPU), 2, ahead=3)  # type: ignore[arg-type]
    with batches:
        while batches._ready.qsize() < 3:  # nobody asked for any
            batches._leaving.wait(0.001)
        for _ in range(3):
            batches.take(2)
        assert gate.reads == 3
        with pytest.raises(ValueError, match="count must be 2"):
            batches.take(3)
        gate.permits.release(100)
    assert not batches._thread.is_alive()


def test_a_failure_to_read_reaches_the_one_who_takes() -> None:
    class Damaged(Gate):
        def __getitem__(self, chosen: np.ndarray) -> np.ndarray:
            raise OSError("the disk is gone")

    rows = Damaged(np.zeros((4, 3), dtype=np.uint16), permits=0)
    batches = PrefetchedBatches(TrainingBatches(rows, 0, CPU), 2)  # type: ignore[arg-type]
    with batches, pytest.raises(OSError, match="the disk is gone"):
        batches.take(2)


def test_only_a_corpus_beyond_memory_is_prefetched_on_a_cpu() -> None:
    small = np.zeros((4, 3), dtype=np.uint16)
    large = np.broadcast_to(np.zeros(1, dtype=np.uint16), (2**11, 2**17))  # takes no memory: one token seen many times
    with open_batches(small, 0, CPU, 2) as batches:
        assert isinstance(batches, TrainingBatches)
    with open_batches(large, 0, CPU, 2) as batches:
        assert isinstance(batches, PrefetchedBatches)


def test_evaluation_always_measures_the_same_rows(dataset: Dataset) -> None:
    rows = dataset.rows("search")
    once, twice = (torch.cat([x for x, _ in evaluation_batches(rows, 1280, size, CPU)]) for size in (4, 10))
    assert once.shape == (10, 128)
    assert sorted(once.sum(1).tolist()) == sorted(twice.sum(1).tolist())
