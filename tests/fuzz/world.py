"""The small valid files that generators damage, and models and runs that commands use."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import typer.main
from builders.finetuning import write_pretrained, write_reviews
from builders.generation import causal_model
from builders.prediction import EXAMPLES, FITTED, model_of
from builders.pretraining import TINY
from builders.tasks import trained
from matplotlib.figure import Figure

from fuzz.process import run_here
from palavra.model import cpu_threads
from palavra.model.directory import save_model
from palavra.pretraining import job as pretraining_job
from palavra.report import svg
from palavra.tasks.saved_model import save_task_model

PRETRAIN = ["--quiet", *(part for value in TINY for part in ("--set", value))]
FINETUNE = [
    "--quiet", *(part for value in ("threads=1", "device=cpu", "compile=off", "precision=float32", "log_every=1")
                 for part in ("--set", f"train.{value}"))
]  # fmt: skip
LINES = [f"O gato {i} viu a lua {i * 7 % 90} vezes." for i in range(120)]


class World:
    """The paths of what `make` wrote below `root`."""

    def __init__(self, root: Path):
        self.root = root
        self.text = root / "lines.txt"
        self.pretrained = {name: root / "pretrained" / name for name in ("bert", "modernbert", "llama", "gpt2")}
        self.models = {kind: root / "models" / kind for kind in FITTED}
        self.reviews = root / "reviews"
        self.runs = {name: root / "runs" / name for name in ("pretrain", "finetune", "seeds", "sweep")}
        self.unfinished = {name: root / "unfinished" / name for name in ("pretrain", "finetune", "seeds", "sweep")}
        self.shards = root / "shards"

    @property
    def finetune(self) -> list[str]:
        """A fine-tuning of a few steps, without its folder."""
        data = ["classification", str(self.reviews / "train.csv"), "--valid", str(self.reviews / "valid.csv")]
        return [*data, "--model", str(self.pretrained["bert"]), "--batch-size", "16", "--epochs", "1", *FINETUNE]


def make(root: Path) -> World:
    """Write the files."""
    torch.manual_seed(0)
    world = World(root)
    world.text.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    for folder in (root / "pretrained", world.reviews, root / "runs", root / "unfinished"):
        folder.mkdir()
    write_pretrained(root / "pretrained")
    write_reviews(world.reviews)
    tokenizer = trained("bpe", 300)
    for family in ("llama", "gpt2"):
        model = causal_model(family, vocab_size=tokenizer.vocab_size)
        save_model(model, world.pretrained[family], tokenizer.config_ids())
        tokenizer.save(world.pretrained[family], context=model.config.context, segments=False)
    for kind, folder in world.models.items():
        found = model_of(kind)
        found.tokenizer.save(folder, context=found.model.config.context, segments=True)
        save_task_model(found.model, found.tasks, folder, found.tokenizer.config_ids())
    _runs(world)
    return world


def _runs(world: World) -> None:
    """Make finished runs of each kind, and the same before their end."""
    kept = ["--set", "train.keep_checkpoints=true", "--set", "train.save_every=2"]
    commands = {
        "pretrain": ["pretrain", str(world.text), "--lines", "--steps", "8", "--vocab-size", "300", *PRETRAIN],
        "finetune": ["finetune", *world.finetune, *kept],
        "seeds": ["finetune", *world.finetune, *kept, "--seeds", "2"],
        "sweep": ["sweep", *world.finetune, *kept, "--trials", "2", "--search", "optimizer.learning_rate=1e-4,1e-3"],
    }
    for name, command in commands.items():
        run_here([*command, "--out", str(world.runs[name])])
        shutil.copytree(world.runs[name], world.unfinished[name])
    tokenizer = str(world.runs["pretrain"])
    run_here(["prepare", str(world.text), "--lines", "--tokenizer", tokenizer, "--quiet", "--out", str(world.shards)])
    for name in ("model.safetensors", "evaluation.json", "report.html", "examples.json"):
        for folder in world.unfinished.values():
            (folder / name).unlink(missing_ok=True)
            (folder / "seed-1" / name).unlink(missing_ok=True)


def records(kind: str) -> list[dict[str, Any]]:
    """Labelled examples of a kind."""
    names = {"words": "tokens", "label": "labels"} if kind == "token-classification" else {}
    example = {names.get(name, name): value for name, value in EXAMPLES[kind].items()}
    others: dict[str, Any] = {"classification": "b", "pairs": "a", "multiple-choice": 1}
    changed = {"label": others[kind]} if kind in others else {}
    return [example | (changed if row % 2 else {}) for row in range(8)]


@contextmanager
def quick() -> Iterator[None]:
    """Save no pictures, do not time the machine and read the options of commands once: each takes longer than the rest
    of a small run."""
    with (
        patch.object(Figure, "savefig", lambda *arguments, **options: None),
        patch.object(svg, "_inline", lambda document, name, label: "<svg></svg>"),
        patch.object(pretraining_job, "matmul_peak", lambda compute: 1e11),
        # Its threads, and the teams of OpenMP that they keep, do not survive a fork.
        patch.object(cpu_threads, "_has_gnu_openmp", lambda: False),
        patch.object(typer.main, "get_command", cache(typer.main.get_command)),
    ):
        yield
