"""Mistakes in sources: each reported in one line with file and line, or fixed and counted."""

from pathlib import Path

import numpy as np
import pytest
from builders.sources import read, texts, wrong

from palavra.data.sources import Tally
from palavra.inference.embedding import Embedding
from palavra.inference.export import write_embeddings
from palavra.output import Kind, claimed


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


@pytest.mark.parametrize("kind", ["run", "text", "tokenizer"])
def test_what_is_written_beside_the_text_is_no_text_the_next_time(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Um.")
    own = {"run": "metrics.jsonl", "text": "manifest.json", "tokenizer": "tokenizer.json"}[kind]
    with claimed(tmp_path / "out", kind):
        (tmp_path / "out" / own).write_text('{"text": "0.5"}')
        if kind == "run":
            (tmp_path / "out" / "data").mkdir()
            (tmp_path / "out" / "data" / "train.jsonl").write_text('{"text": "0.5"}')
    for source in (tmp_path, tmp_path / "**"):
        tally = Tally()
        assert texts(source, tally=tally) == ["Um."]
        assert tally.runs == 1
    if kind == "run":
        assert texts(tmp_path / "out" / "data") == ["0.5"]  # named by itself, it is meant


EMBEDDED = [
    Embedding('a "quoted" text \\', np.ones(3, dtype=np.float32), ((0, 2),), False),
    Embedding("um", np.zeros((1, 3), dtype=np.float32), ((0, 2),), False),
    Embedding("", np.zeros((0, 3), dtype=np.float32), (), False),
]


@pytest.mark.parametrize("embedded", EMBEDDED)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_embeddings_beside_the_text_are_no_text_the_next_time(suffix: str, embedded: Embedding, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Um.")
    vectors = tmp_path / f"vectors{suffix}"
    write_embeddings([[embedded]], vectors, suffix)
    tally = Tally()
    assert texts(tmp_path, tally=tally) == ["Um."]
    assert tally.warnings() == (
        f"1 files hold embeddings or predictions that Palavra wrote, and were not read as text, the first: {vectors}",
    )
    if embedded.text:
        assert texts(vectors) == [embedded.text]


def test_predictions_are_no_text_and_what_only_looks_alike_is(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"where": "a.csv:1", "gold": "x", "label": "x", "text": "no"}\n')
    (tmp_path / "q.jsonl").write_text('{"text": "yes", "vector": null}\n')
    (tmp_path / "r.jsonl").write_text('{"text": "too", "tokens": ["a"]}\n')
    assert texts(tmp_path) == ["yes", "too"]


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


def test_nul_and_half_pairs_are_fixed_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a\\u0000bcdef"}\n{"text": "x\\ud83dy"}\n{"text": "\\ud83d\\ude00"}\n{"text": " "}\n')
    tally = Tally()
    assert [document.text for document in read(path, tally=tally)] == ["abcdef", "x\ufffdy", "\U0001f600"]
    assert tally.warnings() == (
        f"1 empty documents were left out, the first: {path}:4",
        f"1 documents held NUL characters, which were removed, the first: {path}:1",
        f"1 documents held half surrogate pairs, which became U+FFFD, the first: {path}:2",
    )
    (tmp_path / "b.txt").write_bytes("text".encode("utf-16-le"))
    assert "b.txt:1: NUL characters all over; if the text is UTF-16" in wrong(tmp_path / "b.txt")


def test_a_record_without_the_column_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n{"id": 1}\n{"text": null}\n')
    tally = Tally()
    assert len(read(path, tally=tally)) == 1
    assert tally.missing == 2
    assert tally.first["missing"] == f"{path}:2"
