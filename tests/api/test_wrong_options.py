"""Options and columns that a task does not read are refused, wherever they are given."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from builders.prediction import BODY, EXAMPLES, FITTED, PAIR, model_of

import palavra
from palavra.api.evaluate import evaluate_task
from palavra.api.predict import predict_inputs
from palavra.errors import PalavraError
from palavra.finetuning.splits import read_split
from palavra.inference.finetuned import FineTunedModel
from palavra.recipe.finetuning_options import build_finetune_recipe
from palavra.tasks.spec import Columns, TaskSpec


def write(path: Path, *records: dict[str, Any], encoding: str = "utf-8") -> Path:
    lines = [json.dumps({"id": str(n), **record}, ensure_ascii=False) for n, record in enumerate(records)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return path


def separator_said(kind: str) -> str:
    if kind in ("classification", "pairs"):
        return r"^separator= would not be read: it separates labels of classification with multilabel=True[^\n]*$"
    return rf"^separator= does not apply to {kind}; it applies to classification: leave it out$"


@pytest.mark.parametrize(
    ("kind", "columns", "said"),
    [
        (
            "classification",
            {"question": "q"},
            r"^question= does not apply to classification; it applies to question-answering: [^\n]*$",
        ),
        (
            "question-answering",
            {"text_a": "q"},
            r"^text_a= does not apply to question-answering; it applies to classification, regression and [^\n]*$",
        ),
        ("regression", {"label": ("a", "b")}, r"^label= names 2 columns, task was trained with 1: name as many$"),
        ("regression", {"text_b": "b"}, r"^task was trained with single texts: leave text_b= out$"),
    ],
)
def test_columns_that_mean_nothing_are_refused(kind: str, columns: Any, said: str) -> None:
    with pytest.raises(PalavraError, match=said):
        model_of(kind).reader(**columns)


@pytest.mark.parametrize(
    ("kind", "trained_with", "given", "said"),
    [
        ("classification", BODY, {"text_a": "s"}, "^text_a= would not be read: task reads text= body; leave it out$"),
        (
            "multiple-choice",
            BODY,
            {"text_a": "s"},
            "^text_a= would not be read: task reads text= body; leave it out$",
        ),
        ("regression", PAIR, {"text": "x"}, "^text= would not be read: task reads text_a= a and text_b= b; leave"),
        *((kind, Columns(), {"separator": ";"}, separator_said(kind)) for kind in FITTED),
    ],
)
def test_what_the_task_would_not_read_is_refused(
    kind: str, trained_with: Columns, given: dict[str, Any], said: str
) -> None:
    """Else other columns would be scored without a word."""
    with pytest.raises(PalavraError, match=said):
        model_of(kind, columns=trained_with).reader(**given)
    columns = {name: value for name, value in vars(trained_with).items() if value is not None}
    kind = "classification" if kind == "pairs" else kind
    with pytest.raises(PalavraError, match=said):
        build_finetune_recipe(cast(Any, kind), "t.csv", model="m", **columns, **given)


def test_a_text_is_not_read_where_words_are_labelled(folders: Path, tmp_path: Path) -> None:
    own = write(tmp_path / "own.jsonl", EXAMPLES["token-classification"])
    with pytest.raises(PalavraError, match=r"^text= would not be read: task reads labelled words; [^\n]*words=$"):
        evaluate_task(folders / "token-classification", own, text="body", label="label")
    with pytest.raises(PalavraError, match=r"^text= would not be read"):
        read_split(TaskSpec(kind="token-classification", train=str(own), columns=Columns(text="body")), 0)
    columns = tmp_path / "own.conll"
    columns.write_text("the O\nboat B-X\n", encoding="utf-8")
    model = model_of("token-classification")
    assert len(list(predict_inputs(model, (), str(own), text="body"))) == 1
    with pytest.raises(PalavraError, match=r"^text= would not be read"):
        list(predict_inputs(model, (), str(columns), text="body"))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_columns_of_squad_s_own_json_have_their_own_names(folders: Path, tmp_path: Path, suffix: str) -> None:
    """What is named there would be ignored; beside a file of records, or by a model trained on such, it is not."""
    asked = {"id": "1", "question": "which boat?", "answers": [{"text": "red boat", "answer_start": 4}]}
    content = json.dumps({"data": [{"paragraphs": [{"context": "the red boat", "qas": [asked]}]}]}).encode()
    squad, records = tmp_path / f"squad.json{suffix}", tmp_path / "own.json"
    squad.write_bytes(pa.compress(content, "gzip", asbytes=True) if suffix else content)
    records.write_text(json.dumps([{"id": "1", "ask": "which boat?", "context": "the red boat", "answers": []}]))
    said = rf"^{squad}: question= would not be read: SQuAD's JSON has fixed names; leave it out$"
    with pytest.raises(PalavraError, match=said):
        evaluate_task(folders / "question-answering", squad, question="ask")
    model = palavra.load(folders / "question-answering", kind="fine-tuned")
    assert isinstance(model, FineTunedModel)
    with pytest.raises(PalavraError, match=said):
        list(predict_inputs(model, (), str(squad), question="ask"))
    spec = TaskSpec(kind="question-answering", train=str(squad), columns=Columns(question="ask"))
    with pytest.raises(PalavraError, match=said):
        read_split(replace(spec, valid=str(squad)), 0)
    assert len(read_split(replace(spec, valid=str(records)), 0).valid) == 1
    trained_on_records = model_of("question-answering", columns=Columns(question="ask"))
    assert len(list(predict_inputs(trained_on_records, (), str(squad)))) == 1
    assert len(list(predict_inputs(model, (), str(records), question="ask"))) == 1


def test_columns_that_apply_to_no_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PalavraError, match="choices= does not apply to classification; it applies to multiple-choice: leave it out"
    ):
        build_finetune_recipe("classification", "t.csv", model="m", choices="c")
    tasks = tmp_path / "tasks.toml"
    tables = [
        f'[[tasks]]\nname = "{name}"\nkind = "{kind}"\ntrain = "t.csv"\n'
        for name, kind in (("one", "classification"), ("other", "multiple-choice"))
    ]
    tasks.write_text("\n".join(tables), encoding="utf-8")
    made = build_finetune_recipe("multitask", tasks, model="m", choices="c")
    assert made.tasks[1].columns.choices == ("c",)
    with pytest.raises(
        PalavraError, match="words= does not apply to classification; it applies to token-classification"
    ):
        build_finetune_recipe("multitask", tasks, model="m", words="w")


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (
            "classification",
            'columns.question = "q"',
            "columns.question does not apply to classification; it applies to question-answering: leave it out",
        ),
        (
            "token-classification",
            'columns.text_a = "a"',
            "columns.text_a does not apply to token-classification; it applies to classification, regression",
        ),
        (
            "multiple-choice",
            'columns.text_b = "b"',
            "columns.text_b does not apply to multiple-choice; it applies to classification and regression",
        ),
        ("regression", 'columns = { text = "t", text_b = "b" }', "columns.text would not be read, but text_a and te"),
        (
            "multiple-choice",
            'columns = { text = "t", text_a = "a" }',
            "columns.text_a would not be read, but text: leave one",
        ),
        (
            "question-answering",
            'separator = ";"',
            "separator does not apply to question-answering; it applies to classification: leave it out",
        ),
        (
            "classification",
            'separator = ";"',
            "separator would not be read, for it separates several labels of one field: set mul",
        ),
    ],
)
def test_a_field_of_a_file_that_its_task_does_not_read_is_refused(
    tmp_path: Path, kind: str, fields: str, said: str
) -> None:
    table = f'name = "mine"\nkind = "{kind}"\ntrain = "t.csv"\n{fields}\n'
    alone, among = tmp_path / "alone.toml", tmp_path / "among.toml"
    alone.write_text(table, encoding="utf-8")
    other = '[[tasks]]\nname = "other"\nkind = "classification"\ntrain = "t.csv"\nmultilabel = true\n'
    among.write_text(f"{other}separator = ';'\n[[tasks]]\n{table}", encoding="utf-8")
    for source, what in ((alone, kind), (among, "multitask")):
        with pytest.raises(PalavraError, match=rf"^{source}: task mine: {re.escape(said)}[^\n]*$"):
            build_finetune_recipe(cast(Any, what), source, model="m")


def test_an_option_that_does_not_apply_is_not_said_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text('kind = "classification"\ntrain = "t.csv"\nseparator = ";"\n', encoding="utf-8")
    with pytest.raises(PalavraError, match=r"^task task: columns\.question does not apply to classification"):
        build_finetune_recipe("classification", file, model="m", multilabel=True, set=["task.columns.question=q"])
    assert build_finetune_recipe("classification", file, model="m", multilabel=True).tasks[0].separator == ";"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"last_n": 3}, "last_n= does not apply to strategy full; it applies to last-n: leave it out"),
        (
            {"last_n": 3, "strategy": "lora"},
            "last_n= does not apply to strategy lora; it applies to last-n: leave it out",
        ),
        (
            {"valid": "v.csv", "valid_fraction": 0.2},
            "valid_fraction= would not be read, for there are validation examples",
        ),
        ({"folds": 3, "valid_fraction": 0.2}, "valid_fraction= would not be read, for folds= holds out by itself"),
        ({"seeds": 0}, "seeds= is 0: it must be at least 1"),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(PalavraError, match=rf"^{re.escape(said)}[^\n]*$"):
        palavra.finetune("classification", "t.csv", model="m", out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_a_file_of_tasks_says_beside_them_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "tasks.toml"
    tables = [
        f'[[tasks]]\nname = "{name}"\nkind = "question-answering"\ntrain = "t.json"\n' for name in ("one", "other")
    ]
    file.write_text("\n".join([*tables, "[train]\nepochs = 7.0\n"]), encoding="utf-8")
    with pytest.raises(PalavraError, match=rf"^{file}: train would not be read, [^\n]* recipe= too[^\n]*$"):
        build_finetune_recipe("multitask", file, model="m")
    assert build_finetune_recipe("multitask", file, model="m", recipe=file).train.epochs == 7
    with pytest.raises(
        PalavraError, match=r"^t\.json: one file of examples, but the recipe describes 2 tasks: [^\n]*$"
    ):
        build_finetune_recipe("question-answering", "t.json", model="m", recipe=file)
