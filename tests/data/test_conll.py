"""Sentences with labels: CoNLL, CoNLL-U, lists and spans; every mistake with its line."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.labelled_files import conllu, written
from hypothesis import given
from hypothesis import strategies as st

from palavra.data import conll
from palavra.data.characters import split_words
from palavra.data.conll import ConllSentence, read_tagged
from palavra.errors import PalavraError


def pairs(path: str, **settings: Any) -> list[list[tuple[str, str]]]:
    return [list(zip(each.words, each.labels, strict=True)) for each in read_tagged(path, **settings)]


def wrong(path: str, **settings: Any) -> str:
    with pytest.raises(PalavraError) as caught:
        list(read_tagged(path, **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Columns

CONLL = "\ufeff-DOCSTART- -X- O\r\n\r\n\r\nAna NP B-PESSOA\r\nri\u00a0alto  V O\r\n \t\r\n\r\nÉ V O\r\n"


@pytest.mark.parametrize("suffix", [".conll", ".txt", ".tsv", ".bio", ".iob"])
def test_columns(suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"a{suffix}", CONLL)
    assert list(read_tagged(path)) == [
        ConllSentence(
            words=("Ana", "ri\u00a0alto"),
            labels=("B-PESSOA", "O"),
            where=f"{path}:4",
            text="Ana ri\u00a0alto",
            spans=((0, 3), (4, 11)),
        ),
        ConllSentence(words=("É",), labels=("O",), where=f"{path}:8", text="É", spans=((0, 1),)),
    ]
    assert pairs(path, label_column=1)[0] == [("Ana", "NP"), ("ri\u00a0alto", "V")]
    assert pairs(path, word_column=1, label_column=0)[1] == [("V", "É")]
    assert pairs(written(tmp_path / f"b{suffix}.gz", gzip.compress(CONLL.encode()))) == pairs(path)


def test_tabs_keep_blanks_and_quotes(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", 'palavra\tclasse\nNova York\tlugar não físico \n"\tO\n')
    assert pairs(path, word_column="palavra", label_column="classe") == [
        [("Nova York", "lugar não físico"), ('"', "O")]
    ]
    assert pairs(path)[0][0] == ("palavra", "classe")


def test_sentences_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conll, "_LONGEST_SENTENCE", 3)
    assert len(pairs(written(tmp_path / "a.conll", "a O\n" * 3))[0]) == 3
    path = written(tmp_path / "a.conll", "\n" + "a O\n" * 4)
    assert f"{path}:2: a sentence of more than 3 words" in wrong(path)


def test_other_files(tmp_path: Path) -> None:
    assert "this is a folder" in wrong(str(tmp_path))
    assert "unknown kind of file; it must be .conll, .conllu" in wrong(written(tmp_path / "a.doc", "x"))


WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=5)


@given(st.lists(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4), min_size=1, max_size=4))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, sentences: list[list[tuple[str, str]]]
) -> None:
    content = "\n".join("".join(f"{word}\t{label}\n" for word, label in sentence) for sentence in sentences)
    path = written(tmp_path_factory.mktemp("columns") / "a.conll", content)
    assert pairs(path) == sentences
    for sentence in read_tagged(path):
        assert tuple(sentence.text[start:end] for start, end in sentence.spans) == sentence.words


# CoNLL-U


ROWS = (
    "1 Ri V _",
    "2-3 das _ SpaceAfter=No",
    "2 de ADP _",
    "3 as DET _",
    "3.1 foi V _",
    "4 ! PUNCT Gloss=x|SpaceAfter=No",
)


def test_conllu(tmp_path: Path) -> None:
    path = written(tmp_path / "a.conllu", conllu(*ROWS) + conllu(*ROWS, text="Ri  das! ") + conllu("1 Sim INTJ _"))
    first, second, third = read_tagged(path)
    assert first.words == ("Ri", "de", "as", "!")
    assert first.labels == ("V", "ADP", "DET", "PUNCT")
    assert first.text == "Ri das!"
    assert first.spans == ((0, 2), (3, 6), (3, 6), (6, 7))
    assert (second.words, second.text) == (first.words, "Ri  das!")
    assert second.spans == ((0, 2), (4, 7), (4, 7), (7, 8))
    assert (third.text, third.where) == ("Sim", f"{path}:17")
    assert pairs(path, word_column="lemma", label_column="form")[2] == [("sim", "Sim")]
    assert pairs(path, label_column=7)[2] == [("Sim", "root")]


def test_conllu_columns_have_names(tmp_path: Path) -> None:
    path = written(tmp_path / "a.conllu", conllu("1 a X _"))
    assert "no column 'xpo' (is it 'xpos'?)" in wrong(path, label_column="xpo")


# Records


def jsonl(path: Path, *rows: dict[str, Any]) -> str:
    return written(path, "".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("word", "label"), [("tokens", "ner_tags"), ("words", "labels"), ("tokens", "tags"), ("w", "l")]
)
def test_lists(word: str, label: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {word: ["Nova York", "é"], label: ["B-lugar não físico", "O"]},
        {word: [], label: []},
        {word: ["a"], label: [3]},
    ]
    named: dict[str, Any] = {"word_column": "w", "label_column": "l"} if word == "w" else {}
    expected = [[("Nova York", "B-lugar não físico"), ("é", "O")], [("a", "3")]]
    path = jsonl(tmp_path / "a.jsonl", *rows)
    assert pairs(path, **named) == expected
    assert [each.where for each in read_tagged(path, **named)] == [f"{path}:1", f"{path}:3"]
    assert pairs(written(tmp_path / "a.json", json.dumps(rows)), **named) == expected
    pq.write_table(pa.Table.from_pylist(rows[:2]), tmp_path / "a.parquet")
    assert pairs(str(tmp_path / "a.parquet"), **named) == expected[:1]


def test_spans_become_labels(tmp_path: Path) -> None:
    text = "😀 Ana Sá foi\n\u00e0 Baía."
    spans = [{"start": 13, "end": 19, "label": "LOC"}, {"start": 2, "end": 8, "label": "PER"}]
    path = jsonl(tmp_path / "a.jsonl", {"text": text, "spans": spans}, {"text": " ", "spans": []})
    (sentence,) = read_tagged(path)
    assert sentence.text == text
    assert sentence.words == ("😀", "Ana", "Sá", "foi", "à", "Baía", ".")
    assert sentence.labels == ("O", "B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O")
    assert (sentence.words, sentence.spans) == split_words(text)
    path = jsonl(tmp_path / "b.jsonl", {"body": text, "marks": [[2, 5, "PER"]]})
    assert pairs(path, word_column="body", label_column="marks")[0][1] == ("Ana", "B-PER")
