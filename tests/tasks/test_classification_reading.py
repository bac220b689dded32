"""SequenceClassification: reading labels and inputs."""

import json
import unicodedata
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.classification import PAIRS, SEVERAL, SPEC, example, examples_of, labels_of, write
from builders.tasks import classification_of, fit, read

from palavra.errors import PalavraError
from palavra.finetuning.run_info import summary_lines
from palavra.model.config import HeadConfig, OutputConfig
from palavra.tasks.labels import alike_labels
from palavra.tasks.spec import Columns, TaskSpec, TokenClassificationOptions, check_fields


def test_a_spreadsheets_csv_is_read_as_it_is_meant(tmp_path: Path) -> None:
    """A byte order mark, semicolons, quotes and line ends in fields, labels with blanks and accents."""
    text = (
        "\ufefftext;label\r\n"
        '"uma ""boa"" praia;\r\nmesmo";muito bom\r\n'
        "o mar, calmo;não é mau\r\n"
        '"fim";  muito bom \r\n'
    )
    examples = read(SPEC, write(tmp_path / "t.csv", text))
    assert [one.first for one in examples] == ['uma "boa" praia;\nmesmo', "o mar, calmo", "fim"]
    assert labels_of(examples) == [("muito bom",), ("não é mau",), ("muito bom",)]
    assert [one.where.rpartition(":")[2] for one in examples] == ["2", "4", "5"]
    task = fit(SPEC, examples)
    assert task.output.labels == ("muito bom", "não é mau")
    assert task.output.counts == (2, 1)
    assert task.encoder.summary(examples)["labels"] == {"muito bom": 2, "não é mau": 1}


def test_another_encoding_is_read_when_it_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", "text,label\nação,sã\nmão,vã\n", "latin-1")
    assert labels_of(read(replace(SPEC, encoding="latin-1"), source)) == [("sã",), ("vã",)]
    with pytest.raises(PalavraError, match=r"^.*t\.csv:2\b[^\n]*$"):
        read(SPEC, source)


def test_columns_have_the_names_they_are_given(tmp_path: Path) -> None:
    source = write(tmp_path / "t.tsv", "premise\thypothesis\tgold\na b\tc\tyes\nd\te f\tno\n")
    columns = Columns(text_a="premise", text_b="hypothesis", label=("gold",))
    examples = read(replace(PAIRS, columns=columns), source)
    assert [(one.first, one.second, one.label) for one in examples] == [("a b", "c", ("yes",)), ("d", "e f", ("no",))]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 0, 2.0, True], ["0", "1", "2", "true"]),
        (["10", "9", "-1", "x", "1.5"], ["-1", "1.5", "9", "10", "x"]),
        (["nan", "b", "2", "inf", "a"], ["2", "a", "b", "inf", "nan"]),
        ([2.5, 1], ["1", "2.5"]),
    ],
)
def test_labels_are_texts_in_natural_order(tmp_path: Path, labels: list[Any], expected: list[str]) -> None:
    for order in (labels, labels[::-1]):
        lines = [json.dumps({"text": "x", "label": label}) for label in order]
        examples = read(SPEC, write(tmp_path / "t.jsonl", "\n".join(lines)))
        assert fit(SPEC, examples).output.labels == tuple(expected)


def test_an_accent_written_apart_makes_no_other_label(tmp_path: Path) -> None:
    apart, whole = (unicodedata.normalize(form, "não") for form in ("NFD", "NFC"))
    source = write(tmp_path / "t.csv", f"text,label\na,{apart}\nb,{whole}\nc,sim\n")
    task = fit(SPEC, read(SPEC, source))
    assert (task.output.labels, task.output.counts) == ((whole, "sim"), (2, 1))
    lists = write(tmp_path / "t.jsonl", json.dumps({"text": "x", "label": [apart, whole, "sim"]}) + "\n")
    assert read(SPEC, lists)[0].label == (whole, "sim")
    # Of a model whose labels are as they are.
    foreign = classification_of(SPEC, (apart, "sim"), (1, 1))
    foreign.encoder.check(read(SPEC, source))


def test_several_labels_come_in_lists_or_parted(tmp_path: Path) -> None:
    lines = [{"text": "x", "label": ["b", "a", "b"]}, {"text": "y", "label": []}, {"text": "z", "label": ["a"]}]
    source = write(tmp_path / "t.jsonl", "\n".join(json.dumps(line) for line in lines))
    task = fit(SPEC, read(SPEC, source))
    assert (task.spec.multilabel, task.output.labels, task.output.counts) == (True, ("a", "b"), (2, 1))
    table = write(tmp_path / "t.csv", 'text,label\nx,"b, a,b"\ny,\nz,a\n')
    assert labels_of(read(SEVERAL, table)) == [("b", "a"), (), ("a",)]
    bars = write(tmp_path / "b.csv", "text,label\nx,b | a\ny,a\n")
    assert labels_of(read(replace(SEVERAL, separator="|"), bars)) == [("b", "a"), ("a",)]
    # Without being asked to, a comma parts nothing.
    assert labels_of(read(SPEC, write(tmp_path / "c.csv", 'text,label\nx,"b, a"\ny,c\n'))) == [
        ("b, a",),
        ("c",),
    ]


