"""Records that are read by a fine-tuned model: options, and other columns than in training."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from builders.evaluation import evaluate
from builders.prediction import EXAMPLES, FITTED, PAIR, flags, model_of, renamed
from test_docs import COMMAND
from typer.testing import CliRunner

import palavra
from palavra.api import finetune as api_finetune
from palavra.api import sweep as api_sweep
from palavra.api.evaluate import evaluate_task
from palavra.cli import app
from palavra.errors import PalavraError
from palavra.recipe.finetuning_options import build_finetune_recipe
from palavra.tasks.column_options import InputColumns, LabelledColumns
from palavra.tasks.registry import KINDS
from palavra.tasks.spec import COLUMNS_OF, TEXTS, Columns, TaskSpec, text_fields
from palavra.tasks.text_examples import text_columns


def write(path: Path, *records: dict[str, Any], encoding: str = "utf-8") -> Path:
    lines = [json.dumps({"id": str(n), **record}, ensure_ascii=False) for n, record in enumerate(records)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return path


def _named(kind: str) -> dict[str, Any]:
    return {name: name for name in EXAMPLES[kind]}


# The options


def test_every_command_that_reads_records_has_the_same_options() -> None:
    def options(command: str, names: set[str]) -> dict[str, tuple[Any, ...]]:
        found = {each.name: each for each in COMMAND.commands[command].params}
        return {name: (found[name].opts, found[name].help.partition("  [")[0], found[name].multiple) for name in names}

    names = {*LabelledColumns.__annotations__, "encoding", "separator"}
    labelled = options("finetune", names)
    assert all(said for _, said, _ in labelled.values())
    assert options("sweep", names) == options("evaluate", names) == labelled
    inputs = {*InputColumns.__annotations__, "encoding"}
    assert options("predict", inputs) == {name: labelled[name] for name in inputs}
    assert not {each.name for each in COMMAND.commands["predict"].params} & (names - inputs)


def test_the_columns_are_the_same_everywhere() -> None:
    names = set(Columns.__dataclass_fields__)
    assert set(LabelledColumns.__annotations__) == names
    assert {name for known in COLUMNS_OF.values() for name in known} == names
    assert set(COLUMNS_OF) == set(KINDS)


def test_the_texts_of_a_task_are_columns_that_its_kind_takes() -> None:
    for kind, names in itertools.product(KINDS, itertools.product(("x", None), repeat=len(TEXTS))):
        given = {name: value for name, value in zip(TEXTS, names, strict=True) if name in COLUMNS_OF[kind]}
        read = text_fields(TaskSpec(kind=kind, columns=Columns(**cast(Any, given))))
        assert set(read) <= set(COLUMNS_OF[kind])
        assert len(read) == (0 if kind == "question-answering" else 2 if given.get("text_b") else 1)


@pytest.mark.parametrize("command", ["finetune", "sweep"])
def test_options_reach_the_function(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    home = {"finetune": api_finetune, "sweep": api_sweep}[command]

    def call(kind: str, train: str, **options: Any) -> Any:
        given.update(options, train=train)
        return SimpleNamespace(unwritten=())

    monkeypatch.setattr(home, command, call)
    line = [
        command,
        "question-answering",
        "hf://squad:train",
        "--model",
        "m",
        "--out",
        str(tmp_path),
        "--valid",
        "hf://squad:valid",
    ]
    several = ["--label", "a", "--label", "b", "--choices", "x", "--choices", "y"]
    one = {name: f"my {name}" for name in ("text", "text_a", "text_b", "words", "question", "context", "answers",
                                           "encoding", "separator")}  # fmt: skip
    done = CliRunner().invoke(app, [*line, *flags(one), *several], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert {name: given[name] for name in one} == one
    assert (given["label"], given["choices"]) == (("a", "b"), ("x", "y"))
    assert (given["train"], given["valid"]) == ("hf://squad:train", "hf://squad:valid")


# Other columns than in training


@pytest.mark.parametrize("kind", FITTED)
def test_evaluation_and_prediction_read_other_columns(folders: Path, tmp_path: Path, kind: str) -> None:
    own = write(tmp_path / "own.jsonl", EXAMPLES[kind], EXAMPLES[kind])
    record, columns = renamed(kind)
    others = write(tmp_path / "others.jsonl", record, record)
    expected = evaluate_task(
        folders / kind, own, **({} if kind != "token-classification" else _named("token-classification"))
    )
    found = evaluate(folders / kind, others, **columns)
    assert found.scores.values == expected.scores.values
    model = palavra.load(folders / kind, kind="fine-tuned")
    inputs = {name: value for name, value in columns.items() if name not in ("label", "answers")}
    said = model.predict(record, **inputs)
    assert said == model.predict(EXAMPLES[kind])
    line = CliRunner().invoke(app, ["evaluate", str(folders / kind), str(others), "--json", *flags(columns)])
    assert line.exit_code == 0, line.output
    assert json.loads(line.stdout)["values"] == pytest.approx(dict(expected.scores.values))


def test_files_are_predicted_under_other_names_and_in_other_encodings(folders: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes("título,outro\no barco é azul,x\n".encode("latin-1"))
    line = ["predict", str(folders / "classification"), "--file", str(file), "--text", "título"]
    done = CliRunner().invoke(app, [*line, "--encoding", "latin-1"], catch_exceptions=False)
    assert (
        json.loads(done.stdout)
        == palavra.load(folders / "classification", kind="fine-tuned").predict("o barco é azul").to_json()
    )
    with pytest.raises(PalavraError, match=r"t\.csv:1: .*encoding="):
        CliRunner().invoke(app, line, catch_exceptions=False)


def test_what_the_task_reads_is_taken() -> None:
    other = model_of("classification", columns=Columns(text_a="a")).reader(text="x")
    assert text_columns(other.spec) == ("x",)
    for columns in (Columns(), Columns(text_a="a")):
        other = model_of("classification", columns=columns).reader(text_a="x")
        assert text_columns(other.spec) == ("x",)
    other = model_of("regression", columns=PAIR).reader(text_a="x")
    assert text_columns(other.spec) == ("x", "b")
    for options in ({"multilabel": True}, {"set": ["task.multilabel=true"]}):
        made = build_finetune_recipe("classification", "t.csv", model="m", separator=";", **cast(Any, options))
        assert made.tasks[0].separator == ";"


def test_an_option_goes_to_those_tasks_of_several_that_take_it(tmp_path: Path) -> None:
    kinds = (
        ("one", "classification", ""),
        ("several", "classification", "multilabel = true\n"),
        ("asked", "question-answering", ""),
    )
    tables = [f'[[tasks]]\nname = "{name}"\nkind = "{kind}"\ntrain = "t.csv"\n{more}' for name, kind, more in kinds]
    (tmp_path / "tasks.toml").write_text("\n".join(tables), encoding="utf-8")
    made = build_finetune_recipe("multitask", tmp_path / "tasks.toml", model="m", text="t", question="q", separator=";")
    assert [(task.columns.text, task.columns.question, task.separator) for task in made.tasks] == [
        ("t", None, ","), ("t", None, ";"), (None, "q", ",")]  # fmt: skip


@pytest.mark.parametrize("kind", FITTED)
def test_long_texts_are_split_on_request_where_that_can_be(kind: str) -> None:
    model = model_of(kind)
    record = {name: value for name, value in EXAMPLES[kind].items() if name not in ("label", "answers")}
    if kind in ("classification", "pairs", "regression"):
        assert model.predict([record], overflow="window") == model.predict([record])
        return
    with pytest.raises(
        PalavraError, match=f"^overflow= does not apply to {kind}; it applies to classification and reg"
    ):
        model.predict([record], overflow="window")


def test_an_unknown_column_is_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError, match="'txt'"):
        model_of("classification").predict(["a"], txt="t")  # type: ignore[call-overload]


def test_a_data_set_of_the_hub_keeps_its_name() -> None:
    made = build_finetune_recipe("question-answering", "hf://squad:train", model="m", valid="hf://squad:validation")
    assert (made.tasks[0].train, made.tasks[0].valid) == ("hf://squad:train", "hf://squad:validation")
