"""Which of a run's validations is the best: by its score, then by its loss, and never one that is not defined."""

import json
import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.finetuning import Kept, recipe, run, spec, write
from builders.tasks import fit

from palavra.data.squad import Answer, Question
from palavra.errors import PalavraError
from palavra.finetuning.job import FinetuningJob, selection_score
from palavra.finetuning.run import resume_finetuning
from palavra.inference import finetuned
from palavra.log import Log
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import ModelOutputs
from palavra.tasks.text_examples import TextExample
from palavra.training.job import Validation
from palavra.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("without_report")


def best_of(pretrained: Path, reviews: Path, out: Path) -> int:
    """The best step of a run of five validations, one each step."""
    run(recipe(pretrained, spec(reviews), train={"steps": 5, "eval_every": 1}), out)
    return int(json.loads((out / "run.json").read_text())["training"]["best_step"])


@pytest.mark.parametrize(
    ("evaluations", "best"),
    [
        ([(-0.5, 0.9), (-1.0, 0.5), (-1.0, 0.3), (-1.0, 0.2), (-1.0, 0.4)], 4),
        ([(-1.0, 0.5), (-0.9, 0.1), (-1.0, 0.5), (-1.0, 0.6), (-1.0, 0.5)], 1),
        ([(math.inf, 0.1), (0.2, 0.9), (0.1, 0.9), (math.inf, 0.0), (0.1, 0.9)], 3),
    ],
)
def test_of_equal_scores_the_lower_loss_is_better(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    evaluations: Sequence[tuple[float, float]], best: int,
) -> None:  # fmt: skip
    numbers = count()

    def validate(self: FinetuningJob) -> Validation:
        score, loss = evaluations[next(numbers)]
        return Validation(score=score, loss=loss, values={"loss": loss}, line="scripted")

    monkeypatch.setattr(FinetuningJob, "validate", validate)
    assert best_of(pretrained, reviews, tmp_path / "out") == best


def test_the_score_and_the_loss_of_the_best_are_resumed(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations = iter([(-1.0, 0.2), (-1.0, 0.3), KeyboardInterrupt, (-1.0, 0.25), (-1.0, 0.25), (-1.0, 0.25)])

    def validate(self: FinetuningJob) -> Validation:
        look: Any = next(evaluations)
        if look is KeyboardInterrupt:
            raise KeyboardInterrupt
        return Validation(score=look[0], loss=look[1], values={"loss": look[1]}, line="scripted")

    monkeypatch.setattr(FinetuningJob, "validate", validate)
    settings = {"steps": 5, "eval_every": 1, "save_every": 1, "keep_last": 9}
    with pytest.raises(KeyboardInterrupt):
        run(recipe(pretrained, spec(reviews), train=settings), tmp_path / "out")
    resume_finetuning(tmp_path / "out", (), Log(quiet=True))
    assert json.loads((tmp_path / "out" / "run.json").read_text())["training"]["best_step"] == 1


def test_predictions_that_are_all_alike_never_hold_the_best_weights(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They correlate with nothing, which is no score, and would beat what is a little below 0 if it were 0."""
    numbers = count()
    targets = [float(line.split(",")[2]) for line in (reviews / "valid.csv").read_text().splitlines()[1:]]

    def infer(*arguments: Any) -> ModelOutputs:
        slope = -0.1 if next(numbers) == 1 else 0.0
        return (np.array([[slope * target] for target in targets], dtype=np.float32),)

    monkeypatch.setattr(finetuned, "infer", infer)
    log = Kept()
    run(recipe(pretrained, spec(reviews, "regression"), train={"steps": 3, "eval_every": 1}), tmp_path / "out", log)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["training"]["best_step"] == 2
    assert any("step 1/3: validation pearson not defined, loss" in line for line in log.said)


def test_selection_score() -> None:
    values = {"pearson": 0.0, "loss": 2.0, "rmse": math.nan}
    assert selection_score("loss", values) == -2.0
    assert selection_score("pearson", values) == 0.0
    assert selection_score("rmse", values) == selection_score("auroc", values) == -math.inf


# What the labels tell before training


def texts(*labels: tuple[Any, ...]) -> list[TextExample]:
    return [TextExample(first="a", second=None, label=label, where="f:1") for label in labels]


def test_what_labels_leave_undefined() -> None:
    one = fit(TaskSpec(kind="classification"), texts(("a",), ("b",), ("c",)))
    assert not one.scorer.undefined(texts(("a",), ("b",), ("c",)))
    assert one.scorer.undefined(texts(("a",), ("b",))) == ("auroc",)
    several = fit(TaskSpec(kind="classification", multilabel=True), texts(("a", "b"), ("b",), ("a",)))
    assert not several.scorer.undefined(texts(("a", "b"), ()))
    assert several.scorer.undefined(texts(("a", "b"), ("a",))) == ("auroc",)
    numbers = fit(TaskSpec(kind="regression"), texts((1.0,), (2.0,)))
    assert not numbers.scorer.undefined(texts((1.0,), (2.0,)))
    assert set(numbers.scorer.undefined(texts((2.0,), (2.0,)))) == {"pearson", "spearman", "r2"}

    def question(*answers: Answer) -> Question:
        return Question(id="1", question="?", context="a b", answers=answers, where="f:1")

    answered, without = question(Answer(text="a", start=0)), question()
    asked = fit(TaskSpec(kind="question-answering"), [answered, without])
    assert not asked.scorer.undefined([answered, without])
    of_all = {"f1", "exact", "calibration_error", "loss"}
    assert {*of_all, *asked.scorer.undefined([answered])} == set(asked.scorer.metrics)
    assert set(asked.scorer.undefined([without])) == {"has_answer_f1", "has_answer_exact"}


def test_a_metric_that_is_not_defined_on_the_validation_examples_stops_before_the_first_step(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (reviews / "valid.csv").read_text().splitlines()
    valid = write(tmp_path / "valid.csv", "\n".join([lines[0], *(line for line in lines if "fresh" in line)]) + "\n")

    def train(self: Trainer) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(Trainer, "train", train)
    wanted = recipe(pretrained, spec(reviews, valid=valid), train={"metric": "auroc"})
    with pytest.raises(
        PalavraError, match=r"^metric= auroc is not defined on the validation examples of task \([^\n]*$"
    ):
        run(wanted, tmp_path / "out")