def test_labels_of_parquet_are_numbers_and_days_too(tmp_path: Path) -> None:
    labels = pa.array([Decimal("1.50"), Decimal("2.00")])
    days = pa.array([date(2026, 1, 2), date(2026, 1, 3)])
    table = pa.table({"text": ["x", "y"], "label": labels, "day": days})
    pq.write_table(table, tmp_path / "t.parquet")
    assert labels_of(read(SPEC, str(tmp_path / "t.parquet"))) == [("1.50",), ("2",)]
    by_day = replace(SPEC, columns=Columns(label=("day",)))
    assert labels_of(read(by_day, str(tmp_path / "t.parquet"))) == [
        ("2026-01-02",),
        ("2026-01-03",),
    ]


def test_a_label_that_is_only_written_otherwise_says_how(tmp_path: Path) -> None:
    task = fit(SPEC, examples_of(["TRUE", "FALSE", "1", "ótimo"]))
    for label, known in (("false", "FALSE"), ("1.0", "1"), ("ÓTIMO", "ótimo")):
        said = rf"^train\.csv:2: label '{label}' is written '{known}' in training: write it so$"
        with pytest.raises(PalavraError, match=said):
            task.encoder.check(examples_of([label]))
    assert alike_labels(["true", "True", "x", "1", "1.0", "nan", "NaN"]) == [
        ["true", "True"], ["1", "1.0"], ["nan", "NaN"],
    ]  # fmt: skip
    said = list(summary_lines({"labels": {"true": 3, "True": 1}}))[1]
    assert said.startswith("labels 'true' and 'True' differ only in how they are written")


@pytest.mark.parametrize("spec", [SPEC, SEVERAL])
def test_one_class_is_an_error(spec: TaskSpec) -> None:
    with pytest.raises(PalavraError, match=r"^train\.csv has only one label, 'a': [^\n]*$"):
        fit(spec, examples_of(["a", "a"]))
    with pytest.raises(PalavraError, match=r"^train\.csv has no label at all: [^\n]*$"):
        fit(SEVERAL, [example(0)])


def test_an_unseen_label_names_the_line_and_the_known() -> None:
    task = fit(SPEC, examples_of(["a", "b"]))
    with pytest.raises(
        PalavraError, match=r"^train\.csv:3: label 'c' was not in training, which has 'a', 'b': [^\n]*$"
    ):
        task.encoder.check(examples_of(["a", "c"]))
    many = fit(SPEC, examples_of([str(n) for n in range(30)]))
    with pytest.raises(PalavraError, match=r"'19' and 10 more: [^\n]*$"):
        many.encoder.check(examples_of(["x"]))


def test_several_labels_where_one_is_wanted_name_the_line() -> None:
    with pytest.raises(PalavraError, match=r"^train\.csv:3: 2 labels where one is expected: [^\n]*$"):
        fit(replace(SPEC, multilabel=False), examples_of(["a", ("a", "b")]))


def test_what_cannot_be_asked_for_is_an_error() -> None:
    with pytest.raises(PalavraError, match=r"^output hierarchical is for one label per example[^\n]*$"):
        fit(replace(SEVERAL, output=OutputConfig(name="hierarchical")), examples_of(["a", "b"]))


def test_inputs_are_texts_pairs_and_mappings() -> None:
    single = fit(SPEC, examples_of(["a", "b"]))
    assert [one.first for one in single.reader.inputs(["x", {"text": "y", "more": 1}])] == ["x", "y"]
    pairs = fit(PAIRS, examples_of(["a", "b"], pair=True))
    found = pairs.reader.inputs([("x", "y"), ["z", "w"], {"text_a": "u", "text_b": "v"}])
    assert [(one.first, one.second) for one in found] == [("x", "y"), ("z", "w"), ("u", "v")]


def test_a_field_of_another_kind_is_refused() -> None:
    check_fields(TaskSpec(kind="classification", label_smoothing=0.1, temperature=True))
    for spec in (
        TaskSpec(kind="regression", temperature=True),
        TaskSpec(kind="question-answering", temperature=True),
        TaskSpec(kind="question-answering", head=HeadConfig(pooling="mean")),
        TaskSpec(kind="multiple-choice", overflow="window"),
        TaskSpec(kind="classification", token_classification=TokenClassificationOptions(scheme="bio")),
        TaskSpec(kind="regression", columns=Columns(answers="a")),
        TaskSpec(kind="token-classification", separator=";"),
    ):
        with pytest.raises(PalavraError, match=f"does not apply to {spec.kind}; it applies to ") as caught:
            check_fields(spec)
        assert "\n" not in str(caught.value)
