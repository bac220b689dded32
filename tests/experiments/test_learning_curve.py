"""A learning curve: growing parts of the examples, pretrained and from scratch; resumed, reported, and a model."""

import json
from pathlib import Path

import pytest
from builders.finetuning import interrupt, recipe, spec

import palavra
from palavra.errors import PalavraError
from palavra.experiments import learning_curve
from palavra.experiments.learning_curve import run_learning_curve
from palavra.log import Log
from palavra.training.interrupts import Interrupted

pytestmark = pytest.mark.usefixtures("without_report")


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_curve, "FEWEST_STEPS", 2)


def test_a_curve_is_scored_on_the_test_examples_and_resumed(
    pretrained: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(pretrained, spec(reviews, test=str(reviews / "valid.csv")), train={"epochs": 0.1})
    straight = run_learning_curve(wanted, (4, 10**6, 8), tmp_path / "straight", Log(quiet=True))
    with monkeypatch.context() as patch:
        interrupt(patch, 1)
        with pytest.raises(Interrupted):
            run_learning_curve(wanted, (4, 10**6, 8), tmp_path / "resumed", Log(quiet=True))
    resumed = run_learning_curve(wanted, (4, 10**6, 8), tmp_path / "resumed", Log(quiet=True), resume=True)
    assert resumed.curve == straight.curve
    assert [one.name for one in straight.curve.series] == ["pretrained", "from scratch"]
    every = len((reviews / "train.csv").read_text().splitlines()) - 1
    for series in straight.curve.series:
        assert [point.examples for point in series.points] == [4, 8, every]
        assert all(point.score is not None and 0 <= point.score <= 1 for point in series.points)
    stored = json.loads((tmp_path / "straight" / "learning_curve.json").read_text())
    assert stored["series"][0]["points"][2]["score"] == straight.curve.series[0].points[2].score
    assert straight.to_json()["series"] == stored["series"]
    assert (straight.best.name, straight.report.name) == (f"pretrained-{every}", "report.html")
    assert palavra.load(tmp_path / "straight", kind="fine-tuned").predict(["good"])[0]["label"]
    held = [
        json.loads((tmp_path / "straight" / f"pretrained-{size}" / "run.json").read_text())["tasks"][0]["examples"]
        for size in (4, 8)
    ]
    assert [one["train"] for one in held] == [4, 8]
    with pytest.raises(PalavraError, match="already holds"):
        run_learning_curve(wanted, (4,), tmp_path / "straight", Log(quiet=True))


def test_a_curve_that_cannot_be_drawn_is_one_line(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    task = spec(reviews, test=str(reviews / "valid.csv"))
    for tasks, sizes, problem in (
        ((spec(reviews),), (4,), "add test="),
        ((task,), (0, 4), "on 0 examples: sizes must be at least 1"),
        ((task, spec(reviews, name="b")), (4,), "needs exactly one task"),
    ):
        with pytest.raises(PalavraError, match=problem):
            run_learning_curve(recipe(pretrained, *tasks), sizes, tmp_path / "out", Log(quiet=True))
    assert not (tmp_path / "out").exists()
