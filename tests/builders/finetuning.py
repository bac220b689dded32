"""Whole fine-tuning runs small enough for a test, and what they wrote."""

import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from builders.models import build_model, model_config
from builders.pretraining import metrics_of
from palavra.finetuning.job import FinetuningJob
from palavra.finetuning.run import FineTuned, run_finetuning
from palavra.finetuning.splits import read_split
from palavra.log import Log
from palavra.model.directory import save_model
from palavra.model.task_heads import TaskModel
from palavra.recipe import FinetuneConfig, FinetuneRecipe
from palavra.run_records.finetuning import SplitScores
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.objective import TaskObjective
from palavra.tasks.saved_model import build_task_model
from palavra.tasks.spec import Columns, TaskSpec
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig
from palavra.training.config import OptimizerConfig, StrategyConfig

GOOD = ["bom", "lindo", "adorei", "genial"]
BAD = ["mau", "feio", "detestei", "fraco"]
REST = ["filme", "o", "um", "actor", "muito", "este", "final", "a"]
FAST = FinetuneConfig(epochs=2, batch_size=8, log_every=1, device="cpu", precision="float32", compile="off", threads=1)
RATE = OptimizerConfig(learning_rate=3e-3)
EVEN = StrategyConfig(head_lr_ratio=1.0)


@dataclass
class Kept(Log):
    """Keeps what the run says."""

    def __post_init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def line(self, text: str, style: str = "") -> None:
        self.said.append(text)
        super().line(text, style)


def write_pretrained(folder: Path) -> None:
    """A pretrained directory of each family."""
    texts = [" ".join([word, *REST]) for word in GOOD + BAD]
    tokenizer = Tokenizer.train(texts * 5, TokenizerConfig(algorithm="wordpiece", vocab_size=100))
    for family, changes in (("bert", {"dropout": 0.1}), ("modernbert", {})):
        config = model_config(family, vocab_size=tokenizer.vocab_size, **changes)
        save_model(build_model(config), folder / family)
        tokenizer.save(folder / family, context=config.context, segments=bool(config.segments))


def praise_and_blame(number: int, seed: int = 0) -> list[tuple[str, str, float]]:
    """Texts, whether they praise, and by how much."""
    random = np.random.default_rng(seed)
    found = []
    for i in range(number):
        words = random.choice(REST, size=int(random.integers(1, 7))).tolist()
        words.insert(int(random.integers(len(words) + 1)), str(random.choice(GOOD if i % 2 else BAD)))
        found.append((" ".join(words), "fresh" if i % 2 else "rotten", float(i % 2) + len(words) / 100))
    return found


def write_reviews(folder: Path) -> None:
    """Tables of reviews with a label, a number and a second text."""
    for name, number, seed in (("train", 64, 0), ("valid", 20, 1), ("test", 20, 2)):
        rows = praise_and_blame(number, seed)
        lines = [f"{text},{label},{stars},{REST[i % 8]}" for i, (text, label, stars) in enumerate(rows)]
        write(folder / f"{name}.csv", "text,label,stars,text_b\n" + "\n".join(lines) + "\n")


def write(path: Path, text: str) -> str:
    """Write a text; the name of its file."""
    path.write_bytes(text.encode("utf-8"))
    return str(path)


def spec(reviews: Path, kind: Any = "classification", **changes: Any) -> TaskSpec:
    """A task on the reviews, in the folder of `write_reviews`."""
    values = {"train": str(reviews / "train.csv"), "valid": str(reviews / "valid.csv"), **changes}
    if kind == "regression":
        values |= {"columns": Columns(label=("stars",))}
    if kind == "pairs":
        values |= {"columns": Columns(text_a="text", text_b="text_b")}
    return TaskSpec(kind="classification" if kind == "pairs" else kind, **values)


def recipe(
    pretrained: Path, *tasks: TaskSpec, family: str = "modernbert", train: Any = None, **changes: Any
) -> FinetuneRecipe:
    """A fast run of these tasks from a model of the folder of `write_pretrained`."""
    settings = replace(FAST, **(train or {}))
    values: dict[str, Any] = {
        "model": str(pretrained / family), "optimizer": RATE, "strategy": EVEN, "train": settings, **changes,
    }  # fmt: skip
    return FinetuneRecipe(tasks=tasks, **values)


def run(what: FinetuneRecipe, out: Path, log: Log | None = None) -> FineTuned:
    """Run it without a word."""
    return run_finetuning(what, out, log or Log(quiet=True))


def metrics(out: Path) -> list[dict[str, Any]]:
    """What was measured, without what a clock says."""
    lines = metrics_of(out)
    return [{k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")} for line in lines]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The stored weights of a run."""
    return load_file(out / "model.safetensors")


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send this process a SIGTERM in the middle of a step."""

    def step_values(self: FinetuningJob, report: Any) -> dict[str, float]:
        if report.step == step:
            signal.raise_signal(signal.SIGTERM)
        return {}

    monkeypatch.setattr(FinetuningJob, "step_values", step_values)


def scored(**values: float) -> SplitScores:
    """The scores of a split, as evaluation.json has them."""
    return SplitScores(main=next(iter(values), ""), values=values, interval=None, intervals={}, details={})


def both(reviews: Path) -> tuple[TaskSpec, TaskSpec]:
    """A classification and a regression of the reviews."""
    return spec(reviews, name="mood"), spec(reviews, "regression", name="stars", weight=2.0)


def objective_of(
    pretrained: Path, reviews: Path, weighting: Literal["fixed", "uncertainty"]
) -> tuple[TaskObjective, TaskModel, dict[str, Any], dict[str, EncodedExamples]]:
    """Objective, model, tasks and encoded of `both`."""
    splits = [read_split(each, 0) for each in both(reviews)]
    tasks = {split.task.spec.name: split.task for split in splits}
    tokenizer = Tokenizer.load(pretrained / "bert")
    config = model_config("bert", vocab_size=tokenizer.vocab_size)
    model = build_task_model(config, tasks, learned_weights=weighting == "uncertainty").eval()
    encoded = {name: task.encoder.encode(split.train, tokenizer, 64, True)
                for (name, task), split in zip(tasks.items(), splits, strict=True)}  # fmt: skip
    return TaskObjective(tasks, encoded), model, tasks, encoded
