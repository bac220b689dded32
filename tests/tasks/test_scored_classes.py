"""Negative sampling from training to prediction: scores, which nothing calls probabilities."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.finetuning import recipe, run, spec

from palavra.errors import PalavraError
from palavra.inference.finetuned import FineTunedModel
from palavra.inference.predictions import ScoredClassPrediction
from palavra.model.config import OutputConfig
from palavra.tasks.spec import TaskSpec

OUTPUT = OutputConfig(name="negative-sampling", negatives=1)


@pytest.fixture(scope="module")
def trained(pretrained: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "scored"
    run(recipe(pretrained, spec(reviews, output=OUTPUT)), out)
    return out


def test_predictions_have_scores_and_no_probability__E_neg(trained: Path) -> None:
    model = FineTunedModel.load(trained)
    found = model.predict("good fine nice", top=2)
    assert isinstance(found, ScoredClassPrediction)
    values = found.to_json()
    assert "probability" not in json.dumps(values)
    assert 0 < values["score"] < 1
    assert values["best"][0] == {"label": values["label"], "score": values["score"]}


def test_evaluation_and_report_say_that_nothing_is_calibrated__E_neg(trained: Path) -> None:
    (task,) = json.loads((trained / "evaluation.json").read_text())["tasks"]
    scores = task["splits"]["valid"]
    assert "calibration_error" not in scores["values"]
    assert np.isfinite(scores["values"]["loss"])
    assert "reliability" not in scores["details"]
    assert any("no probabilities" in said for said in scores["details"]["warnings"])
    page = (trained / "report.html").read_text()
    assert "no probabilities" in page
    assert "Expected calibration error" not in page


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"temperature": True}, "temperature"),
        ({"label_smoothing": 0.1}, "label_smoothing"),
        ({"kind": "token-classification"}, "output negative-sampling"),
    ],
)
def test_what_needs_probabilities_is_refused__E_neg(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(PalavraError, match=f"{what} does not apply"):
        TaskSpec(**{"kind": "classification", "output": OUTPUT, **changes})
