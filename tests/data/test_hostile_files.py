"""Small files that expand to very large ones: read in little memory, or refused in one line."""

import gzip
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.bounded_memory import run_bounded

from palavra.data import json_text
from palavra.data.conll import read_tagged
from palavra.data.memory import memory_source
from palavra.data.records import read_records
from palavra.data.squad import read_questions
from palavra.errors import PalavraError

pa.array(["x"])  # Arrow looks for other libraries with its first array, which takes memory once
LARGE = 20_000_000
SHARING = {"column": 50_000_000, "list": 20_000_000, "struct": 20_000_000, "small": 2_000_000}


def compressed(path: Path, first: bytes, then: bytes, size: int = LARGE) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(first)
        block = then * max(1, 1_000_000 // len(then))
        for _ in range(size // len(block)):
            file.write(block)


def refused(read: Callable[[str], Iterable[object]], source: str) -> str:
    with pytest.raises(PalavraError) as caught:
        for _ in read(source):
            pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_lines(folder: Path) -> None:
    compressed(folder / "a.jsonl.gz", b"", b"x" * 1000)
    for name in ("a.csv", "a.tsv", "a.conll", "a.conllu"):
        (folder / f"{name}.gz").write_bytes((folder / "a.jsonl.gz").read_bytes())
    compressed(folder / "b.csv.gz", b'text,label\n"', b"x" * 99 + b"\n")
    compressed(folder / "b.conll.gz", b"", b"word\tO\n")
    compressed(folder / "c.conllu.gz", b"", b"# text = " + b"x" * 90 + b"\n")


def lines_without_end(folder: Path) -> None:
    """A line, a record of many lines, a sentence, comments."""
    for name in ("a.jsonl", "a.csv", "a.tsv"):
        assert ":1: a record of more than" in refused(read_records, str(folder / f"{name}.gz"))
    for name in ("a.conll", "a.conllu"):
        assert ":1: a record of more than" in refused(read_tagged, str(folder / f"{name}.gz"))
    assert ":2: a record of more than" in refused(read_records, str(folder / "b.csv.gz"))
    assert ":1: a sentence of more than" in refused(read_tagged, str(folder / "b.conll.gz"))
    assert "holds no sentences" in refused(read_tagged, str(folder / "c.conllu.gz"))


def write_values(folder: Path) -> None:
    compressed(folder / "a.jsonl.gz", b'{"text":"a","x":[', b'{"":{}},')
    compressed(folder / "a.json.gz", b'[{"text":"a","x":[', b'{"":{}},')
    compressed(folder / "b.json.gz", '{"data":"\U0001f600'.encode(), b"x" * 1000)
    paragraph = '{"context":"\U0001f600%s","qas":[]},' % ("x" * 100_000)
    compressed(folder / "c.json.gz", b'{"data":[{"paragraphs":[', paragraph.encode(), 4 * LARGE)


def values_without_end(folder: Path) -> None:
    """JSON whose values take many times its bytes, and a wide character that makes texts four times as large."""
    for name in ("a.jsonl", "a.json"):
        assert ":1: a record of more than" in refused(read_records, str(folder / f"{name}.gz"))
    assert ":1: a record of more than" in refused(read_questions, str(folder / "b.json.gz"))
    setattr(json_text, "LARGEST_DOCUMENT", 2 * LARGE)  # noqa: B010 - in a process of its own
    assert "more than 40,000,000 bytes" in refused(read_questions, str(folder / "c.json.gz"))


def write_sharing(folder: Path) -> None:
    for name, size in SHARING.items():
        shared = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), ["x" * size])
        if name == "list":
            shared = pa.ListArray.from_arrays(pa.array(range(301), pa.int32()), shared)
        if name == "struct":
            shared = pa.StructArray.from_arrays([shared], ["a"])
        table = pa.table({"text": shared, "label": ["a"] * 300})
        with pq.ParquetWriter(folder / f"{name}.parquet", table.schema, compression="zstd", store_schema=False) as file:
            file.write_table(table)
        assert (folder / f"{name}.parquet").stat().st_size < 10_000


def rows_that_share(folder: Path) -> None:
    """A few kilobytes of Parquet whose rows share a text, in a column, a list and a struct."""
    for name in ("column", "list", "struct"):
        source = str(folder / f"{name}.parquet")
        assert ":row 1 or later: a record of more than" in refused(read_records, source)
    assert len(list(read_records(str(folder / "small.parquet")))) == 300
    table = pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), ["x" * LARGE])})
    assert len(list(memory_source("data", table).records())) == 300


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as on Linux")
@pytest.mark.parametrize(
    ("write", "read"),
    [(write_lines, lines_without_end), (write_values, values_without_end), (write_sharing, rows_that_share)],
)
def test_memory_is_bounded_by_bytes(
    write: Callable[[Path], None], read: Callable[[Path], None], tmp_path: Path
) -> None:  # fmt: skip
    write(tmp_path)
    run_bounded(read, tmp_path, 600)
