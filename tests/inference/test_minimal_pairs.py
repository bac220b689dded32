"""Minimal pairs: accuracy by phenomenon, both kinds of models, files that hold them."""

import bz2
import gzip
import io
import json
import lzma
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.models import CPU
from builders.scoring import SENTENCES, causal_model, masked_model

from palavra.data.config import ReadConfig
from palavra.errors import PalavraError
from palavra.inference.minimal_pairs import MinimalPair, compare_pairs, read_pairs
from palavra.inference.scoring import Score, score_masked
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig


@pytest.fixture(scope="module", params=["wordpiece", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.train(SENTENCES * 5, TokenizerConfig(algorithm=request.param, vocab_size=300))


def scores(texts: Sequence[str]) -> list[Score]:
    """Shorter is likelier."""
    return [Score(text, -float(len(text)), 1, 1, len(text)) for text in texts]


def test_accuracy_by_phenomenon(tmp_path: Path) -> None:
    lines: list[dict[str, str]] = [
        {"sentence_good": "a", "sentence_bad": "bb", "UID": "one", "field": "syntax", "linguistics_term": "order"},
        {"sentence_good": "aaa", "sentence_bad": "bb", "UID": "one"},
        {"sentence_good": "a", "sentence_bad": "bb", "UID": "one"},
        {"sentence_good": "aa", "sentence_bad": "bb", "linguistics_term": "tie"},
        {"sentence_good": "a", "sentence_bad": "bb"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)))
    pairs = read_pairs(path)
    assert pairs[0] == MinimalPair("a", "bb", "one", "order", "syntax")
    found = compare_pairs(pairs, scores)
    assert {one.phenomenon: (one.pairs, one.accuracy) for one in found.phenomena} == {
        "one": (3, pytest.approx(2 / 3)),
        "tie": (1, 0.5),
        "all": (1, 1.0),
    }
    assert [(one.phenomenon, one.pairs) for one in (*found.linguistics_terms, *found.fields)] == [
        ("order", 1),
        ("syntax", 1),
    ]
    assert found.pairs == 5
    assert found.accuracy == pytest.approx(3.5 / 5)


def test_both_kinds_of_model_compare_pairs(tokenizer: Tokenizer) -> None:
    pairs = [MinimalPair("O rato roeu.", "O roeu rato.", "order"), MinimalPair("A águia voa.", "A voa águia.", "order")]
    causal, masked = causal_model(tokenizer), masked_model(tokenizer)
    for score in (causal.score, lambda texts: score_masked(masked, tokenizer, CPU, texts)):
        right = [score([p.good])[0].log_likelihood > score([p.bad])[0].log_likelihood for p in pairs]
        assert compare_pairs(pairs, score).accuracy == np.mean(right)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"sentence_good": "a"}', ":1: sentence_bad"),
        (b'{"sentence_good": "a", "sentence_bad": "b"}\n[1]', ":2: a JSON list, not an object"),
        (b'\n{"sentence_good": 3, "sentence_bad": "b"}', ":2: sentence_good"),
        (b"{", ":1: not valid JSON"),
        (b"", "holds no records"),
        (b"\xff\xfe\x00", ":1: byte 0xff is not valid utf-8"),
    ],
)
def test_broken_pairs_are_refused_with_their_line(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(PalavraError, match=what) as caught:
        read_pairs(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_of_pairs_is_refused(tmp_path: Path) -> None:
    for name in ("pairs.jsonl", "pairs"):
        with pytest.raises(PalavraError, match=rf"{name}: [^\n]*(no such file|cannot be opened)[^\n]*$"):
            read_pairs(tmp_path / name)


def test_pairs_are_read_from_whatever_holds_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [MinimalPair("a", "b", "one"), MinimalPair("é", "d", "two")]
    columns = {"sentence_good": ["a", "é"], "sentence_bad": ["b", "d"], "UID": ["one", "two"]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()
    for name, content in (
        ("pairs", lines),
        ("pairs.bz2", bz2.compress(lines)),
        ("pairs.jsonl.gz", gzip.compress(lines)),
        ("pairs.jsonl.xz", lzma.compress(lines)),
        ("pairs.jsonl.zst", pa.compress(lines, "zstd", asbytes=True)),
        ("pairs.json", json.dumps(rows).encode()),
        ("pairs.csv", "sentence_good,sentence_bad,UID\na,b,one\né,d,two\n".encode()),
    ):
        (tmp_path / name).write_bytes(content)
        assert read_pairs(tmp_path / name) == expected, name
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    assert read_pairs(tmp_path / "pairs.parquet") == expected
    (tmp_path / "latin.jsonl").write_bytes(lines.decode().encode("latin-1"))
    assert read_pairs(tmp_path / "latin.jsonl", ReadConfig(encoding="latin-1")) == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert read_pairs("-") == expected
