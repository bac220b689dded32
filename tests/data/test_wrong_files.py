"""Files that cannot be read, of every kind: one line with the file, the line and what is wrong there."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.labelled_files import conllu, squad, written
from builders.sources import read

from palavra.data import decoding
from palavra.data.config import ReadConfig
from palavra.data.conll import read_tagged
from palavra.data.records import read_records
from palavra.data.squad import read_questions
from palavra.errors import PalavraError

TEXTS: list[tuple[str, str]] = [
    ('{"body": "x", "id": 1}\n', ":1: no column 'text'; name the one with the text"),
    ('{"text": "x"}\n{"text": \n', ":2: not valid JSON"),
    ('{"text": "x"}\n\n["x"]\n', ":3: a JSON list, not an object"),
    ('{"text": ["x"]}\n', ":1: column 'text' holds a list, not text"),
    ("[" * 100_000, ":1: not readable JSON ("),
    ('{"text": ' + "1" * 5000 + "}", ":1: not readable JSON ("),
    ("{}", ":1: no column 'text'; name the one with the text (column=), there are: none"),
]

TABLES: list[tuple[str, str]] = [
    ("text,label\na,1\n\nb\n", ":4: 1 field, where the header has 2 columns"),
    ("text,label\na,1,2\n", ":2: 3 fields, where the header has 2 columns"),
    ("text,label,text\na,1,b\n", ":1: 2 columns of the header are named 'text'"),
    ("text, text\na,1\n", ":1: 2 columns of the header are named 'text'"),
    ("\ntext,,label\na,,2\na,1,2\n", ":4: column 2 holds '1', but the header has no name for it"),
    (",,\na,1,2\n", ":1: column 1 of the header has no name"),
    ('text,label\na,1\n"b,2\nc,3\n', ":3: a quote that opens in this record is never closed"),
    ('text,label\na,1\n"b" c,2\n', ":3: a quote that opens a field of this record closes before the field ends"),
    ('text,label\n"b,2\nc,3\nsaid "d",4\n', ":2: a quote that opens a field of this record closes before"),
    ("text,label\n", ": holds no records"),
    ("", ": holds no records"),
    ("\ufeff\n \n", ": holds no records"),
    ("text,label\na\0,1\n", ":2: a NUL character; if the text is UTF-16"),
]

JSON_RECORDS: list[tuple[str, str, str]] = [
    ("a.jsonl", '{"a": 1}\n{"a": 1,}\n', ":2: not valid JSON ("),
    ("a.jsonl", '{"a": 1}\n["a"]\n', ":2: a JSON list, not an object"),
    ("a.jsonl", '{"a": ' + "1" * 5000 + "}\n", ":1: not readable JSON ("),
    ("a.jsonl", "[" * 200_000, ":1: not readable JSON ("),
    ("a.jsonl", '{"a": "x \\ud83d"}\n', ":1: \\ud83d is half of a character"),
    ("a.jsonl", "\n", ": holds no records"),
    ("a.json", "", ":1: a list of objects, [{...}, ...], is expected here, but the file ends"),
    (
        "a.json",
        '\n{"a": 1}\n{"a": 2}',
        ":2: a list of objects, [{...}, ...], is expected here, but the file begins",
    ),
    (
        "a.json",
        '\n{"train": [["a", "b"]]}',
        ": holds no records",
    ),
    ("a.json", '[{"a": 1},\n{"a": }]', ":2: not valid JSON (Expecting value, column 7)"),
    ("a.json", '[{"a": 1},\n]', ":2: not valid JSON (A comma before the end, column 1)"),
    ("a.json", '[{"a": 1}\n{"a": 2}]', ":2: not valid JSON (Expecting ',' or ']', column 1)"),
    ("a.json", '[{"a": 1}', ":1: not valid JSON (Expecting ',' or ']', column 10)"),
    ("a.json", '[{"a": 1}] x', ":1: not valid JSON (Extra data, column 12)"),
    ("a.json", '[{"a": 1},\n\n 3]', ":3: a JSON number, not an object"),
    ("a.json", "[" * 200_000, ":1: not readable JSON ("),
    ("a.json", "[ ]", ": holds no records"),
]

COLUMNS: list[tuple[str | bytes, dict[str, Any], str]] = [
    ("a O\nb X O\n", {}, ":2: 3 columns, where line 1 has 2"),
    ("a\tO\n\nb O\n", {}, ":3: 1 column, where line 1 has 2; columns are divided by tabs here: correct the row"),
    ("a\tO\nb\t\n", {}, ":2: the label is empty"),
    ("a\tO\n \tO\n", {}, ":2: the word is empty"),
    ("a\nb\n", {}, ":1: there is only one column; words and labels need one each (words=, label=)"),
    ("a O\n", {"label_column": 0}, ":1: words and labels are both column 0"),
    ("a O\n", {"label_column": 2}, ":1: no column 2, there are 2, the first is 0; name the right one with label="),
    (
        "w t\na O\n",
        {"word_column": "W"},
        ":2: no column 'W' (is it 'w'?); there are: 'w', 't'; name the right one with words=",
    ),
    ("", {}, ": holds no sentences"),
    ("-DOCSTART- O\n\n", {}, ": holds no sentences"),
    ("word tag\n", {"word_column": "word"}, ": holds no sentences"),
    ("coração O\n".encode("latin-1"), {}, ":1: byte 0xe7 is not valid utf-8; if the text is latin-1"),
    ("a O\n".encode("utf-16-le"), {}, ":1: a NUL character; if the text is UTF-16"),
]

CONLLU: list[tuple[str, str]] = [
    ("1\ta\tb\n", ":1: 3 columns; CoNLL-U has 10"),
    (conllu("x a b _"), ":1: 'x' is not the number of a word"),
    (conllu("3-2 a b _", "3 a b _"), ":1: the range 3-2 ends before it begins"),
    (
        conllu("1 a X _", "2 b X _", text="a c"),
        ":4: 'b' is not at its place in the text of line 2, which continues with",
    ),
    ("# text = a\n", ": holds no sentences"),
    (conllu("1.1 a X _"), ": holds no sentences"),
]

TAGGED_RECORDS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"tokens": ["a", "b"], "tags": ["O"]}, {}, "2 words and 1 label: give every word one label"),
    ({"tokens": ["a", ""], "tags": ["O", "O"]}, {}, "word 2 is empty"),
    ({"tokens": ["a"], "tags": [None]}, {}, "label 1 is a JSON null, not text"),
    ({"tokens": ["a"], "tags": "O"}, {}, "the labels are a JSON text, not a list"),
    ({"tokens": ["a"], "tags": ["O"], "ner_tags": ["O"]}, {}, "which of 'tags', 'ner_tags' is meant?"),
    (
        {"tokens": ["a"], "upos": ["X"]},
        {},
        "no column 'labels'; there are: 'tokens', 'upos'; name the right one with label=",
    ),
    ({"tokens": ["a"], "upos": ["X"]}, {"label_column": 1}, "columns have names here, not numbers"),
    ({"text": "Ana ri", "spans": [[0, 2, "A"]]}, {}, "span 0-2 ('An') does not begin and end with a word"),
    ({"text": "Ana ri", "spans": [[0, 4, "A"]]}, {}, "span 0-4 ('Ana ') does not begin and end with a word"),
    ({"text": "Ana ri", "spans": [[4, 7, "A"]]}, {}, "span 4-7 ('ri') is not inside the text of 6 characters"),
    ({"text": "Ana ri", "spans": [[3, 3, "A"]]}, {}, "span 3-3 ('') is not inside"),
    ({"text": "Ana ri", "spans": [[0, 6, "A"], [4, 6, "B"]]}, {}, "span 4-6 ('ri') overlaps another span"),
    ({"text": "Ana ri", "spans": [{"start": 0, "end": 3}]}, {}, "\"{'start': 0, 'end': 3}\" is not a span, such as"),
    ({"text": "Ana ri", "spans": {}}, {}, "the spans are a JSON object, not a list"),
]

QUESTIONS: list[tuple[str, str]] = [
    ("{}", ":data: missing; SQuAD's JSON is data[].paragraphs[].qas[]"),
    ('{"data": {}}', ":data: a JSON object, not a list"),
    ('{"data": [{}]}', ":data[0].paragraphs: missing"),
    ('{"data": [3]}', ":data[0]: a JSON number, not an object"),
    ('{"data": [{"paragraphs": [{"qas": []}]}]}', ":data[0].paragraphs[0]: 'context' is missing"),
    ('{"data": [\n}', ":2: not valid JSON ("),
    ('{"data": []}', ": holds no questions"),
    (squad({}), ":data[0].paragraphs[0].qas[0]: 'answers' is missing"),
    (squad({"answers": [{"answer_start": 1}]}), ":data[0].paragraphs[0].qas[0]: an answer without 'text'"),
    (squad({"answers": [], "id": None}), ":data[0].paragraphs[0].qas[0]: 'id' is a JSON null, not text"),
    (squad({"answers": [], "question": " "}), ":data[0].paragraphs[0].qas[0]: 'question' is empty"),
    (
        squad({"answers": [{"text": "Ana"}], "is_impossible": True}),
        ":data[0].paragraphs[0].qas[0]: is_impossible is true, but there are",
    ),
    (squad({"answers": []}, {"answers": []}), ":data[0].paragraphs[0].qas[1]: the id 'q' is also at"),
    ("[]", ": holds no records"),
    ("", ":1: a list of objects"),
    ('[{"id": "1", "question": "Q", "context": "c"}]', ":1: no column 'answers'; there are: 'id'"),
    ('[\n{"id": "1", "context": "c", "answer": "c"}]', ":2: no column 'question'; there are: 'id'"),
    ('[{"id": "", "question": "Q", "context": "c", "answer": "c"}]', ":1: 'id' is empty"),
    ('[{"id": 1, "question": "Q", "context": "c", "answers": 3}]', ":1: the answers are a JSON number, not a list"),
    ('[{"answers": [], "question": "Q"}]', ":1: no column 'context'; there are: 'answers', 'question'; name the"),
    (
        '[{"question": "Q", "context": "a", "answers": {"text": ["a"], "answer_start": []}}]',
        ":1: 1 texts of answers, but not as many answer_start",
    ),
]

ANSWERS: list[tuple[dict[str, Any], str]] = [
    (
        {"text": "Ana", "answer_start": 5},
        "the answer 'Ana' is not at character 5 of the context; answer_start counts UTF-16",
    ),
    ({"text": "Ana", "answer_start": 6}, "the answer 'Ana' is not at character 6 of the context; it is at 4"),
    ({"text": "Ana", "answer_start": -1}, "the answer 'Ana' is not at character -1"),
    ({"text": "Ana", "answer_start": 10**30}, "the answer 'Ana' is not at character 1000"),
    ({"text": "Eva", "answer_start": 4}, "the answer 'Eva' is nowhere in the context; copy it from there"),
    ({"text": "Eva"}, "the answer 'Eva' is nowhere in the context"),
    ({"text": "", "answer_start": 0}, "an answer is empty; a question without one has no answers at all"),
    ({"text": 3, "answer_start": 0}, "an answer is a JSON number, not text"),
    ({"text": "Ana", "answer_start": "x"}, "answer_start is 'x', not a whole number"),
    ({"text": "Ana", "answer_start": 4.5}, "answer_start is '4.5', not a whole number"),
]

READERS: dict[str, Callable[..., Iterable[Any]]] = {
    "texts": read, "records": read_records, "tagged": read_tagged, "questions": read_questions,
}  # fmt: skip
Case = tuple[str, str, str | bytes, dict[str, Any], str]


def cases() -> Iterator[Case]:
    """What reads the file, its name and content, settings of the reader, and what is said after the file's name."""
    yield from (("texts", "a.jsonl", content, {}, message) for content, message in TEXTS)
    yield from (("records", "a.csv", content, {}, message) for content, message in TABLES)
    yield from (("records", name, content, {}, message) for name, content, message in JSON_RECORDS)
    yield from (("tagged", "a.conll", content, settings, message) for content, settings, message in COLUMNS)
    yield from (("tagged", "a.conllu", content, {}, message) for content, message in CONLLU)
    for row, settings, message in TAGGED_RECORDS:
        before = {"tokens": [], "tags": []} if "tags" in row else row
        line = 2 if "tags" in row else 1
        yield "tagged", "a.jsonl", f"{json.dumps(before)}\n{json.dumps(row)}\n", settings, f":{line}: {message}"
    yield from (("questions", "a.json", content, {}, message) for content, message in QUESTIONS)
    for answer, message in ANSWERS:
        place = ":data[0].paragraphs[0].qas[0]: question 'q': "
        yield "questions", "a.json", squad({"answers": [answer]}), {}, f"{place}{message}"


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: f"{case[0]}-{case[1]}-{case[4][:40]}")
def test_a_file_that_cannot_be_read_is_one_line_with_its_place(case: Case, tmp_path: Path) -> None:
    reader, name, content, settings, message = case
    path = written(tmp_path / name, content)
    with pytest.raises(PalavraError) as caught:
        list(READERS[reader](path, **settings))
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "encoding", ["klingon", "undefined", "idna", "punycode", "rot13", "unicode_escape", "base64", "a\0b", "", "x" * 500]
)
def test_what_is_no_encoding_of_text(encoding: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label\na,b\n")
    with pytest.raises(PalavraError, match=r"unknown encoding .*: use for example utf-8") as caught:
        list(read_records(str(path), ReadConfig(encoding=encoding)))
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl.gz", "a.parquet", "a.json", "a.conll"])
def test_a_named_pipe_is_no_file(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    reader: Callable[[str], Iterable[Any]] = read_tagged if name == "a.conll" else read_records
    with pytest.raises(PalavraError, match="a pipe, socket or device, not a file"):
        list(reader(str(tmp_path / name)))


def test_an_error_of_encoding_names_its_line_whatever_ends_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for end in (b"\r", b"\n", b"\r\n"):
        for block in (1, 2, 3, 1 << 20):
            monkeypatch.setattr(decoding, "_BLOCK", block)
            path = tmp_path / "a.csv"
            path.write_bytes(b"text,label" + end + (b"a,b" + end) * 6 + b"caf\xe9,b" + end)
            with pytest.raises(PalavraError, match=r"a\.csv:8: byte 0xe9"):
                list(read_records(str(path)))
