"""What answers to questions score: their grades with and without refusals, losses, and the errors to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palavra.data.squad import Question
from palavra.metrics.resampled import Statistic, means
from palavra.metrics.squad import Grades, QuestionScores, Threshold, best_threshold
from palavra.tasks.features import EncodedExamples, Int64Array, offsets_of
from palavra.tasks.grouped_softmax import group_log_softmax
from palavra.tasks.question_answering.answer_spans import Found
from palavra.tasks.task import ModelOutputs

SHOWN_ERRORS = 20
Doubles = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What was found for questions, its `grades` with none withheld, and how much better "no answer" is,
    `no_answer_margin`."""

    found: tuple[Found, ...]
    grades: Grades
    no_answer_margin: Doubles

    def threshold(self, of_those: BoolArray | None = None, of: Literal["f1", "exact"] = "f1") -> Threshold:
        """The threshold that is best for the questions `of_those` (E,), or for all."""
        chosen = np.ones(len(self.no_answer_margin), dtype=bool) if of_those is None else of_those
        scores: Doubles = getattr(self.grades, of)
        return best_threshold(scores[chosen], self.grades.answered[chosen], self.no_answer_margin[chosen])


def window_losses(scores: Tensor, window: Tensor, first: Tensor, labels: Tensor) -> Tensor:
    """The mean of the two cross-entropies of each window (S,), in nats: scores (R, 2) of the rows, the `window` (R,) of
    each, the `first` row (S,) of each window, labels (S, 2)."""
    ends = [
        group_log_softmax(scores[:, end], window, len(first)).index_select(0, first + labels[:, end]) for end in (0, 1)
    ]
    return -(ends[0] + ends[1]) / 2


def losses_of_windows(features: EncodedExamples, inferred: ModelOutputs) -> Doubles:
    """`QuestionAnswering.loss` of each window (S,), in float64."""
    window = np.repeat(np.arange(features.sequences), features.row_counts)
    arrays = (inferred[0].astype(np.float64), window, offsets_of(features.row_counts)[:-1], features.labels)
    scores, group, first, labels = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    losses: Doubles = window_losses(scores, group, first, labels).numpy()
    return losses


def scores_of_sorts(scores: QuestionScores) -> dict[str, float]:
    """The numbers of questions with and without an answer; nothing where all have one."""
    if not scores.no_answer:
        return {}
    numbers = {name: getattr(scores, name) for name in
               ("has_answer_f1", "has_answer_exact", "no_answer_f1", "no_answer_exact")}  # fmt: skip
    for name, threshold in (("best_f1", scores.best_f1), ("best_exact", scores.best_exact)):
        numbers[name] = None if threshold is None else threshold.score
    return {name: float(value) for name, value in numbers.items() if value is not None}


def statistics_of_questions(given: Grades, features: EncodedExamples, losses: Doubles) -> list[Statistic]:
    """What the intervals take. The best thresholds have none: they are chosen with the right answers at hand."""
    both = {"f1": given.f1, "exact": given.exact}
    sorts = {"has_answer": given.answered, "no_answer": ~given.answered}
    windows = np.bincount(features.example, minlength=len(given.f1))
    return [
        means(both),
        *(means({f"{name}_{key}": own * of for key, own in both.items()}, of) for name, of in sorts.items()),
        means({"loss": np.bincount(features.example, losses, len(given.f1))}, windows),
    ]


def passages_of(examples: Sequence[Question]) -> Int64Array:
    """The number of the passage that each question is on, (E,)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(example.context, len(numbers)) for example in examples], dtype=np.int64)


def confident_errors(
    examples: Sequence[Question], judged: Judged, refused: BoolArray, f1: Doubles, sure: Doubles
) -> list[dict[str, Any]]:
    """The wrong predictions that the model was surest of."""
    wrong = np.flatnonzero(f1 == 0)
    return [
        {
            "where": examples[i].where,
            "text": examples[i].question[:300],
            "label": examples[i].answers[0].text if examples[i].answers else "",
            "predicted": "" if refused[i] else judged.found[i].text,
            "probability": float(sure[i]),
        }
        for i in wrong[np.argsort(-sure[wrong], kind="stable")][:SHOWN_ERRORS].tolist()
    ]
