"""What a fine-tuned model predicts from: records, texts and lines, from files and standard input."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from builders.models import CPU, model_config
from builders.prediction import EXAMPLES, FITTED, flags, model_of, renamed
from builders.tasks import classification_of, trained
from typer.testing import CliRunner

import palavra
from palavra.api.predict import predict_all, predict_inputs
from palavra.cli import app
from palavra.errors import PalavraError, options_as_flags
from palavra.inference.finetuned import FineTunedModel
from palavra.inference.task_inputs import in_parts, inputs_of_file
from palavra.tasks.saved_model import build_task_model
from palavra.tasks.spec import TaskSpec

# Files and standard input


def predicted(folder: Path, *arguments: str, stdin: str | bytes = b"") -> list[dict[str, Any]]:
    """What the command prints."""
    done = CliRunner().invoke(app, ["predict", str(folder), *arguments], input=stdin, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("kind", FITTED)
def test_every_kind_predicts_from_records_of_files_and_of_standard_input(
    folders: Path, tmp_path: Path, kind: str
) -> None:
    """Labels are not looked at, and need not be there."""
    given = {name: value for name, value in EXAMPLES[kind].items() if name not in ("label", "answers")}
    lines = f"{json.dumps(given)}\n\n{json.dumps({**EXAMPLES[kind], 'label': '?'})}\n"
    file, nameless = tmp_path / "t.jsonl", tmp_path / "nameless"
    for each in (file, nameless):
        each.write_text(lines, encoding="utf-8")
    model = palavra.load(folders / kind, kind="fine-tuned")
    expected = model.predict([given, given]).to_json()
    assert predicted(folders / kind, "--file", str(file)) == expected
    assert predicted(folders / kind, "--file", str(nameless), "--format", "jsonl") == expected
    assert predicted(folders / kind, "--file", "-", "--format", "jsonl", stdin=lines) == expected
    _, columns = renamed(kind)
    others = json.dumps({columns[name]: value for name, value in given.items()})
    named = flags({name: columns[name] for name in given})
    assert predicted(folders / kind, "--file", "-", "--format", "jsonl", *named, stdin=others) == [
        model.predict(given).to_json()
    ]


@pytest.mark.parametrize(
    ("kind", "lines", "said"),
    [
        ("pairs", '{"text_a": "a", "text_b": "b"}\n{"text_a": "a",\n', r"^stdin:2: not valid JSON \([^\n]*\)$"),
        ("pairs", '{"text_a": "a", "text_b": "b"}\n\n["a", "b"]\n', r"^stdin:3: a JSON list, not an object[^\n]*$"),
        ("pairs", '{"text_a": "a"}', r"^stdin:1: no column 'text_b'[^\n]*$"),
        ("pairs", "the red boat", r"^stdin:1: not valid JSON [^\n]*$"),
        ("question-answering", '{"question": "q"}', r"^stdin:1: give a mapping with question and context[^\n]*$"),
        ("multiple-choice", '{"text": "a", "choices": "b"}', r"^stdin:1: choices is 'b', not a list[^\n]*$"),
        ("token-classification", '{"words": [1]}', r"^stdin:1: word 1 is 1, not a word[^\n]*$"),
        ("classification", b'{"text": "\xe9"}', r"^stdin:1: byte 0xe9 is not valid utf-8[^\n]*$"),
        ("classification", "", r"^stdin: holds no records[^\n]*$"),
    ],
)
def test_a_malformed_line_of_standard_input_is_one_line(
    folders: Path, kind: str, lines: str | bytes, said: str
) -> None:
    with pytest.raises(PalavraError, match=said):
        predicted(folders / kind, "--file", "-", "--format", "jsonl", stdin=lines)


def test_a_text_a_line_is_the_rule_where_no_name_says_more(folders: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": "a"}\n', encoding="utf-8")
    model = palavra.load(folders / "classification", kind="fine-tuned")
    asked = predicted(folders / "classification", "--file", str(file), "--format", "text")
    assert asked == [model.predict('{"text": "a"}').to_json()]
    pairs = palavra.load(folders / "pairs", kind="fine-tuned")
    asked = predicted(folders / "pairs", "--file", "-", stdin="the boat\r\na boat\r\n")
    assert asked == [pairs.predict(("the boat", "a boat")).to_json()]
    latin = "é azul\n".encode("latin-1")
    asked = predicted(folders / "classification", "--file", "-", "--encoding", "latin-1", stdin=latin)
    assert asked == model.predict(["é azul"]).to_json()


def test_texts_and_json_lines_are_read_in_the_encoding_that_the_task_was_trained_with() -> None:
    """As the help says; another one may still be given."""
    model = model_of("classification", encoding="latin-1")
    expected = model.predict(["é azul"]).to_json()

    def said(content: str, written: str, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode(written))))
            return list(predict_inputs(model, (), "-", **options))

    for content, format in (("é azul\n", "text"), ('{"text": "é azul"}\n', "jsonl")):
        assert said(content, "latin-1", format=format) == expected
        assert said(content, "utf-8", format=format, encoding="utf-8") == expected


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_texts_and_json_lines_are_read_as_their_text(folders: Path, tmp_path: Path, suffix: str) -> None:
    folder = folders / "classification"
    expected = palavra.load(folder, kind="fine-tuned").predict(["the red boat", "é azul"]).to_json()
    texts, lines = tmp_path / f"t.txt{suffix}", tmp_path / f"nameless{suffix}"
    records = '{"text": "the red boat"}\n{"text": "é azul"}\n'
    for file, content in ((texts, "the red boat\né azul\n"), (lines, records)):
        file.write_bytes(pa.compress(content.encode(), {".gz": "gzip", ".zst": "zstd"}[suffix], asbytes=True))
    assert predicted(folder, "--file", str(texts)) == expected
    assert predicted(folder, "--file", str(lines), "--format", "jsonl") == expected
    texts.write_bytes(texts.read_bytes()[:-5])
    with pytest.raises(PalavraError, match=r"t\.txt[^\n]*: cannot be read to its end, the file is damaged[^\n]*$"):
        predicted(folder, "--file", str(texts))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "--text", "t"], r"^--text means nothing here: the texts are given as arguments$"),
        (["a", "--format", "jsonl"], r"^--format means nothing here: the texts"),
        (["a", "--encoding", "latin-1"], r"^--encoding means nothing here: the texts"),
        (["--file", "-", "--text", "t"], r"^--text means nothing here: - is read as one text a line; [^\n]*--format"),
        (["a", "--file", "-"], r"^give texts, or --file \(- for standard input\), one of the two$"),
        ([], r"^give texts, or --file"),
        (["--file", "none.txt"], r"^none\.txt: cannot be opened \([^\n]*\)$"),
        (["--file", "hf://a:t", "--format", "jsonl"], "^--format means nothing here: hf://a:t has columns of its own$"),
        (["--file", "hf://a:t", "--format", "text"], "^--format means nothing here: hf://a:t has columns of its own$"),
        (["--file", "-"], r"^stdin: holds no text[^\n]*$"),
    ],
)
def test_options_that_mean_nothing_to_texts_are_refused(folders: Path, arguments: list[str], said: str) -> None:
    with options_as_flags(), pytest.raises(PalavraError, match=said):
        predicted(folders / "classification", *arguments)


def test_what_a_file_says_of_where_an_input_is_stays_with_it(tmp_path: Path) -> None:
    wrong = tmp_path / "t.jsonl"
    wrong.write_text('{"nothing": 1}\n', encoding="utf-8")
    for kind in FITTED:
        model = model_of(kind)
        with pytest.raises(PalavraError, match=r"t\.jsonl:1"):
            list(predict_all(model, model.reader(), inputs_of_file(model.reader(), str(wrong))))


def test_lines_of_a_file_are_inputs_with_their_place() -> None:
    model = model_of("classification")
    assert [one.where for one in in_parts(model.reader(), ["good", "bad"], "t.txt")] == ["t.txt:1", "t.txt:2"]
    with pytest.raises(PalavraError, match=r"t\.txt:2 is empty"):
        list(in_parts(model.reader(), ["good", " ", "bad"], "t.txt"))


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("empty", ["", "  \n "])
def test_an_empty_text_is_an_error_however_it_comes(kind: str, empty: str) -> None:
    with pytest.raises(PalavraError, match=r"is empty"):
        model_of(kind).predict(["good", empty])


# How many are listed


def test_as_many_of_the_most_probable_are_listed_as_asked_for(folders: Path) -> None:
    model = palavra.load(folders / "classification", kind="fine-tuned")
    assert [len(one["best"]) for one in predicted(folders / "classification", "a boat", "--top", "1")] == [1]
    (every,) = model.predict(["a boat"], top=9)
    assert [one["label"] for one in every["best"]] in (["a", "b"], ["b", "a"])
    assert sum(one["probability"] for one in every["best"]) == pytest.approx(1)
    (answers,) = palavra.load(folders / "question-answering", kind="fine-tuned").predict(
        [("which?", "the red boat and the blue one")], top=7
    )
    assert len(answers["best"]) == 7
    for kind in ("regression", "token-classification", "multiple-choice"):
        with pytest.raises(
            PalavraError, match=f"top= does not apply to {kind}; it applies to classification and question-answering"
        ):
            palavra.load(folders / kind, kind="fine-tuned").predict([EXAMPLES[kind]], top=2)
    with pytest.raises(PalavraError, match="top= is 0"):
        model.predict(["a boat"], top=0)


@pytest.mark.parametrize("several", [False, True])
def test_the_listed_classes_are_the_most_probable_of_very_many(several: bool) -> None:
    labels = tuple(f"l{n:03}" for n in range(300))
    spec = TaskSpec(kind="classification", multilabel=several)
    task = classification_of(spec, labels, (1,) * 300)
    tokenizer = trained()
    config = model_config("bert", vocab_size=tokenizer.vocab_size)
    torch.manual_seed(0)
    model = FineTunedModel(build_task_model(config, {"task": task}).eval(), {"task": task}, tokenizer, CPU)
    (all_of_them,), (some,), (five,) = (model.predict(["the red boat"], top=top) for top in (300, 12, None))
    probabilities = [one["probability"] for one in all_of_them["best"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert {one["label"] for one in all_of_them["best"]} == set(labels)
    assert some["best"] == all_of_them["best"][:12]
    assert five["best"] == all_of_them["best"][:5]


# What is right beside what is said


@pytest.mark.parametrize("kind", FITTED)
def test_an_evaluation_writes_what_is_right_beside_what_is_said(folders: Path, tmp_path: Path, kind: str) -> None:
    lines = json.dumps(EXAMPLES[kind])
    file, said = tmp_path / "t.jsonl", tmp_path / "said.jsonl"
    file.write_text(f"{lines}\n{lines}\n", encoding="utf-8")
    palavra.evaluate(folders / kind, file, predictions=said, label="label" if kind == "token-classification" else None)
    (first, _) = (json.loads(line) for line in said.read_text(encoding="utf-8").splitlines())
    expected = EXAMPLES[kind].get("answers", EXAMPLES[kind].get("label"))
    assert list(first)[:2] == ["where", "gold"]
    assert first["gold"] == expected


@pytest.mark.parametrize("wrong", [None, 3])
def test_what_is_no_input_is_one_line(wrong: Any) -> None:
    with pytest.raises(PalavraError, match=f"^inputs is of type {type(wrong).__name__}: give a text, a dict"):
        model_of("classification").predict(wrong)
