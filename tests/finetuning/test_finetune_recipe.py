"""What a fine-tuning recipe takes from the model, the call and an older recipe."""

import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from builders.finetuning import FAST, RATE, recipe, run, spec, weights
from safetensors.torch import load_file
from typer.testing import CliRunner

import palavra
from palavra import config as configuration
from palavra.cli import app
from palavra.errors import PalavraError
from palavra.finetuning.plan import optimizer_of, plan_finetuning
from palavra.finetuning.splits import with_absolute_paths
from palavra.inference.finetuned import FineTunedModel
from palavra.model.directory import read_config
from palavra.recipe import FinetuneRecipe, Recipe
from palavra.recipe.finetuning import BodyConfig
from palavra.recipe.finetuning_options import build_finetune_recipe
from palavra.tasks.spec import TaskSpec
from palavra.training.config import OptimizerConfig, StrategyConfig

pytestmark = pytest.mark.usefixtures("without_report")


def test_a_data_set_of_the_hub_has_no_folder(pretrained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = with_absolute_paths(
        recipe(pretrained, TaskSpec(kind="question-answering", train="hf://squad:train", test="t.json"))
    )
    assert (made.tasks[0].train, made.tasks[0].valid) == ("hf://squad:train", None)
    assert made.tasks[0].test == str(tmp_path / "t.json")


def test_a_plan_resolves_a_recipe_as_a_run_does(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    wanted = recipe(pretrained, spec(reviews, max_length=8), optimizer=FinetuneRecipe().optimizer)
    plan = plan_finetuning(wanted)
    run(wanted, tmp_path / "m")
    done = configuration.from_toml(FinetuneRecipe, tmp_path / "m" / "palavra.toml")
    assert with_absolute_paths(plan.recipe) == done
    assert plan.steps == done.train.steps == 16
    assert plan.examples == {"task": {"train": 64, "valid": 20, "test": 0}}
    assert plan.truncated["task"] > 0
    assert plan.reasons[-1].startswith("16 steps of 8 examples, adamw at ")


def test_a_dry_run_prints_a_recipe_to_run_and_trains_nothing(pretrained: Path, reviews: Path) -> None:
    train = spec(reviews).train
    model = str(pretrained / "modernbert")
    asked = ["finetune", "classification", train, "--model", model, "--steps", "3", "--dry-run"]
    done = CliRunner().invoke(app, asked)
    planned = palavra.plan_finetune("classification", train, model=model, steps=3).recipe
    assert configuration.from_mapping(FinetuneRecipe, tomllib.loads(done.stdout)) == planned
    assert "# 3 steps of 32 examples" in done.stdout
    assert "examples cut to the context" in done.stdout
    refused = CliRunner().invoke(app, [*asked[:2], *asked[3:]])
    assert "name a kind of task and a file of labelled examples" in str(refused.exception)


def test_from_scratch_takes_sizes_but_no_weights(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    settings = {"steps": 1, "epochs": 1.0}
    run(recipe(pretrained, spec(reviews), from_scratch=True, train=settings), tmp_path / "scratch")
    run(recipe(pretrained, spec(reviews), train=settings), tmp_path / "init")
    before = load_file(pretrained / "modernbert" / "model.safetensors")
    key = "model.embeddings.tok_embeddings.weight"
    distance = [float((weights(tmp_path / name)[key] - before[key]).abs().max()) for name in ("scratch", "init")]
    assert distance[0] > 0.3
    assert distance[1] < 0.01


def test_the_optimizer_is_that_of_pretraining_unless_given(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    own = tmp_path / "model"
    own.mkdir()
    for path in (pretrained / "modernbert").iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    written = configuration.to_toml(Recipe(optimizer=OptimizerConfig(name="muon")))
    (own / "palavra.toml").write_text(written)
    for given, expected in ((FinetuneRecipe().optimizer, "muon"), (RATE, "adamw")):
        out = tmp_path / expected
        run(FinetuneRecipe(model=str(own), tasks=(spec(reviews),), optimizer=given, train=replace(FAST, steps=1)), out)
        found = configuration.from_toml(FinetuneRecipe, out / "palavra.toml").optimizer
        assert found.name == expected
        assert found.learning_rate is not None
    with pytest.raises(PalavraError, match=r"^learning_rate= must be given for sgd: [^\n]*$"):
        run(
            recipe(pretrained, spec(reviews), optimizer=OptimizerConfig(name="sgd", learning_rate=None)),
            tmp_path / "sgd",
        )


def test_the_number_of_epochs_replaces_a_recipe_s_steps(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    run(recipe(pretrained, spec(reviews), train={"steps": 2, "eval_every": 2}), tmp_path / "out")
    again = build_finetune_recipe(
        "classification",
        reviews / "train.csv",
        model=pretrained / "bert",
        recipe=tmp_path / "out" / "palavra.toml",
        epochs=3,
    )
    assert (again.train.steps, again.train.epochs) == (None, 3)


def test_a_learning_rate_alone_keeps_the_model_s_own_optimizer(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pretrained"
    shutil.copytree(pretrained / "bert", folder)
    (folder / "palavra.toml").write_text(configuration.to_toml(Recipe()), encoding="utf-8")
    for options in ({"learning_rate": 0.01}, {"set": ["optimizer.learning_rate=0.01"]}):
        made = build_finetune_recipe("classification", reviews / "train.csv", model=folder, **cast(Any, options))
        optimizer = made.settled(64, optimizer_of(folder)).optimizer
        assert (optimizer.name, optimizer.learning_rate) == ("muon", 0.01)


def test_the_dropout_of_the_body_is_the_pretrained_model_s_unless_given(
    pretrained: Path, reviews: Path, tmp_path: Path
) -> None:
    saved = {}
    for name, body in (
        ("own", BodyConfig()),
        ("same", BodyConfig(dropout=0.1)),
        ("other", BodyConfig(dropout=0.3, attention_dropout=0.2)),
    ):
        made = recipe(pretrained, spec(reviews), train={"steps": 2}, body=body, family="bert")
        run(made, tmp_path / name)
        saved[name] = weights(tmp_path / name)["bert.encoder.layer.0.output.dense.weight"]
        config = read_config(tmp_path / name)
        assert (config.dropout, config.attention_dropout) == ((0.3, 0.2) if name == "other" else (0.1, 0.0))
        assert FineTunedModel.load(tmp_path / name).task()[1].spec.head.dropout == 0.1
    np.testing.assert_array_equal(saved["own"], saved["same"])
    assert not np.array_equal(saved["own"], saved["other"])


def test_a_body_that_is_not_trained_has_no_dropout(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    made = recipe(pretrained, spec(reviews), strategy=StrategyConfig(name="frozen"), body=BodyConfig(dropout=0.3))
    with pytest.raises(PalavraError, match=r"^body\.dropout does not apply to strategy frozen; it applies to full, "):
        run(made, tmp_path / "out")
    with pytest.raises(PalavraError, match=r"^dropout= is 1\.0: it must be at least 0 and below 1"):
        build_finetune_recipe("classification", reviews / "train.csv", dropout=1.0)
