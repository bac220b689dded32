"""Generators of damaged recipes, descriptions of tasks, and options."""

import json
import tomllib
from pathlib import Path
from random import Random
from typing import Any

from typer.main import get_command

from fuzz.case import Case, Generator
from fuzz.directories import toml
from fuzz.mutation import NUMBERS, STRINGS, damaged_text
from fuzz.world import FINETUNE, PRETRAIN, World
from palavra.cli import app
from palavra.option import Declared, choices_of
from palavra.recipe import FinetuneRecipe, Recipe
from palavra.recipe.options import fields_of

PRETRAIN_FIELDS, FINETUNE_FIELDS = list(fields_of(Recipe)), list(fields_of(FinetuneRecipe))
COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined] # a group


def recipe(random: Random, world: World, folder: Path) -> Case:
    """A recipe of pretraining or fine-tuning."""
    kind = random.choice(["pretrain", "finetune"])
    values = tomllib.loads((world.runs[kind] / "palavra.toml").read_text(encoding="utf-8"))
    (folder / "recipe.toml").write_bytes(toml(random, values))
    if kind == "pretrain":
        return Case(["pretrain", str(world.text), "--recipe", "recipe.toml", "--dry-run"])
    return Case(["finetune", "--recipe", "recipe.toml", "--dry-run"])


def task(random: Random, world: World, folder: Path) -> Case:
    """A description of a task, or of several."""
    text = str(world.reviews / "train.csv")
    one: dict[str, Any] = {
        "kind": "classification",
        "name": "mood",
        "train": text,
        "columns": {"label": ["label"]},
        "weight": 2.0,
    }
    two = one | {"name": "stars", "kind": "regression", "columns": {"label": ["stars"]}}
    several = random.random() < 0.5
    (folder / "task.toml").write_bytes(toml(random, {"tasks": [one, two]} if several else one))
    kind = "multitask" if several else "classification"
    out = ["--dry-run"] if random.random() < 0.6 else ["--steps", "1", "--out", "out"]
    return Case(["finetune", kind, "task.toml", "--model", str(world.pretrained["bert"]), *FINETUNE, *out], out="out")


def settings(random: Random, world: World, folder: Path) -> Case:
    """Values of --set."""
    kind = random.choice(["pretrain", "finetune"])
    fields = PRETRAIN_FIELDS if kind == "pretrain" else FINETUNE_FIELDS
    given = [
        part for _ in range(random.choice([1, 1, 2, 3])) for part in ("--set", _setting(random, random.choice(fields)))
    ]
    if kind == "pretrain":
        return Case(
            [
                "pretrain",
                str(world.text),
                "--lines",
                "--vocab-size",
                "300",
                *PRETRAIN,
                "--steps",
                "2",
                *given,
                "--dry-run",
            ]
        )
    out = ["--dry-run"] if random.random() < 0.7 else ["--out", "out", "--set", "train.steps=1"]
    return Case(["finetune", *world.finetune, *given, *out], out="out")


def _setting(random: Random, each: Declared) -> str:
    key = each.key.replace("task.", "tasks.0.")
    if random.random() < 0.1:
        key = damaged_text(random, key)
    return f"{key}={_value(random, each)}".replace("\0", random.choice(["\0", ""]))


def _value(random: Random, each: Declared) -> str:
    chance = random.random()
    if chance < 0.25 and choices_of(each.kind):
        return str(random.choice(choices_of(each.kind)))
    if chance < 0.4:
        return damaged_text(random, str(each.default))
    if chance < 0.45:
        return json.dumps([random.choice(NUMBERS), random.choice(STRINGS)])
    return str(random.choice(random.choice([NUMBERS, STRINGS])))


def options(random: Random, world: World, folder: Path) -> Case:
    """Options of every command, with values of any kind."""
    started = random.choice(_started(random, world))
    named = [flag for parameter in COMMANDS[started[0]].params for flag in parameter.opts if flag.startswith("--")]
    flags = [flag for flag in named if flag not in ("--out", "--predictions")] or ["--algorithm"]
    out = ["--out", "out"] if "--out" in named and "--dry-run" not in started and started[0] != "embed" else []
    values = [*map(str, NUMBERS), *STRINGS, str(folder), "1-3", "2", "auto"]
    given = [part for _ in range(random.choice([1, 2, 3])) for part in (random.choice(flags), random.choice(values))]
    # Bytes of the command line that are not UTF-8 reach Python so.
    return Case([*started, *out, *(part.replace("\ud800", "\udcff") for part in given)], out="out")


def _started(random: Random, world: World) -> list[list[str]]:
    """Commands with the arguments that they need."""
    masked, causal, task = (
        str(folder) for folder in (world.pretrained["bert"], world.pretrained["gpt2"], world.models["classification"])
    )
    text, test, run = str(world.text), str(world.reviews / "test.csv"), str(world.runs["pretrain"])
    typed = random.choice(["o [MASK] viu", *STRINGS])
    return [
        ["pretrain", text, *PRETRAIN, "--steps", "2", "--dry-run"], ["finetune", *world.finetune, "--dry-run"],
        ["sweep", *world.finetune, "--trials", "1"],
        ["learning-curve", *world.finetune, "--sizes", "8"], ["tokenizer", "train", text],
        ["prepare", text, "--tokenizer", run], ["options", random.choice(["pretrain", "finetune", *STRINGS])],
        ["evaluate", task, test], ["evaluate", masked, text], ["compare-pairs", masked, text], ["report", run],
        ["fill", masked, typed], ["embed", masked, typed], ["score", masked, typed], ["generate", causal, typed],
        ["score", causal, typed], ["predict", task, typed],
    ]  # fmt: skip


RECIPES: dict[str, Generator] = {"recipe": recipe, "task.toml": task, "set": settings, "options": options}
