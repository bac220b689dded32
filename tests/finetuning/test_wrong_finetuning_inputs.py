"""What people do wrong when they fine-tune: one line that says where, before the run begins."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders.finetuning import recipe, run, spec, write

from palavra.api.finetune import finetune
from palavra.errors import PalavraError
from palavra.model.config import HeadConfig, OutputConfig
from palavra.tasks.spec import MixingConfig, TaskSpec
from palavra.training.config import StrategyConfig

ROWS = "text,label\nbom,a\nmau,b\nlindo,a\nfeio,b\n"


@pytest.mark.parametrize(
    ("which", "content", "says"),
    [
        ("train", "text,label\nbom,a\nmau,a\n", r"t\.csv has only one label, 'a'"),
        ("train", "text,label\n", r"t\.csv: holds no records"),
        ("train", "text,label\nbom,a\n,b\n", r"t\.csv:3: text is empty"),
        ("train", "texto,label\nbom,a\nmau,b\n", r"t\.csv:2: no column 'text' \(is it 'texto'\?\)"),
        ("valid", "text,label\nbom,a\nmau,c\n", r"t\.csv:3: label 'c' was not in training, which has 'a', 'b'"),
        ("test", 'text,label\nbom,a\n"m\nau",b\nx,C\n', r"t\.csv:5: label 'C' was not in training"),
        ("test", "text,label\n", r"t\.csv: holds no records"),
        ("test", "", r"t\.csv: holds no records"),
        ("test", "text\nbom\n", r"t\.csv:2: no column 'label'"),
    ],
)
def test_a_file_with_a_mistake_stops_the_run_before_it_begins(
    pretrained: Path, tmp_path: Path, which: str, content: str, says: str
) -> None:
    files = {name: write(tmp_path / f"{name}.csv", ROWS) for name in ("train", "valid", "test")}
    files[which] = write(tmp_path / "t.csv", content)
    with pytest.raises(PalavraError, match=rf"^[^\n]*{says}[^\n]*$"):
        run(recipe(pretrained, TaskSpec(kind="classification", **files)), tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out" / "palavra.toml").exists()


NO_USE = "does not apply to strategy"
HIDDEN = "is for hidden layers"


@pytest.mark.parametrize(
    ("task", "changes", "says"),
    [
        ({}, {"train": {"metric": "f1"}}, r"metric= is 'f1', no score of "),
        ({}, {"train": {"metric": "pearson"}}, r"metric= is 'pearson', no score of "),
        (
            {"multilabel": False},
            {"train": {"metric": "subset_accuracy"}},
            r"metric= is 'subset_accuracy', no score of ",
        ),
        ({"multilabel": True}, {"train": {"metric": "accuracy"}}, r"metric= is 'accuracy', no score of "),
        ({}, {"strategy": StrategyConfig(rank=4)}, f"strategy.rank {NO_USE} full; it applies to lora"),
        (
            {},
            {"strategy": StrategyConfig(name="frozen", unfreeze_fraction=0.5)},
            f"strategy.unfreeze_fraction {NO_USE}",
        ),
        ({}, {"strategy": StrategyConfig(name="frozen", layer_decay=0.5)}, f"strategy.layer_decay {NO_USE}"),
        ({}, {"mixing": MixingConfig(sampling="uniform")}, "mixing does not apply to a single task"),
        ({"output": OutputConfig(tree="balanced")}, {}, "task task: output.tree does not apply to output softmax"),
        ({"output": OutputConfig(samples=3)}, {}, "task task: output.samples does not apply to output softmax"),
        ({"head": HeadConfig(hidden_sizes=(), norm="batch")}, {}, f"task task: head.norm {HIDDEN}"),
        ({"head": HeadConfig(hidden_sizes=(), activation="relu")}, {}, f"task task: head.activation {HIDDEN}"),
        ({"max_length": 9999}, {}, "task task: max_length is 9999, but .* reads 64 tokens at most"),
        ({"train": ""}, {}, "task task has no training file"),
        ({}, {"model": ""}, "model= is missing"),
        ({}, {"tasks": ()}, "no task was given"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_run_is_refused_before_it_begins(
    pretrained: Path, reviews: Path, tmp_path: Path, task: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    made = recipe(pretrained, spec(reviews, **task), train=changes.get("train"))
    others = {name: value for name, value in changes.items() if name != "train"}
    with pytest.raises(PalavraError, match=rf"^{says}[^\n]*$"):
        run(replace(made, **others), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_nan_target_names_its_line(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    bad = write(tmp_path / "t.csv", "text,stars\nbom,1\nmau,nan\n")
    with pytest.raises(PalavraError, match=r"^[^\n]*t\.csv:3: stars is 'nan', not a number[^\n]*$"):
        run(recipe(pretrained, spec(reviews, "regression", train=bad)), tmp_path / "out")


def test_two_tasks_of_one_name_are_refused(pretrained: Path, reviews: Path) -> None:
    with pytest.raises(PalavraError, match=r"^two tasks are called 'task'[^\n]*$"):
        recipe(pretrained, spec(reviews), spec(reviews))


def test_a_kind_that_is_none_is_refused(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    with pytest.raises(PalavraError, match=r"^'clasification' is no kind of task: use classification, [^\n]*$"):
        finetune("clasification", reviews / "train.csv", model=pretrained / "bert", out=tmp_path)  # type: ignore[call-overload]
