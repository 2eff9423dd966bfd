"""A corpus of one's own: which files are found, what counts as a document, and what is said about unfit ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from gpt_trainer.text_files import (
    BLOCK,
    PASSAGE,
    SPLITS,
    TextFiles,
    UnreadableText,
    find_text_files,
    read_documents,
    split_of,
)
from service_kit.errors import InvalidArgument


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One file of each kind, some that are none, and one that hides."""
    root = tmp_path / "My Books"
    (root / "deep" / ".hidden").mkdir(parents=True)
    (root / "b.md").write_text("# markdown\n", encoding="utf-8")
    (root / "a.txt").write_text("plain\n", encoding="utf-8")
    (root / "deep" / "c.jsonl").write_text('{"text": "first"}\n\n{"text": ""}\n{"text": "second", "id": 2}\n')
    parquet.write_table(pyarrow.table({"id": [1, 2, 3], "content": ["one", None, "three"]}), root / "deep/d.parquet")
    (root / "picture.png").write_bytes(b"\x89PNG\0")
    (root / "deep" / ".hidden" / "e.txt").write_text("unseen")
    return root


def texts(corpus: TextFiles) -> list[str]:
    return [text for path in corpus.paths for text in read_documents(path)]


def test_a_folder_means_every_text_below_it_in_the_order_of_paths(folder: Path) -> None:
    corpus = find_text_files(str(folder))
    assert texts(corpus) == ["plain\n", "# markdown\n", "first", "second", "one", "three"]
    assert corpus.name == "my-books"


def test_a_glob_and_a_single_file_read_what_they_name(folder: Path) -> None:
    assert texts(find_text_files(f"{folder}/**/*.jsonl")) == ["first", "second"]
    assert texts(find_text_files(f"{folder}/?.*")) == ["plain\n", "# markdown\n"]
    assert texts(find_text_files(str(folder / "b.md"))) == ["# markdown\n"]
    (folder / "script.py").write_text("pass\n")
    assert texts(find_text_files(f"{folder}/*.py")) == ["pass\n"]


def test_the_identity_follows_content_and_kind_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    before = find_text_files(str(folder)).identity()
    moved = folder.rename(tmp_path / "My books")
    assert find_text_files(str(moved)).identity() == before
    (moved / "a.txt").write_text("plainer\n")
    changed = find_text_files(str(moved))
    assert changed.identity() != before
    assert TextFiles(changed.paths, changed.name, pinned=True).identity() != changed.identity()


def test_a_long_file_is_several_documents_that_together_are_the_file(tmp_path: Path) -> None:
    path, text = tmp_path / "long.txt", "".join(f"line {number} of a long book\n" for number in range(4000))
    path.write_text(text, encoding="utf-8")
    documents = list(read_documents(path))
    assert "".join(documents) == text
    assert len(documents) == pytest.approx(len(text) / PASSAGE, abs=1)
    assert all(document.endswith("\n") for document in documents)


@given(st.integers(0, 10**6))
def test_every_block_of_documents_gives_one_to_each_validation_split(block: int) -> None:
    placed = [split_of(block * BLOCK + place) for place in range(BLOCK)]
    assert [placed.count(split) for split in SPLITS] == [BLOCK - 2, 1, 1]


def test_splits_share_no_document_and_lose_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [f"document {number}" for number in range(205)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    for corpus in (TextFiles((path, path), "twice"), TextFiles((path, path), "pinned", pinned=True)):
        split = {name: list(corpus.documents(name)) for name in SPLITS}
        assert sorted(text for texts in split.values() for text in texts) == sorted(rows + rows)
        assert list(corpus.documents("search")) == split["search"]
    assert split["train"] == rows
    assert split["search"] == rows[::2]


def _jsonl(text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "rows.jsonl").write_text(text)
        return folder / "rows.jsonl"

    return write


def _table(**columns: list[object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        parquet.write_table(pyarrow.table(columns), folder / "rows.parquet")
        return folder / "rows.parquet"

    return write


def _bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (_jsonl('{"text": "fine"}\n{"text": \n'), "rows.jsonl, line 2: not JSON"),
        (_jsonl('{"body": "?", "id": 1}\n'), "line 1: no text column; the columns are body, id"),
        (_jsonl("[1, 2]\n"), "line 1: no text column; there are no columns"),
        (_jsonl('{"text": 3}\n'), "must be a string; got int"),
        (_table(body=["?"], id=[1]), "rows.parquet: no text column; the columns are body, id"),
        (_table(text=[1, 2]), "column text must hold strings; it holds int64"),
        (_bytes("rows.parquet", b"PAR1 and then nothing"), "is not a parquet file or is damaged"),
        (_bytes("picture.txt", b"\x89PNG\0\0"), "picture.txt is not text"),
    ],
)
def test_an_unfit_file_is_named_with_place_and_reason(
    write: Callable[[Path], Path], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UnreadableText) as caught:
        list(read_documents(write(tmp_path)))
    assert words in str(caught.value)


def test_a_place_without_text_says_what_is_there(folder: Path, tmp_path: Path) -> None:
    for pattern, words in {
        str(tmp_path / "nowhere"): "nothing is at",
        f"{folder}/*.pdf": "nothing is at",
        str(folder / "deep" / ".hidden" / "none"): "nothing is at",
    }.items():
        with pytest.raises(InvalidArgument, match=words):
            find_text_files(pattern)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with pytest.raises(InvalidArgument, match="holds no files"):
        find_text_files(str(pictures))
    (pictures / "a.png").write_bytes(b"")
    with pytest.raises(InvalidArgument, match=r"only \.png \(1\)"):
        find_text_files(str(pictures))
