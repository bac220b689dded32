"""Sources: every kind of file as people have it."""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.sources import read, texts, wrong
from hypothesis import given
from hypothesis import strategies as st

from palavra.data.config import SourceConfig
from palavra.data.deduplicate import without_duplicates
from palavra.data.sources import Tally, read_documents

TEXTS = ["O gato correu.", 'She said "no";\nthen, "yes".', "coração \U0001f600\ttab"]


# Kinds of files


def test_documents_of_a_text_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffum\r\ndois\r\n\r\n  \r\ntrês".encode())
    assert texts(file) == ["um\ndois\n\n  \ntrês"]
    assert texts(file, documents="line") == ["um", "dois", "três"]
    assert texts(file, documents="blank-line") == ["um\ndois", "três"]
    assert [document.where for document in read(file, documents="line")] == [f"{file}:{n}" for n in (1, 2, 5)]
    assert [document.line for document in read(file, documents="blank-line")] == [1, 5]
    tally = Tally()
    (document,) = read(file, tally=tally)
    assert tally.documents == 1
    assert tally.bytes == document.bytes == len(document.text.encode())


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_records_and_compressions(suffix: str, tmp_path: Path) -> None:
    table = io.StringIO()
    writer = csv.writer(table, delimiter=";")
    writer.writerows([["id", "text"], *([number, text] for number, text in enumerate(TEXTS))])
    tabs = io.StringIO()
    csv.writer(tabs, delimiter="\t").writerows([["text", "id"], *([text, 1] for text in TEXTS)])
    contents = {
        "a.jsonl": "".join(json.dumps({"id": 1, "text": text}) + "\n\n" for text in TEXTS),
        "b.csv": "\ufeff" + table.getvalue(),
        "c.tsv": tabs.getvalue(),
    }
    for name, content in contents.items():
        path = tmp_path / (name + suffix)
        path.write_bytes(compressed(content.encode(), suffix))
        assert texts(path) == TEXTS
        path.write_bytes(path.read_bytes()[:-7])
        if suffix:
            assert f"{path}: cannot be read to its end, the file is damaged" in wrong(path)


def compressed(content: bytes, suffix: str) -> bytes:
    """In two frames, as tools that append write them."""
    compress: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": partial(pa.compress, codec="zstd", asbytes=True),
    }
    half = len(content) // 2
    return compress[suffix](content[:half]) + compress[suffix](content[half:])


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for column in (pa.array([*TEXTS, None]), pa.array([*TEXTS, None], pa.large_string()).dictionary_encode()):
        pq.write_table(pa.table({"text": column, "n": pa.array([1, 2, 3, 4])}), path, row_group_size=2)
        tally = Tally()
        assert [document.line for document in read(path, tally=tally)] == [1, 2, 3]
        assert texts(path) == TEXTS
        assert tally.warnings() == (f"1 records without the text column were left out, the first: {path}:4",)
    assert "no column 'body'; name the one with the text (column=), there are: 'text', 'n'" in wrong(
        path, column="body"
    )
    assert "column 'n' holds a number, not text" in wrong(path, column="n")
    path.write_bytes(b"PAR1 no")
    assert f"{path}: not a readable Parquet file" in wrong(path)


def test_a_data_set_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    place = f"hf://{tmp_path}:train"
    assert texts(place) == TEXTS
    assert [document.where for document in read(place)][-1] == f"{place}:3"
    assert "no column 'body'" in wrong(place, column="body")
    assert "cannot be opened" in wrong(f"hf://{tmp_path}:nosuchsplit")
    for bad in ("hf://name", "hf://:train", "hf://a/b:"):
        assert "write hf://dataset:split" in wrong(bad)


def test_the_hub_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert wrong("hf://a/b:train") == "hf://a/b:train: needs the datasets library: pip install 'palavra[hub]'"


def test_folders_globs_and_files_named_twice(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/b.txt", ".hidden/x.txt", "a/.y.txt", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "broken.txt").symlink_to(tmp_path / "absent")
    tally = Tally()
    assert [document.text for document in read(tmp_path, tally=tally)] == ["b.txt", "a/b.txt", "a/z.txt"]
    told = "2 files have other suffixes, or are not ordinary files, and were not read, the first: "
    assert tally.warnings() == (f"{told}{tmp_path / 'broken.txt'}",)
    assert texts(tmp_path / "a" / "*.txt") == ["a/b.txt", "a/z.txt"]
    assert texts(tmp_path / "**" / "b.txt") == ["a/b.txt", "b.txt"]
    assert texts(tmp_path / "b.txt", tmp_path) == ["b.txt", "a/b.txt", "a/z.txt"]
    (tmp_path / "empty").mkdir()
    assert "no files of text here; looked for .txt, .jsonl" in wrong(tmp_path / "empty")
    assert "notes.md: unknown kind of file" in wrong(tmp_path / "notes.md")
    assert "no such file or folder" in wrong(tmp_path / "absent.txt")
    assert "no such file or folder" in wrong(tmp_path / "*.csv")
    assert "no sources of text" in wrong()


# Tables


def table(tmp_path: Path, content: str, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_text(content)
    return path


def test_odd_tables(tmp_path: Path) -> None:
    assert texts(table(tmp_path, 'id,text\n1,"a, ""b""\nc"\n\n2,d\n3\n')) == ['a, "b"\nc', "d"]
    assert [d.line for d in read(table(tmp_path, '\nid,text\n1,"a\nb"\n2,c\n'))] == [3, 5]
    assert texts(table(tmp_path, "text\nonly, one column? no: two\n")) == ["only, one column? no: two"]
    assert texts(table(tmp_path, 'id|text\n1|"a;b|c"\n')) == ["a;b|c"]
    assert texts(table(tmp_path, f"text\n{'x' * 200_000}\n")) == ["x" * 200_000]
    assert texts(table(tmp_path, "")) == []
    assert "a.csv:1: no column 'text'; name the one with the text (column=), there are: 'a', 'b'" in wrong(
        table(tmp_path, "a;b\n1;2\n")
    )
    assert "a.csv:3: a quote that opens in this record is never closed" in wrong(
        table(tmp_path, 'id,text\n1,a\n2,"b\n3,c\n')
    )


def test_quotes_in_tab_separated_files(tmp_path: Path) -> None:
    raw = 'id\ttext\n1\t"No" she said\n2\t"open\n3\tplain\n'
    assert texts(table(tmp_path, raw, "a.tsv")) == ['"No" she said', '"open', "plain"]
    quoted = 'id\ttext\n1\t"a\tb\nc ""d"""\n2\te\n'
    assert texts(table(tmp_path, quoted, "a.tsv")) == ['a\tb\nc "d"', "e"]


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1).filter(
    lambda text: not text.isspace()
)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), st.sampled_from(",;\t|"))
def test_every_table_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("label", "text"), *rows])
    assert texts(path) == [text for _, text in rows]


def test_only_exact_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("um\ndois\num\nUm\num \ndois\n")
    tally = Tally()
    config = SourceConfig(sources=(str(path),), documents="line")
    kept = [document.text for document in without_duplicates(read_documents(config, tally), tally)]
    assert kept == ["um", "dois", "Um", "um "]
    assert tally.warnings() == (f"2 exact duplicates of earlier documents were left out, the first: {path}:3",)
