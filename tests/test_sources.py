"""Sources: every kind of file as people have it, every mistake told in one line with file and line."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palavra.data.deduplicate import without_duplicates
from palavra.data.formats import cut_text
from palavra.data.sources import Document, SourceConfig, Tally, read_documents, source_bytes, source_stamp
from palavra.errors import PalavraError

TEXTS = ["O gato correu.", 'She said "no";\nthen, "yes".', "coração \U0001f600\ttab"]


def read(*sources: Path | str, tally: Tally | None = None, **settings: Any) -> list[Document]:
    config = SourceConfig(sources=tuple(map(str, sources)), **settings)
    return list(read_documents(config, tally if tally is not None else Tally()))


def texts(*sources: Path | str, **settings: Any) -> list[str]:
    return [document.text for document in read(*sources, **settings)]


def wrong(*sources: Path | str, **settings: Any) -> str:
    with pytest.raises(PalavraError) as caught:
        read(*sources, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    assert "no column 'body'; name the one with the text (--column), there are: 'text', 'n'" in wrong(
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


# Mistakes


def earlier_run(folder: Path) -> Path:
    """A folder as a run leaves it, with a note that somebody put there."""
    (folder / "checkpoints" / "step-3").mkdir(parents=True)
    (folder / "checkpoints" / "step-3" / "state.json").write_text("{}")
    for name in ("palavra.toml", "metrics.jsonl", "run.json", "vocab.txt", "train.log", "model.safetensors"):
        (folder / name).write_text('{"kind": "train", "text": "0.5"}\n')
    (folder / "note.txt").write_text("A note.")
    return folder


def test_what_earlier_runs_left_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Um.")
    (tmp_path / "palavra.toml").write_text("")  # a recipe beside the text is no run
    run = earlier_run(tmp_path / "model")
    earlier_run(tmp_path / "model2")
    for source in (tmp_path, tmp_path / "**", tmp_path / "*"):
        tally = Tally()
        assert texts(source, tally=tally) == ["Um.", "A note.", "A note."]
        assert f"2 folders are of earlier runs, whose own files were not read as text, the first: {run}" in (
            tally.warnings()
        )
    assert texts(run) == ["A note."]
    assert texts(run / "metrics.jsonl") == ["0.5"]  # named by itself, it is meant
    (run / "note.txt").unlink()
    assert wrong(run) == f"{run}: no text but the files of an earlier run, {run}; name the text itself"


def test_a_run_that_has_only_begun_is_no_text(tmp_path: Path) -> None:
    for name in ("tokenizer.stamp", "vocab.txt"):
        (tmp_path / name).write_text("[PAD]")
    (tmp_path / "a.txt").write_text("Um.")
    assert texts(tmp_path) == ["Um."]
    (tmp_path / "tokenizer.stamp").unlink()
    assert texts(tmp_path) == ["Um.", "[PAD]"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
def test_another_encoding(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    text = "ab\ncd\num “coração”\n" if encoding == "cp1252" else "ab\ncd\num coração\n"
    path.write_bytes(text.encode(encoding))
    line = 1 if encoding == "utf-16" else 3
    message = wrong(path)
    assert message.startswith(f"{path}:{line}: byte 0x")
    assert f"is not valid utf-8; if the text is {encoding}, say so with the encoding option" in message
    assert texts(path, encoding=encoding) == [text]


def test_invalid_bytes_far_into_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"line\n" * 300_000 + b"\xff")
    assert wrong(path, documents="line").startswith(f"{path}:300001: byte 0xff")
    path.write_bytes("é".encode()[:1])
    assert wrong(path).startswith(f"{path}:1: byte 0xc3")
    for unknown in ("klingon", "base64"):
        assert "unknown encoding" in wrong(path, encoding=unknown)


def test_nul_and_half_pairs_are_mended_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a\\u0000bcdef"}\n{"text": "x\\ud83dy"}\n{"text": "\\ud83d\\ude00"}\n{"text": " "}\n')
    tally = Tally()
    assert [document.text for document in read(path, tally=tally)] == ["abcdef", "x\ufffdy", "\U0001f600"]
    assert tally.warnings() == (
        f"1 empty documents were left out, the first: {path}:4",
        f"1 documents held NUL characters, which were taken out, the first: {path}:1",
        f"1 documents held half surrogate pairs, which became U+FFFD, the first: {path}:2",
    )
    (tmp_path / "b.txt").write_bytes("text".encode("utf-16-le"))
    assert "b.txt:1: NUL characters all over; if the text is UTF-16" in wrong(tmp_path / "b.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"body": "x", "id": 1}\n', "a.jsonl:1: no column 'text'; name the one with the text"),
        ('{"text": "x"}\n{"text": \n', "a.jsonl:2: not valid JSON"),
        ('{"text": "x"}\n\n["x"]\n', "a.jsonl:3: a JSON list, not an object"),
        ('{"text": ["x"]}\n', "a.jsonl:1: column 'text' holds a list, not text"),
        ("[" * 100_000, "a.jsonl:1: not valid JSON"),
        ('{"text": ' + "1" * 5000 + "}", "a.jsonl:1: not valid JSON"),
        ("{}", "there are: none"),
    ],
)  # fmt: skip
def test_wrong_json(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    assert message in wrong(path)


def test_a_record_without_the_column_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n{"id": 1}\n{"text": null}\n')
    tally = Tally()
    assert len(read(path, tally=tally)) == 1
    assert tally.missing == 2
    assert tally.first["missing"] == f"{path}:2"


# Tables


def table(tmp_path: Path, content: str, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_text(content)
    return path


def test_odd_tables(tmp_path: Path) -> None:
    assert texts(table(tmp_path, 'id,text\n1,"a, ""b""\nc"\n\n2,d\n3\n')) == ['a, "b"\nc', "d"]
    assert [d.line for d in read(table(tmp_path, '\nid,text\n1,"a\nb"\n2,c\n'))] == [3, 5]
    assert texts(table(tmp_path, "text\nonly, one column? no: two\n")) == ["only"]
    assert texts(table(tmp_path, 'id|text\n1|"a;b|c"\n')) == ["a;b|c"]
    assert texts(table(tmp_path, f"text\n{'x' * 200_000}\n")) == ["x" * 200_000]
    assert texts(table(tmp_path, "")) == []
    assert "a.csv:1: no column 'text'; name the one with the text (--column), there are: 'a', 'b'" in wrong(
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


# Bounds


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
        pieces = read(path, tally=tally, documents=documents, longest_document=longest)
        assert all(len(piece.text) <= longest for piece in pieces)
        letters = "".join(piece.text for piece in pieces)
        assert "".join(letters.split()) == "".join(whole.split())
        if len(pieces) > 1 and documents == "file":
            assert tally.cuts > 0


@pytest.mark.parametrize("documents", ["file", "line", "blank-line"])
def test_pieces_know_the_document_they_are_of(documents: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("kurz\n\n" + "um dois três " * 9 + "\n\nfim\n")
    pieces = read(path, documents=documents, longest_document=20)
    groups = [[document for document in pieces if document.whole == whole] for whole in {d.whole: 0 for d in pieces}]
    assert len(groups) == (1 if documents == "file" else 3)
    for group in groups:
        assert [document.piece for document in group] == list(range(len(group)))
        assert group[0].whole == group[0].hash
        assert all(document.whole == group[0].hash for document in group)
    records = tmp_path / "b.jsonl"
    records.write_text("".join(json.dumps({"text": letter * 50}) + "\n" for letter in "ab"))
    pieces = read(records, longest_document=20)
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


# Duplicates


def documents_of(hashes: list[int]) -> Iterator[Document]:
    return (Document(str(hash), "f", line, 1, hash, hash) for line, hash in enumerate(hashes, 1))


@given(st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1))))
def test_duplicates_are_dropped_and_counted(hashes: list[int]) -> None:
    tally = Tally()
    kept = [document.hash for document in without_duplicates(documents_of(hashes), tally)]
    assert kept == list(dict.fromkeys(hashes))
    assert tally.duplicates == tally.duplicate_bytes == len(hashes) - len(kept)


def test_pieces_of_one_document_are_no_duplicates_of_each_other() -> None:
    def book(*hashes: int) -> list[Document]:
        return [Document(str(hash), "f", 1, 1, hash, hashes[0], number) for number, hash in enumerate(hashes)]

    tally = Tally()
    documents = [*book(1, 2, 2, 1), *book(2), *book(3, 3), *book(1, 2, 2, 1), *book(4, 1, 3)]
    kept = [document.hash for document in without_duplicates(documents, tally)]
    assert kept == [1, 2, 2, 1, 3, 3, 4]
    assert tally.duplicates == len(documents) - len(kept)


def test_only_exact_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("um\ndois\num\nUm\num \ndois\n")
    tally = Tally()
    config = SourceConfig(sources=(str(path),), documents="line")
    kept = [document.text for document in without_duplicates(read_documents(config, tally), tally)]
    assert kept == ["um", "dois", "Um", "um "]
    assert tally.warnings() == (f"2 exact duplicates of earlier documents were left out, the first: {path}:3",)
