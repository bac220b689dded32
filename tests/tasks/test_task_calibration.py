"""Calibration and confident errors of every kind that gives probabilities, as the report shows them."""

from typing import Any

import numpy as np
import pytest
from builders.classification import SEVERAL, examples_of
from builders.question_answering import QUESTIONS, encode, random_scores, spec
from builders.tasks import answers_of, evaluate, fit, predict, score, trained
from builders.token_classification import EXAMPLES, SPEC, WORDPIECE
from scipy.special import logit

from palavra.finetuning.run_info import split_scores
from palavra.metrics.calibration import expected_calibration_error
from palavra.metrics.scores import Scores
from palavra.report.records import EvaluatedTask
from palavra.report.tasks import task_section
from palavra.run_records.finetuning import TaskScores
from palavra.tasks.task import AnyTask


def shown(task: AnyTask, scores: Scores) -> dict[str, Any]:
    """The section of the report, whose picture of calibration has to be there."""
    assert "calibration_error" in task.scorer.metrics
    assert scores.values["calibration_error"] > 0
    found = TaskScores(name="task", kind=task.spec.kind, selection_metric="", splits={"test": split_scores(scores)})
    section = task_section(EvaluatedTask.of(None, found), alone=True)
    (part,) = section["parts"]
    assert [picture.name for picture in part["figures"]].count("reliability") == 1
    return dict(part)


def test_label_sets_have_calibration_and_confident_errors() -> None:
    examples = examples_of([("a",), ("a", "b"), (), ("b",)])
    task = fit(SEVERAL, examples)
    encoded = task.encoder.encode(examples, trained(), 32, False)
    p = np.array([[0.9, 0.2], [0.7, 0.1], [0.4, 0.3], [0.95, 0.6]])
    scores = score(task, examples, encoded, (logit(p).astype(np.float32),))
    gold = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=bool)
    expected = expected_calibration_error(np.maximum(p, 1 - p).ravel(), ((p >= 0.5) == gold).ravel())
    assert scores.values["calibration_error"] == pytest.approx(expected, abs=1e-6)
    found = [
        (one["where"], one["label"], one["predicted"], one["decision"], round(one["probability"], 4))
        for one in scores.details["errors"]
    ]
    assert found == [("train.csv:5", "b", "a, b", "a", 0.95), ("train.csv:3", "a, b", "a", "not b", 0.9)]
    titles = [table.columns for table in shown(task, scores)["tables"]]
    assert any("Most confident mistake" in columns and "Probability" in columns for columns in titles)


def test_labelled_words_have_calibration() -> None:
    task = fit(SPEC, EXAMPLES)
    encoded = task.encoder.encode(EXAMPLES, WORDPIECE, 64, False)
    random = np.random.default_rng(0)
    p = random.dirichlet(np.full(len(task.output.labels), 0.3), size=len(encoded.rows)) + 1e-6
    log_p = np.log(p / p.sum(1, keepdims=True)).astype(np.float32)
    scores = score(task, EXAMPLES, encoded, (log_p,))
    predicted = predict(task, EXAMPLES, encoded, (log_p,))
    sure = [value for one in predicted for value in one["probabilities"]]
    said = [label for one in predicted for label in one["labels"]]
    right = [one == other for one, other in zip(said, (x for e in EXAMPLES for x in e.labels or ()), strict=True)]
    assert scores.values["calibration_error"] == pytest.approx(expected_calibration_error(sure, right), abs=1e-6)
    assert sum(row["count"] for row in scores.details["reliability"]) == len(sure)
    shown(task, scores)


@pytest.mark.parametrize("unanswerable", [False, True])
def test_answers_have_calibration_and_errors_their_probability(unanswerable: bool) -> None:
    task, encoded = answers_of(spec(), unanswerable), encode(QUESTIONS)
    scores, predictions = evaluate(task, QUESTIONS, encoded, random_scores(encoded, 3))
    right = [
        one["answer"] in {answer.text for answer in question.answers} if question.answers else one["answer"] == ""
        for one, question in zip(predictions, QUESTIONS, strict=True)
    ]
    expected = expected_calibration_error([min(one["probability"], 1.0) for one in predictions], right)
    assert scores.values["calibration_error"] == pytest.approx(expected, abs=1e-9)
    places = {question.question: one["probability"] for question, one in zip(QUESTIONS, predictions, strict=True)}
    errors = scores.details["errors"]
    assert [one["probability"] for one in errors] == sorted((one["probability"] for one in errors), reverse=True)
    assert all(one["probability"] == pytest.approx(places[one["text"]]) for one in errors)
    assert sum(row["count"] for row in scores.details["reliability"]) == len(QUESTIONS)
    shown(task, scores)
