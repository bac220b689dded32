"""What a run says of scores that the validation examples chose, and of training that ended too early."""

import json
import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest
from builders.finetuning import Kept, recipe, run, scored, spec

from palavra.experiments.repeat import run_seeds
from palavra.finetuning.job import FinetuningJob
from palavra.finetuning.run_info import much_gained
from palavra.log import Log
from palavra.run_records.finetuning import FinetuningEvaluation, Interval, SplitScores, TaskScores
from palavra.training.job import Validation

OPTIMISTIC = "The validation scores are optimistic"


def evaluated(**splits: SplitScores) -> FinetuningEvaluation:
    task = TaskScores(name="task", kind="classification", selection_metric="accuracy", splits=splits)
    return FinetuningEvaluation(tasks=(task,))


def test_without_a_test_set_scores_are_said_to_be_chosen(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    log = Kept()
    settings = {"steps": 4, "eval_every": 2}
    run(recipe(pretrained, spec(reviews), train=settings), tmp_path / "out", log)
    (said,) = [line for line in log.said if OPTIMISTIC in line]
    assert "the same examples chose these weights among 2 validations. Scores of a test set" in said
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["chosen_among"] == {"validations": 2}
    assert "chose these weights among 2 validations" in (tmp_path / "out/report.html").read_text()
    log = Kept()
    run(recipe(pretrained, spec(reviews, test=str(reviews / "test.csv")), train=settings), tmp_path / "tested", log)
    assert not any(OPTIMISTIC in line for line in log.said)
    once = Kept()
    run(recipe(pretrained, spec(reviews), train={"steps": 1}), tmp_path / "once", once)
    assert not any(OPTIMISTIC in line for line in once.said)


def test_seeds_count_among_what_was_chosen_from(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_seeds(recipe(pretrained, spec(reviews), train={"steps": 1}), 2, out, False, Log(quiet=True))
    assert json.loads((out / "evaluation.json").read_text())["chosen_among"] == {"validations": 1, "seeds": 2}


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize(
    ("scores", "rising"), [([0.0, 0.3, 0.9], True), ([0.0, 0.9, 0.9], False), ([0.0, 0.9, 0.3], False)]
)
def test_a_run_that_ends_while_validation_improves_says_so(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: Sequence[float],
    rising: bool,
) -> None:  # fmt: skip
    numbers, log = count(), Kept()

    def validate(self: FinetuningJob) -> Validation:
        return Validation(score=-scores[next(numbers)], loss=1.0, values={"loss": 1.0}, line="scripted")

    monkeypatch.setattr(FinetuningJob, "validate", validate)
    settings = {"steps": 3, "eval_every": 1}
    run(
        recipe(pretrained, spec(reviews), train=settings, optimizer=recipe(pretrained).optimizer), tmp_path / "out", log
    )
    assert any("Validation was still improving at the end, by 0.6000" in line for line in log.said) == rising


def test_only_a_gain_beyond_the_error_of_the_score_counts() -> None:
    between = Interval(low=0.7, high=0.9, level=0.95, samples=100)
    found = evaluated(valid=SplitScores(main="accuracy", values={"accuracy": 0.8}, interval=between,
                                        intervals={"accuracy": between}, details={}))  # fmt: skip
    assert much_gained(0.06, found) == 0.06
    for gain in (0.04, -0.2, math.inf, None):
        assert much_gained(gain, found) is None
    assert much_gained(0.5, evaluated(valid=scored(accuracy=1.0))) is None
