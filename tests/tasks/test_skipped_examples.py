"""What is wrong with examples of a file is said at once, with the number of them, and they can be left out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import question_answering
from builders.labelled_files import squad, written

from palavra.data.squad import NOWHERE
from palavra.errors import PalavraError
from palavra.tasks.registry import KINDS
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import Reader

CHOICES = {"text": "who?", "choices": ["me", "you"]}
GOOD: dict[str, tuple[TaskSpec, dict[str, Any], dict[str, Any]]] = {
    "classification": (TaskSpec(kind="classification"), {"text": "a", "label": "x"}, {"text": "", "label": "x"}),
    "regression": (TaskSpec(kind="regression"), {"text": "a", "label": 1}, {"text": "a", "label": "one"}),
    "multiple choice": (TaskSpec(kind="multiple-choice"), {**CHOICES, "label": 0}, {**CHOICES, "label": 7}),
    "question answering": (
        question_answering.spec(),
        {"question": "who?", "context": "I am", "answers": ["I"]},
        {"question": "who?", "context": "I am", "answers": ["you"]},
    ),
}


def reader(spec: TaskSpec, *, skip_bad: bool = False) -> Reader[Any]:
    return KINDS[spec.kind].reader(replace(spec, skip_bad=skip_bad))


@pytest.mark.parametrize("kind", GOOD)
def test_bad_examples_are_counted_and_can_be_left_out(kind: str, tmp_path: Path) -> None:
    spec, good, bad = GOOD[kind]
    rows = [good, bad, bad, good, bad, bad, bad]
    path = written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(PalavraError, match=r"a\.jsonl: 5 of 7 examples cannot be read; correct them, or") as caught:
        reader(spec).read(str(path))
    said = str(caught.value)
    assert said.endswith("; ...")
    assert said.count("skip_bad=True") == 1
    assert "\n" not in said
    assert [f"{path}:{line}:" in said for line in range(1, 8)] == [False, True, True, False, True, False, False]
    skipping = reader(spec, skip_bad=True)
    assert [each.where for each in skipping.read(str(path))] == [f"{path}:1", f"{path}:4"]
    assert [line.startswith(f"{path}: 5 of 7 examples") for line in skipping.skipped] == [True]


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_that_is_wrong_itself_is_never_skipped(kind: str, tmp_path: Path) -> None:
    spec, good, bad = GOOD[kind]
    path = written(tmp_path / "a.jsonl", f"{json.dumps(good)}\n{json.dumps(bad)}\n{{")
    with pytest.raises(PalavraError, match=":3: not valid JSON"):
        reader(spec, skip_bad=True).read(str(path))
    path = written(tmp_path / "a.jsonl", f"{json.dumps(bad)}\n{json.dumps(bad)}\n")
    with pytest.raises(PalavraError, match=r"a\.jsonl:1"):
        reader(spec, skip_bad=True).read(str(path))


def test_places_of_answers_are_asked_for_in_training_only(tmp_path: Path) -> None:
    asked = {"answers": [{"text": "am", "answer_start": 0}]}
    path = written(tmp_path / "a.json", squad(asked, context="I am"))
    questions = reader(question_answering.spec())
    with pytest.raises(PalavraError, match="'am' is not at character 0"):
        questions.read(str(path))
    (scored,) = questions.read_test(str(path))
    assert [(answer.text, answer.start) for answer in scored.answers] == [("am", NOWHERE)]
    (given,) = questions.inputs(list(questions.read_inputs(str(path))))
    assert (given.context, given.answers) == ("I am", ())


@pytest.mark.parametrize("blank", ["", " ", "\u200b"])
def test_an_empty_passage_is_called_empty(blank: str) -> None:
    with pytest.raises(PalavraError, match="context is empty"):
        reader(question_answering.spec()).inputs([("who?", blank)])
