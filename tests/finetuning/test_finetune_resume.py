"""A fine-tuning run goes on where it was interrupted, as if it had not been."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.finetuning import both, interrupt, metrics, recipe, run, spec, weights, write

from palavra.errors import PalavraError
from palavra.finetuning.run import resume_finetuning
from palavra.log import Log
from palavra.model.config import HeadConfig, OutputConfig
from palavra.tasks.spec import MixingConfig, TaskSpec
from palavra.training.config import OptimizerConfig, StrategyConfig
from palavra.training.interrupts import Interrupted

pytestmark = pytest.mark.usefixtures("without_report")


RESUMED: dict[str, dict[str, Any]] = {
    "full": {"family": "bert"},
    "gradual": {"strategy": StrategyConfig(name="gradual", unfreeze_fraction=0.3, layer_decay=0.9)},
    "lora": {"strategy": StrategyConfig(name="lora", rank=2), "family": "bert"},
    "frozen": {"strategy": StrategyConfig(name="frozen", head_lr_ratio=5.0)},
    "muon": {"optimizer": OptimizerConfig(name="muon", learning_rate=1e-3)},
    "sgd": {"optimizer": OptimizerConfig(name="sgd", learning_rate=1e-2)},
    "several": {"mixing": MixingConfig(weighting="uncertainty", sampling="temperature")},
    "batch-norm": {},
    "sampled": {},
}


@pytest.mark.parametrize("name", RESUMED)
def test_interrupted_and_resumed_equals_straight_through_bit_for_bit(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tasks: tuple[TaskSpec, ...] = (spec(reviews),)
    if name == "several":
        tasks = both(reviews)
    if name == "batch-norm":
        tasks = (spec(reviews, head=HeadConfig(hidden_sizes=(8,), norm="batch")),)
    if name == "sampled":
        tasks = (spec(reviews, output=OutputConfig(name="sampled", samples=1)),)
    wanted = recipe(pretrained, *tasks, train={"steps": 10, "eval_every": 4, "keep_last": 9}, **RESUMED[name])
    straight = run(wanted, tmp_path / "straight")
    with monkeypatch.context() as patch:
        interrupt(patch, 5)
        with pytest.raises(Interrupted) as stopped:
            run(wanted, tmp_path / "resumed")
    assert stopped.value.exit_code == 143
    assert not (tmp_path / "resumed" / "model.safetensors").exists()
    resumed = resume_finetuning(tmp_path / "resumed", (), Log(quiet=True))
    one, other = weights(tmp_path / "straight"), weights(tmp_path / "resumed")
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key
    assert metrics(tmp_path / "straight") == metrics(tmp_path / "resumed")
    assert resumed.steps == straight.steps == 10
    for task, of in straight.scores.items():
        assert resumed.scores[task]["valid"].values == of["valid"].values


def test_a_run_is_not_resumed_on_other_data(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (reviews / "train.csv").read_text()
    source = write(tmp_path / "t.csv", content)
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(Interrupted):
            run(recipe(pretrained, spec(reviews, train=source)), tmp_path / "out")
    write(tmp_path / "t.csv", content.replace("fresh", "rotten", 1))
    with pytest.raises(PalavraError, match=r"^[^\n]*out: the labelled files changed since the run began: [^\n]*$"):
        resume_finetuning(tmp_path / "out", (), Log(quiet=True))
    write(tmp_path / "t.csv", content)
    assert resume_finetuning(tmp_path / "out", (), Log(quiet=True)).steps == 16


def test_a_run_is_resumed_from_any_folder(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began with names that mean something only where it began."""
    monkeypatch.chdir(reviews)
    model = os.path.relpath(pretrained / "modernbert")
    task = TaskSpec(kind="classification", train="train.csv", valid="valid.csv", test="test.csv")
    wanted = replace(recipe(pretrained, task, train={"steps": 6}), model=model)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(Interrupted):
            run(wanted, Path(os.path.relpath(out)))
    monkeypatch.chdir(tmp_path)
    resumed = resume_finetuning(Path("out"), (), Log(quiet=True))
    straight = run(
        recipe(pretrained, spec(reviews, test=str(reviews / "test.csv")), train={"steps": 6}), tmp_path / "straight"
    )
    assert resumed.scores["task"]["test"].values == straight.scores["task"]["test"].values


def test_what_patience_ended_is_not_trained_further(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    """Killed between its early end and its model, a run makes the same model when it is resumed."""
    wanted = recipe(pretrained, spec(reviews), train={"steps": 30, "eval_every": 1, "patience": 2,
                    "keep_checkpoints": True}, optimizer=OptimizerConfig(name="sgd", learning_rate=1e-9))  # fmt: skip
    out = tmp_path / "run"
    first = run(wanted, out)
    assert first.stopped is not None
    assert first.steps < 30
    before = weights(out)
    (out / "model.safetensors").unlink()
    (out / "evaluation.json").unlink()
    again = resume_finetuning(out, (), Log(quiet=True))
    assert (again.steps, again.stopped) == (first.steps, first.stopped)
    assert all(torch.equal(value, weights(out)[key]) for key, value in before.items())
    longer = resume_finetuning(out, ("train.patience=5",), Log(quiet=True))
    assert longer.steps > first.steps
