"""What a fine-tuning recipe leaves open: length, validations, the rate of new layers, and pooling."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.finetuning import FAST, metrics, recipe, run, spec, write
from safetensors.torch import load_file, save_file

from palavra import config as configuration
from palavra.errors import PalavraError
from palavra.experiments.sweep import run_sweep
from palavra.finetuning.plan import plan_finetuning, resolve_finetuning
from palavra.finetuning.run import build_job
from palavra.finetuning.splits import read_split
from palavra.log import Log
from palavra.model.config import HeadConfig
from palavra.model.directory import read_config
from palavra.recipe import FinetuneConfig, FinetuneRecipe
from palavra.recipe.finetuning_options import build_finetune_recipe
from palavra.recipe.learning_rates import finetuning_rate, head_ratio
from palavra.tasks.spec import TaskSpec
from palavra.tokenizer import Tokenizer
from palavra.training.config import OptimizerConfig, StrategyConfig

pytestmark = pytest.mark.usefixtures("without_report")
OPEN: dict[str, Any] = {"epochs": None}


def few(folder: Path, number: int) -> str:
    lines = [f"{'bom' if i % 2 else 'mau'} filme {i},{'ab'[i % 2]}" for i in range(number)]
    return write(folder / f"{number}.csv", "\n".join(["text,label", *lines]) + "\n")


# Length


@pytest.mark.parametrize(
    ("given", "epoch_steps", "passes"),
    [(None, 1, 50), (None, 10, 5), (None, 17, 3), (None, 1000, 3), (3.0, 1, 3), (0.5, 1000, 0.5)],
)
def test_few_examples_are_passed_more_often_unless_the_epochs_are_given(
    given: float | None, epoch_steps: int, passes: float
) -> None:
    assert FinetuneConfig(epochs=given).passes(epoch_steps) == passes


@pytest.mark.parametrize(("number", "steps"), [(16, 50), (800, 300)])
def test_a_plan_makes_at_least_fifty_steps(
    pretrained: Path, reviews: Path, tmp_path: Path, number: int, steps: int
) -> None:
    wanted = spec(reviews, train=few(tmp_path, number), valid=few(tmp_path, 10))
    assert plan_finetuning(recipe(pretrained, wanted, train=OPEN)).steps == steps
    assert plan_finetuning(recipe(pretrained, wanted, train={"epochs": 1.0})).steps == number // FAST.batch_size
    assert plan_finetuning(recipe(pretrained, wanted, train={**OPEN, "steps": 7})).steps == 7


def test_few_examples_are_not_validated_after_every_step(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    wanted = spec(reviews, train=few(tmp_path, 16), valid=few(tmp_path, 10))
    run(recipe(pretrained, wanted, train={**OPEN, "steps": 22}), tmp_path / "out")
    steps = [line["step"] for line in metrics(tmp_path / "out") if line["kind"] == "valid"]
    assert steps == [3, 6, 9, 12, 15, 18, 21, 22]


def test_a_sweep_s_default_epochs_are_those_of_the_number_of_examples(
    pretrained: Path, reviews: Path, tmp_path: Path
) -> None:
    wanted = recipe(pretrained, spec(reviews), train={**OPEN, "batch_size": 64})
    found = run_sweep(wanted, (), 1, None, tmp_path / "out", False, Log(quiet=True))
    assert found.trials[0].params["train.epochs"] == 50


# The rate of new layers


def test_a_new_layer_learns_no_faster_than_on_a_frozen_body() -> None:
    body, frozen = finetuning_rate("adamw", 384), finetuning_rate("adamw", 384, frozen=True)
    assert head_ratio("adamw", 384, body) == 10
    assert head_ratio("adamw", 384, body / 10) == 10
    assert head_ratio("muon", 384, frozen / 4) == pytest.approx(4)
    assert head_ratio("adamw", 384, 10 * frozen) == 1
    assert head_ratio("sgd", 384, body) == 1


@pytest.mark.parametrize(
    ("changes", "ratio"),
    [
        ({}, 10),
        ({"strategy": StrategyConfig(name="lora")}, 10),
        ({"strategy": StrategyConfig(name="frozen")}, 1),
        ({"from_scratch": True}, 1),
        ({"strategy": StrategyConfig(name="frozen", head_lr_ratio=3.0)}, 3),
    ],
)
def test_the_ratio_is_that_of_the_strategy_unless_given(changes: dict[str, Any], ratio: float) -> None:
    made = FinetuneRecipe(**changes).settled(384, "adamw")
    assert made.strategy.head_lr_ratio == ratio
    assert made.settled(384, None) == made


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_layers_with_pretrained_weights_learn_as_the_body_does(
    pretrained: Path, reviews: Path, tmp_path: Path, pooling: Any
) -> None:
    """BERT's pooler is in the pretrained directory, the last layer of the head is not. On another vector than that of
    [CLS] the pooler is as good as new."""
    folder = tmp_path / "bert"
    shutil.copytree(pretrained / "bert", folder)
    width = read_config(folder).hidden_size
    tensors = load_file(folder / "model.safetensors")
    tensors |= {"bert.pooler.dense.weight": torch.zeros(width, width), "bert.pooler.dense.bias": torch.zeros(width)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    made = recipe(
        tmp_path, spec(reviews, head=HeadConfig(pooling=pooling)), family="bert",
        optimizer=OptimizerConfig(name="adamw", learning_rate=1e-4),
        strategy=StrategyConfig(head_lr_ratio=8.0),
    )  # fmt: skip
    split = read_split(made.tasks[0], 0)
    job = build_job(resolve_finetuning(made, [split], Tokenizer.load(folder)), [split])
    groups = [group for one in job.optimizers().members for group in one.param_groups]
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    fast = {name for name, parameter in job.model.named_parameters() if rates[id(parameter)] == pytest.approx(8e-4)}
    slow = {name for name, parameter in job.model.named_parameters() if rates[id(parameter)] == pytest.approx(1e-4)}
    last = {f"heads.task.output.linear.{leaf}" for leaf in ("weight", "bias")}
    pooler = {f"heads.task.layers.0.dense.{leaf}" for leaf in ("weight", "bias")}
    assert fast == (last if pooling == "cls" else last | pooler)
    assert fast | slow == {name for name, _ in job.model.named_parameters()}


# Pooling


@pytest.fixture
def sentences(pretrained: Path, tmp_path: Path) -> Path:
    """A folder as sentence-transformers writes it, of mean pooling."""
    folder = tmp_path / "sentences"
    shutil.copytree(pretrained / "bert", folder)
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text("{}")
    pooled(folder, pooling_mode_cls_token=False, pooling_mode_mean_tokens=True)
    return folder


def pooled(folder: Path, **modes: bool) -> None:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 64, **modes}))


def head_of(model: Path, train: str, kind: Any = "classification", **options: Any) -> tuple[Any, Any]:
    head = build_finetune_recipe(kind, train, model=model, **options).tasks[0].head
    return head.pooling, head.hidden_sizes


def test_the_pooling_is_that_of_the_model_s_training(sentences: Path, pretrained: Path, reviews: Path) -> None:
    train = spec(reviews).train
    assert head_of(sentences, train) == ("mean", None)
    assert head_of(sentences, train, "regression") == ("mean", None)
    assert head_of(sentences, train, hidden_sizes=(16,)) == ("mean", (16,))
    assert head_of(sentences, train, pooling="cls") == ("cls", None)
    assert head_of(sentences, train, pooling="max") == ("max", None)
    assert head_of(sentences, train, "token-classification") == (None, None)
    assert head_of(sentences, train, from_scratch=True) == (None, None)
    assert head_of(pretrained / "bert", train) == (None, None)
    pooled(sentences, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    assert head_of(sentences, train) == (None, None)
    pooled(sentences, pooling_mode_cls_token=False, pooling_mode_mean_tokens=True, pooling_mode_max_tokens=True)
    assert head_of(sentences, train) == (None, None)


def test_a_recipe_keeps_its_own_pooling(sentences: Path, reviews: Path, tmp_path: Path) -> None:
    made = FinetuneRecipe(model=str(sentences), tasks=(TaskSpec(kind="classification", train=spec(reviews).train),))
    file = write(tmp_path / "recipe.toml", configuration.to_toml(made))
    assert build_finetune_recipe(None, None, recipe=file) == made


def test_a_damaged_description_of_pooling_is_one_line(sentences: Path, reviews: Path) -> None:
    (sentences / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(PalavraError, match=r"^[^\n]*1_Pooling/config\.json[^\n]*$"):
        head_of(sentences, spec(reviews).train)
