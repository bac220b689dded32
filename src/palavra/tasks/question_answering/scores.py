"""Score answers to questions: grades with and without abstentions, losses, and the most confident errors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from palavra.data.squad import Question
from palavra.metrics.articles import ARTICLES, Articles
from palavra.metrics.calibration import FEWEST_IN_HALF, cross_fit, halves
from palavra.metrics.resampled import BoolArray, means
from palavra.metrics.scores import Scores
from palavra.metrics.squad import Grades, Threshold, best_threshold, grade
from palavra.tasks.encoded_examples import EncodedExamples, Int64Array
from palavra.tasks.question_answering.output import AnswerOutput, DecodedAnswers, losses_of_windows
from palavra.tasks.task import Calibrated, ModelOutputs, surest_errors

# The metrics if all questions have an answer.
ANSWERED_METRICS = ("f1", "exact", "calibration_error", "loss")


@dataclass(frozen=True, kw_only=True)
class AnswerScorer:
    """Score by SQuAD's rules, ignoring the `articles` of a language."""

    articles: Articles

    metrics: ClassVar[tuple[str, ...]] = (
        "f1", "exact", "has_answer_f1", "has_answer_exact", "no_answer_f1", "no_answer_exact", "best_f1", "best_exact",
        "calibration_error", "loss",
    )  # fmt: skip

    def undefined(self, examples: Sequence[Question]) -> tuple[str, ...]:
        """Return the scores of questions with (or without) an answer if there are none."""
        answered = [bool(example.answers) for example in examples]
        if all(answered):
            return tuple(name for name in self.metrics if name not in ANSWERED_METRICS)
        return () if any(answered) else ("has_answer_f1", "has_answer_exact")

    def grades(self, examples: Sequence[Question], decoded: DecodedAnswers) -> Grades:
        """Return the grades of the best answers, without abstentions."""
        gold = [tuple(answer.text for answer in one.answers) for one in examples]
        return grade([one.text for one in decoded.found], gold, ARTICLES[self.articles])

    def score(self, examples: Sequence[Question], encoded: EncodedExamples, decoded: DecodedAnswers) -> Scores:
        """Return exact match and F1 with the task's threshold. If some questions have no answer, also for each type of
        question, and with the best threshold, which uses the gold answers and has no interval."""
        grades, abstained = self.grades(examples, decoded), decoded.abstained
        given = grades.with_abstentions(abstained)
        every = bool(given.answered.all())
        best = {} if every else {f"best_{of}": _best(grades, decoded, of=of) for of in ("f1", "exact")}
        losses = losses_of_windows(encoded, decoded.scores)
        windows = np.bincount(encoded.example, minlength=len(examples))
        loss = means({"loss": np.bincount(encoded.example, losses, len(examples))}, windows)
        probabilities = map(decoded.probabilities, range(len(examples)))
        sure = np.array([p[-1] if no else p[0] for p, no in zip(probabilities, abstained.tolist(), strict=True)])

        def about(i: int) -> dict[str, Any]:
            one, predicted = examples[i], "" if abstained[i] else decoded.found[i].text
            label = one.answers[0].text if one.answers else ""
            return {"where": one.where, "text": one.question[:300], "label": label, "predicted": predicted}

        errors = surest_errors(given.f1 == 0, sure, about)
        limit = {"threshold": float(decoded.limits[0])} if np.isfinite(decoded.limits[0]) else {}
        return Scores.of(
            ANSWERED_METRICS if every else self.metrics,
            [*given.statistics(), loss],
            len(examples),
            # Rounding may bring a probability slightly above 1.
            calibrated=(sure.clip(0, 1), given.exact == 1),
            others={name: one.score for name, one in best.items()},
            details={
                "questions": len(examples),
                "has_answer": int(given.answered.sum()),
                "no_answer": int((~given.answered).sum()),
                **{name: {"value": one.value, "score": one.score} for name, one in best.items()},
                "articles": self.articles,
                **limit,
                "errors": errors,
            },
            groups=passages_of(examples),
        )


def _best(
    grades: Grades, decoded: DecodedAnswers, chosen: BoolArray | slice = slice(None), of: Literal["f1", "exact"] = "f1"
) -> Threshold:
    """Return the best threshold for the `chosen` questions (E,)."""
    return best_threshold(getattr(grades, of)[chosen], grades.answered[chosen], decoded.margins[chosen])


def passages_of(examples: Sequence[Question]) -> Int64Array:
    """Return the passage number of each question, (E,)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(example.context, len(numbers)) for example in examples], dtype=np.int64)


def fit_threshold(
    output: AnswerOutput, examples: Sequence[Question], encoded: EncodedExamples, outputs: ModelOutputs
) -> Calibrated:
    """Fit the threshold with the best F1 on labelled validation examples, unless they lack questions with or without an
    answer. Questions on one passage are in the same half."""
    decoded = output.decode(examples, encoded, outputs)
    grades = AnswerScorer(articles=output.options.articles).grades(examples, decoded)
    answered = grades.answered
    if answered.all() or not answered.any():
        return Calibrated(output, decoded, {})
    passages = passages_of(examples)
    second = halves([""] * (int(passages.max()) + 1))[passages]
    sorts = [(half & sort).sum() for half in (second, ~second) for sort in (answered, ~answered)]
    fitted = cross_fit(
        "threshold", lambda chosen: _best(grades, decoded, chosen).value, second, enough=min(sorts) >= FEWEST_IN_HALF
    )
    output = replace(output, threshold=fitted.value)
    if output.options.threshold is not None:
        return Calibrated(output, decoded, {})
    decoded = replace(decoded, limits=fitted.values)
    return Calibrated(output, decoded, {"threshold": fitted.value, "fitted": fitted.details})
