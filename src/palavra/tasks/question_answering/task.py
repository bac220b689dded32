"""Extractive question answering: the answer is a span of the passage (Devlin et al. 2019, sections 4.2 and 4.3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palavra.data.squad import Question
from palavra.errors import PalavraError
from palavra.tasks.question_answering.encoding import STRIDE, QuestionEncoder
from palavra.tasks.question_answering.examples import reader
from palavra.tasks.question_answering.output import AnswerOutput
from palavra.tasks.question_answering.scores import AnswerScorer, fit_threshold
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import AnyTask, Kind, Task


def fit(spec: TaskSpec, examples: Sequence[Question], trained: Sequence[Question]) -> AnyTask:
    """Build the task; it may abstain if some of the examples have no answer."""
    del trained
    answered = sum(bool(example.answers) for example in examples)
    if not answered:
        raise PalavraError(f"{spec.source}: no question has an answer, so there is nothing to learn: check the answers")
    task = _task(spec, answered < len(examples), None)
    task.encoder.check(examples)
    return task


def from_json(spec: TaskSpec, values: Mapping[str, Any]) -> AnyTask:
    """Rebuild the task from the values of `to_json`."""
    unanswerable, threshold = values.get("unanswerable", False), values.get("threshold")
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool) and np.isfinite(threshold)
    if not isinstance(unanswerable, bool) or not (threshold is None or number):
        raise PalavraError(
            f"task {spec.name}: unanswerable is {unanswerable!r} and threshold {threshold!r}, not a truth value and a "
            "number: fetch the model anew"
        )
    return _task(spec, unanswerable, None if threshold is None else float(threshold))


def _task(spec: TaskSpec, unanswerable: bool, threshold: float | None) -> AnyTask:
    options = spec.question_answering
    return Task(
        spec=spec,
        reader=reader(spec),
        encoder=QuestionEncoder(stride=options.stride or STRIDE),
        output=AnswerOutput(options=options, unanswerable=unanswerable, threshold=threshold),
        scorer=AnswerScorer(articles=options.articles),
        calibrate=fit_threshold,
    )


KIND = Kind(reader=reader, fit=fit, from_json=from_json)
