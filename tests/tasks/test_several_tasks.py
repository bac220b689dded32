"""Several tasks on one body: their losses weighed, and each evaluated apart."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.finetuning import both, metrics, objective_of, recipe, run, scored, spec, weights, write
from builders.models import layout_of
from safetensors.torch import load_file

from palavra.errors import PalavraError
from palavra.experiments.runs import values_of
from palavra.finetuning.job import FinetuningJob
from palavra.finetuning.plan import resolve_finetuning
from palavra.finetuning.run import build_job
from palavra.finetuning.run_info import with_mean_score
from palavra.finetuning.splits import read_split
from palavra.inference.finetuned import FineTunedModel
from palavra.losses import Loss
from palavra.run_records.finetuning import TaskScores
from palavra.tasks.class_output import heaviest
from palavra.tasks.spec import MixingConfig, TaskSpec
from palavra.tokenizer import Tokenizer
from palavra.typed_json import to_json

pytestmark = pytest.mark.usefixtures("without_report")


def test_learned_weights_are_kendalls(pretrained: Path, reviews: Path) -> None:
    objective, model, tasks, encoded = objective_of(pretrained, reviews, "uncertainty")
    s = model.log_variances["stars"]
    with torch.no_grad():
        s.fill_(0.7)
    batch = encoded["stars"].batch(np.arange(6), "stars")
    plain = tasks["stars"].output.loss(model.head("stars").output, model(batch, layout_of(batch)), batch)
    found: Loss = objective.loss(model, batch, layout_of(batch))
    torch.testing.assert_close(found.mean, 2 * plain.mean * torch.exp(torch.tensor(-0.7)) + 0.35)
    found.mean.backward()
    # At its optimum the log-variance is the logarithm of twice the loss.
    torch.testing.assert_close(s.grad, (0.5 - 2 * plain.mean * torch.exp(torch.tensor(-0.7))).detach())


def job_of(pretrained: Path, task: TaskSpec) -> FinetuningJob:
    """What a run of the task would train."""
    splits, tokenizer = [read_split(task, 0)], Tokenizer.load(pretrained / "modernbert")
    return build_job(resolve_finetuning(recipe(pretrained, task), splits, tokenizer), splits)


def test_a_blind_guess_costs_what_the_heaviest_task_and_class_cost(
    pretrained: Path, reviews: Path, tmp_path: Path
) -> None:
    """Below half as much again no run is stopped: a rare class or a heavy task is no lost loss."""
    plain = job_of(pretrained, spec(reviews))
    assert plain.chance_loss == pytest.approx(math.log(3))
    assert job_of(pretrained, spec(reviews, weight=5.0)).chance_loss == pytest.approx(5 * math.log(3))
    few = "".join(f"{'bom,fresh' if n % 10 else 'mau,rotten'}\n" for n in range(40))
    rare = spec(reviews, train=write(tmp_path / "rare.csv", f"text,label\n{few}"), class_weights="balanced")
    assert job_of(pretrained, rare).chance_loss == pytest.approx(5 * math.log(3))
    tags = write(tmp_path / "rare.conll", "".join(f"{'bom N' if n % 10 else 'mau A'}\n\n" for n in range(40)))
    words = TaskSpec(kind="token-classification", train=tags, valid=tags, class_weights="balanced")
    assert job_of(pretrained, words).chance_loss == pytest.approx(5 * math.log(3))
    assert heaviest((99, 1, 0)) == pytest.approx(50)
    assert heaviest((7, 7)) == 1


def test_the_vectors_of_tokens_that_any_task_reads_are_learned_and_no_others(
    pretrained: Path, reviews: Path, tmp_path: Path
) -> None:
    """What only validation examples hold is not learned from."""
    texts = {"one": ("good plot", "dull plot"), "two": ("fine cast", "weak cast"), "valid": ("zzz 789", "qqq 456")}
    for name, (good, bad) in texts.items():
        lines = [f"{(good, bad)[i % 2]},{'ab'[i % 2]}" for i in range(12)]
        write(tmp_path / f"{name}.csv", "text,label\n" + "\n".join(lines) + "\n")
    tasks = [
        spec(reviews, name=name, train=str(tmp_path / f"{name}.csv"), valid=str(tmp_path / "valid.csv"))
        for name in ("one", "two")
    ]
    mixing = MixingConfig(sampling="uniform")
    run(recipe(pretrained, *tasks, mixing=mixing, train={"epochs": 3}), tmp_path / "out")
    tokenizer = Tokenizer.load(pretrained / "modernbert")
    read = {tokenizer.cls_id, tokenizer.sep_id}
    for name in ("one", "two"):
        read |= {token for text in texts[name] for token in tokenizer.encode(text)}
    key = "model.embeddings.tok_embeddings.weight"
    moved = (weights(tmp_path / "out")[key] != weights(pretrained / "modernbert")[key]).any(1)
    assert set(moved.nonzero()[:, 0].tolist()) == read
    assert f"{len(read)} of {len(moved)} tokens are in the training texts" in (tmp_path / "out/train.log").read_text()


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_tasks_share_a_body_and_are_evaluated_apart(
    pretrained: Path, reviews: Path, tmp_path: Path, weighting: Any
) -> None:
    tasks = [replace(each, test=str(reviews / "test.csv")) for each in both(reviews)]
    wanted = recipe(
        pretrained,
        *tasks,
        mixing=MixingConfig(sampling="uniform", weighting=weighting),
        train={"epochs": 8, "keep_checkpoints": True},
    )
    finished = run(wanted, tmp_path / "out")
    assert finished.scores["mood"]["test"].values["accuracy"] > 0.8
    assert finished.scores["stars"]["test"].values["pearson"] > 0.8
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [(one["name"], one["selection_metric"]) for one in evaluation["tasks"]] == [
        ("mood", "accuracy"),
        ("stars", "pearson"),
    ]
    for name in ("valid", "test"):
        of = [one["splits"][name] for one in evaluation["tasks"]]
        assert evaluation["mean_score"][name] == pytest.approx(np.mean([one["values"][one["main"]] for one in of]))
    loaded = FineTunedModel.load(tmp_path / "out", device="cpu")
    for name in ("mood", "stars"):
        task = loaded.tasks[name]
        again = loaded.score(task.reader.read(str(reviews / "test.csv")), task=name)
        assert again.values == pytest.approx(dict(finished.scores[name]["test"].values), abs=1e-5)
    last = tmp_path / "out" / "checkpoints" / f"step-{finished.steps}" / "weights.safetensors"
    learned = {key: float(value) for key, value in load_file(last).items() if "log_variances" in key}
    assert len(learned) == (2 if weighting == "uncertainty" else 0)
    assert all(value != 0 for value in learned.values())
    values = [line for line in metrics(tmp_path / "out") if line["kind"] == "valid"]
    assert {"mood/accuracy", "stars/pearson", "mean_score"} <= set(values[0])


def test_together_errors_are_negative_and_what_is_not_defined_has_no_mean() -> None:
    def tasks(**values: float) -> list[TaskScores]:
        first = {"valid": scored(loss=0.3), "test": scored()}
        return [
            TaskScores(name="a", kind="", selection_metric="loss", splits=first),
            TaskScores(name="b", kind="", selection_metric="pearson", splits={"valid": scored(**values)}),
        ]

    assert with_mean_score(tasks(pearson=0.5)).mean_score == {"valid": pytest.approx(0.1)}
    assert with_mean_score(tasks(mse=0.5)).mean_score == {}
    assert with_mean_score(tasks(pearson=0.5)[:1]).mean_score == {}
    assert "mean_score" not in to_json(with_mean_score(tasks(mse=0.5)))
    summed = values_of(with_mean_score(tasks(pearson=0.5)))
    assert summed["mean_score/valid"] == {"mean": pytest.approx(0.1)}


def test_a_metric_decides_on_the_tasks_that_have_it(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    run(recipe(pretrained, *both(reviews), train={"metric": "macro_f1", "steps": 2}), tmp_path / "out")
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [one["selection_metric"] for one in evaluation["tasks"]] == ["macro_f1", "pearson"]
    with pytest.raises(
        PalavraError, match=r"^metric= is 'f1', no score of mood or stars: use one of accuracy, [^\n]*$"
    ):
        run(recipe(pretrained, *both(reviews), train={"metric": "f1"}), tmp_path / "other")
