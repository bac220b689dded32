"""Long documents come in pieces, and memory stays within bounds."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.sources import read
from hypothesis import given
from hypothesis import strategies as st

from palavra.data.config import SourceConfig
from palavra.data.documents import cut_text
from palavra.data.sources import Tally, read_documents, source_bytes, source_stamp


@given(st.text("ab \n\t", max_size=200), st.integers(2, 50))
def test_cutting_keeps_every_character(text: str, longest: int) -> None:
    pieces = cut_text(text, longest)
    assert "".join(pieces) == text
    assert all(len(piece) <= longest for piece in pieces)
    assert all(pieces) or not text


@given(st.lists(st.text("ab \n", min_size=1, max_size=60), min_size=1, max_size=5), st.integers(2, 40))
def test_long_documents_come_in_pieces(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], longest: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "long.txt"
    whole = "".join(parts)
    path.write_text(whole)
    for documents in ("file", "line", "blank-line"):
        tally = Tally()
        pieces = read(path, tally=tally, documents=documents, max_document_chars=longest)
        assert all(len(piece.text) <= longest for piece in pieces)
        letters = "".join(piece.text for piece in pieces)
        assert "".join(letters.split()) == "".join(whole.split())
        if len(pieces) > 1 and documents == "file":
            assert tally.cuts > 0


@pytest.mark.parametrize("documents", ["file", "line", "blank-line"])
def test_pieces_know_the_document_they_are_of(documents: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("kurz\n\n" + "um dois três " * 9 + "\n\nfim\n")
    pieces = read(path, documents=documents, max_document_chars=20)
    groups = [[document for document in pieces if document.whole == whole] for whole in {d.whole: 0 for d in pieces}]
    assert len(groups) == (1 if documents == "file" else 3)
    for group in groups:
        assert [document.piece for document in group] == list(range(len(group)))
        assert group[0].whole == group[0].hash
        assert all(document.whole == group[0].hash for document in group)
    records = tmp_path / "b.jsonl"
    records.write_text("".join(json.dumps({"text": letter * 50}) + "\n" for letter in "ab"))
    pieces = read(records, max_document_chars=20)
    assert [document.piece for document in pieces] == [0, 1, 2] * 2
    assert len({document.whole for document in pieces}) == 2


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(40):
            file.write(b"x" * 1_000_000)
    kinds: tuple[Literal["file", "line", "blank-line"], ...] = ("file", "line", "blank-line")
    for documents in kinds:
        config, tally = SourceConfig(sources=(str(path),), documents=documents), Tally()
        tracemalloc.start()
        pieces = sum(1 for _ in read_documents(config, tally))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert pieces == 40
        assert peak < 12_000_000
        assert tally.bytes == 40_000_000


def test_sizes_and_stamps(tmp_path: Path) -> None:
    for name, content in (("a.txt", b"x" * 900), ("b.txt.gz", b"y" * 100), ("c.parquet", b"")):
        (tmp_path / name).write_bytes(content)
    config = SourceConfig(sources=(str(tmp_path), "hf://x:train"))
    assert source_bytes(config) == 900 + 300
    pq.write_table(pa.table({"text": ["x" * 5000]}), tmp_path / "c.parquet", compression="none", use_dictionary=False)
    assert source_bytes(config) > 6200
    stamp = source_stamp(config)
    assert source_stamp(config) == stamp
    os.utime(tmp_path / "a.txt", ns=(1, 1))
    assert source_stamp(config) != stamp
