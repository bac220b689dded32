"""Wrong examples and inputs of every kind of task: one line with the place and what is wrong there."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import question_answering
from builders.classification import PAIRS, SPEC, examples_of
from builders.labelled_files import written
from builders.tasks import answers_of, choices_of, fit, read
from builders.token_classification import task_of

from palavra.errors import PalavraError
from palavra.tasks.spec import Columns, TaskSpec

REGRESSION = TaskSpec(kind="regression")
TWO_TARGETS = replace(REGRESSION, columns=Columns(label=("stars", "price")))
CHOICES = TaskSpec(kind="multiple-choice")
CHOICE_COLUMNS = Columns(text="question", choices=("a", "b", "c"), label=("right",))
CHOICE_TABLE = "question;a;b;c;right\nwho?;me;you;they;C\n"
EMPTY_CHOICE = "question;a;b;c;right\nwho?;me;;they;C\n"
NO_NUMBER = ":3: label is .*, not a number: "
THOUSANDS = "label is .*, not a number: write it without thousands separators or remove the line"
NO_LABEL = "label is .+"

# The specification, a file, and a pattern of what is said after its name.
FILES: list[tuple[TaskSpec, str, str, str]] = [
    (SPEC, "t.csv", "text,label\ngood,a\n,b\n", ":3: text is empty"),
    (SPEC, "t.csv", 'text,label\ngood,a\n"  \n ",b\n', ":3: text is empty"),
    (SPEC, "t.csv", "text,label\ngood,a\n\u00a0\u200b\u200d,b\n", ":3: text is empty"),
    (SPEC, "t.csv", "text,label\ngood,a\nbad,\n", ":3: label is '', not a label"),
    (SPEC, "t.csv", "txt,label\ngood,a\n", ":2: no column 'text'"),
    (SPEC, "t.csv", "text,class\ngood,a\n", ":2: no column 'label'"),
    (SPEC, "t.csv", "text,label\ngood,a\nbad\n", ":3: 1 field"),
    (SPEC, "t.csv", "text,label\ngood,a,b\n", ":2: 3 fields"),
    (SPEC, "t.csv", "text,label\n", ": holds no records"),
    (SPEC, "t.csv", "", ": holds no records"),
    (SPEC, "t.jsonl", '{"text": 5, "label": "a"}\n', ":1: text is 5, not text"),
    *(
        (SPEC, "t.jsonl", f'{{"text": "x", "label": "a"}}\n{{"text": "y", "label": {label}}}\n', f":2: {NO_LABEL}")
        for label in ("null", '{"a": 1}', '""', '["a", null]', "[[]]")
    ),
    *(
        (REGRESSION, "t.csv", f'text,label\nfine,1\nbad,"{value}"\n', ":3: label is '.*', not a number.*: ")
        for value in ("nan", "NaN", "inf", "-inf", "five", "", "1.234,5", "1 000", "1_000", "1e16")
    ),
    *(
        (REGRESSION, "t.csv", f'text,label\nfine,1\nbad,"{value}"\n', f":3: {THOUSANDS}")
        for value in ("1.000,50", "1 000,5", "12\u00a0000", "1'000.5")
    ),
    *(
        (REGRESSION, "t.csv", f"text;label\na;5\nb;{value}\n", ":3: label is .* thousand")
        for value in ("1,000", "12,345", "-999,999")
    ),
    *(
        (REGRESSION, "t.jsonl", f'{{"text": "a", "label": 1}}\n\n{{"text": "b", "label": {value}}}\n', NO_NUMBER)
        for value in ("true", "null", "[1]", '{"a": 1}', '"x"')
    ),
    (REGRESSION, "t.jsonl", f'{{"text": "a", "label": {10**400}}}\n', ":1: label is 1000.{,50}, not a number"),
    (REGRESSION, "t.jsonl", '{"text": "a", "label": 1e200}\n', ":1: label is "),
    (TWO_TARGETS, "t.csv", "text,stars\na,1\n", ":2: no column 'price'"),
    *(
        (replace(CHOICES, columns=replace(CHOICE_COLUMNS, **named)), "c.csv", CHOICE_TABLE, said)
        for named, said in (
            ({"text": "ask"}, r".*name the right one with text=$"),
            ({"choices": ("a", "z")}, r".*name the right one with choices=$"),
            ({"label": ("z",)}, r".*name the right one with label=$"),
        )
    ),
    (replace(CHOICES, columns=CHOICE_COLUMNS), "c.csv", EMPTY_CHOICE, ":2: b is '', not text"),
]  # fmt: skip

# The choices and the label of an example of a multiple choice, and a pattern of what is said of its line.
CHOICE_EXAMPLES: list[tuple[Any, Any, str]] = [
    (["B", "A"], "A", r"label is 'A', which may mean choice 0 or 1 \(from 0 on\)"),
    (["1", "2"], 1, "label is 1, which may mean choice 0 or 1"),
    (["x", "x"], "x", "label is 'x', which may mean choice 0 or 1"),
    (["x", "y"], 2, r"label is 2, none of the choices: write its number, 0 to 1 \(not 1 to 2\), its letter, A"),
    (["x", "y"], "C", "label is 'C', none of the choices"),
    (["None", "y"], None, "label is None, none of the choices"),
    (["x", "y"], "9" * 5000, "label is '9999.*, none of the choices"),
    (["x", "y"], -1, "label is -1, none of the choices"),
    (["x"], 0, r"too few choices \(1\): there must be at least two"),
    (["x", ""], 0, r"choices\[1\] is '', not text: fill it in or remove the line"),
    (["x", None], 0, r"choices\[1\] is None, not text"),
    ("x, y", 0, "choices is 'x, y', not a list of choices: write a list, or name one column for each choice"),
]


def choice_files() -> Iterator[tuple[TaskSpec, str, str, str]]:
    right = json.dumps({"text": "t", "choices": ["0.5", 2], "label": 0})
    for choices, label, message in CHOICE_EXAMPLES:
        wrong = json.dumps({"text": "t", "choices": choices, "label": label})
        yield CHOICES, "c.jsonl", f"{right}\n{wrong}\n", f":2: {message}"


@pytest.mark.parametrize("case", [*FILES, *choice_files()], ids=lambda case: f"{case[0].kind}-{case[3][:40]}")
def test_a_wrong_example_names_its_place(tmp_path: Path, case: tuple[TaskSpec, str, str, str]) -> None:
    spec, name, content, message = case
    source = written(tmp_path / name, content)
    with pytest.raises(PalavraError, match=rf"^{re.escape(source)}{message}") as caught:
        read(spec, source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "labels", "said"),
    [
        (SPEC, [1.0, float("nan")], "label is nan, not a label"),
        (SPEC, [1.0, float("inf")], "label is inf, not a label"),
        (SPEC, [1.0, None], "label is None, not a label"),
        (REGRESSION, [1.0, float("nan")], "label is nan, not a number"),
    ],
)
def test_a_wrong_number_of_parquet_names_its_row(tmp_path: Path, spec: TaskSpec, labels: list[Any], said: str) -> None:
    source = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": ["x", "y"], "label": pa.array(labels)}), source)
    with pytest.raises(PalavraError, match=rf"^{source}:row 2: {said}[^\n]*$"):
        read(spec, str(source))


@pytest.mark.parametrize("kind", ["classification", "token-classification", "multiple-choice"])
def test_two_columns_of_labels_are_refused_where_one_is_read(kind: Any) -> None:
    with pytest.raises(PalavraError, match=r"^label names 2 columns[^\n]*$"):
        read(TaskSpec(kind=kind, columns=Columns(label=("a", "b"))), "t.csv")


ONE_TEXT = fit(SPEC, examples_of(["a", "b"]))
TWO_TEXTS = fit(PAIRS, examples_of(["a", "b"], pair=True))
CHOICE = choices_of(CHOICES)
QUESTION = answers_of(question_answering.spec(), False)
WORDS = task_of()
QUESTION_AND_CONTEXT = "give a mapping with question and context"

# A task, an input that it takes, one that it does not, and what is said of that.
INPUTS: list[tuple[Any, Any, Any, str]] = [
    *(
        (ONE_TEXT, "fine", raw, "")
        for raw in (3, None, ("a", "b"), ["a"] * 3, {"txt": "a"}, {"text": ""}, {"text": 3}, b"a", [3])
    ),
    *((TWO_TEXTS, ("a", "b"), raw, "") for raw in ("a", ("a",), 3, {"text_a": "x"})),
    *(
        (CHOICE, ("t", ["a", "b"]), raw, "")
        for raw in ("t", ("t", "ab"), ("t", ["a"]), {"text": "t"}, ("t", ["a", " "]), (None, ["a", "b"]))
    ),
    *(
        (QUESTION, ("who?", "me"), raw, QUESTION_AND_CONTEXT)
        for raw in ("who?", {"question": "who?"}, ("a", "b", "c"), ("a", 1))
    ),
    (WORDS, "fine", 3, "a text or a list of words"),
    (WORDS, "fine", {"nothing": "x"}, "a text or a list of words"),
    (WORDS, "fine", ["a", ""], "word 2 is ''"),
    (WORDS, "fine", ["a", 3], "word 2 is 3"),
    (WORDS, "fine", {"text": "banana cat", "words": ["a", "cat"]}, "word 1, 'a', is not at its place"),
]


@pytest.mark.parametrize(
    ("task", "right", "wrong", "said"), INPUTS, ids=[f"{row[0].spec.kind}-{row[2]!r}" for row in INPUTS]
)
def test_a_wrong_input_names_its_number(task: Any, right: Any, wrong: Any, said: str) -> None:
    with pytest.raises(PalavraError, match=rf"^input 2: .*{said}") as caught:
        task.reader.inputs([right, wrong])
    assert "\n" not in str(caught.value)
