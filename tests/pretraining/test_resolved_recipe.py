"""Planning: a dry run and a run resolve a recipe alike, and the result holds every value."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from builders.shards import TOKENIZER

import palavra
from palavra import config
from palavra.log import Log
from palavra.pretraining.plan.corpus_stats import CorpusStats
from palavra.pretraining.plan.resolve import resolve
from palavra.recipe import Recipe
from palavra.recipe.pretraining_options import build_recipe

pytestmark = pytest.mark.usefixtures("without_report")

SETTINGS = (
    "model.hidden_size=32", "model.num_layers=1", "model.num_heads=2", "model.context=32", "train.batch_tokens=256",
    "train.compile=off", "train.device=cpu", "train.threads=1",
)  # fmt: skip
DECISIONS = ["threads", "size", "device", "precision", "attention", "compile", "length"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"frase {i}\n" for i in range(100)), encoding="utf-8")
    return path


def test_a_dry_run_and_a_run_resolve_a_recipe_alike(text: Path, tmp_path: Path) -> None:
    planned = palavra.plan(text, documents="line", steps=1, set=SETTINGS)
    palavra.pretrain(text, out=tmp_path / "m", documents="line", steps=1, set=SETTINGS)
    done = config.from_toml(Recipe, tmp_path / "m" / "palavra.toml")
    assert planned.recipe == done
    assert done.tokenizer.vocab_size == 4096
    assert done.train.micro_batch_tokens == 256
    reasons = json.loads((tmp_path / "m" / "run.json").read_text())["budget"]["rule"]
    assert [line.split(":")[0] for line in reasons] == DECISIONS
    assert [line.split(":")[0] for line in planned.reasons] == DECISIONS


def test_a_resolved_recipe_is_resolved_to_itself(text: Path) -> None:
    recipe = build_recipe([str(text)], documents="line", minutes=0.1, set=SETTINGS)
    stats = CorpusStats(tokens=1000, vocab_size=TOKENIZER.vocab_size)
    once = resolve(recipe, stats, Log(quiet=True), lambda recipe, text, compute: 0.1)
    assert once.step_seconds == 0.1
    assert once.recipe.train.steps == 57  # 6 s less 4%, at 0.1 s a step
    # What was resolved from minutes has its steps, so it is repeated exactly, however long that takes.
    repeated = replace(once.recipe, train=replace(once.recipe.train, minutes=None))
    assert resolve(once.recipe, stats, Log(quiet=True)).recipe == repeated
    assert resolve(repeated, stats, Log(quiet=True)).recipe == repeated


def test_minutes_too_few_for_a_step_end_the_plan(text: Path) -> None:
    recipe = build_recipe([str(text)], documents="line", minutes=0.1, set=SETTINGS)
    stats = CorpusStats(tokens=1000, vocab_size=TOKENIZER.vocab_size)
    with pytest.raises(palavra.PalavraError, match=r"^0.1 minutes are too few for one step of this model \(7\.0 s\)"):
        resolve(recipe, stats, Log(quiet=True), lambda recipe, text, compute: 7.0)
