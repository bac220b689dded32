"""Score answers to questions: grades with and without abstentions, losses, and the most confident errors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from palavra.data.squad import Question
from palavra.metrics.articles import ARTICLES, Articles
from palavra.metrics.calibration import FEWEST_IN_HALF, cross_fit, halves, not_fitted
from palavra.metrics.resampled import BoolArray, means
from palavra.metrics.scores import Scores
from palavra.metrics.squad import Grades, best_threshold, fitted_threshold, grade
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
        best = (
            {}
            if every
            else {
                f"best_{of}": best_threshold(getattr(grades, of), grades.answered, decoded.margins)
                for of in ("f1", "exact")
            }
        )
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
        # Cross-fitted questions have one of two thresholds: `fitted` has them.
        limits = set(decoded.limits.tolist())
        limit = {"threshold": limits.pop()} if len(limits) == 1 and np.isfinite(decoded.limits[0]) else {}
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


def passages_of(examples: Sequence[Question]) -> Int64Array:
    """Return the passage number of each question, (E,)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(example.context, len(numbers)) for example in examples], dtype=np.int64)


def fit_threshold(
    output: AnswerOutput, examples: Sequence[Question], encoded: EncodedExamples, outputs: ModelOutputs
) -> Calibrated:
    """Fit the threshold on labelled validation examples, for F1 (see `fitted_threshold`); of too few with or without an
    answer it stays as it is. Questions on one passage are in the same half."""
    decoded = output.decode(examples, encoded, outputs)
    grades = AnswerScorer(articles=output.options.articles).grades(examples, decoded)
    answered, margins = grades.answered, decoded.margins
    if output.options.threshold is not None or (answered.all() and not output.unanswerable):
        return Calibrated(output, decoded)
    least = min(answered.sum(), (~answered).sum())
    if least < FEWEST_IN_HALF:
        limit = output.limit if np.isfinite(output.limit) else None
        why = (
            f"the no-answer threshold stays {'off' if limit is None else f'{limit:g}'}: {answered.sum()} questions "
            f"with an answer and {(~answered).sum()} without are too few to fit it, {FEWEST_IN_HALF} of each are needed"
        )
        return Calibrated(output, decoded, (not_fitted("threshold", limit, why),))

    def fit(chosen: BoolArray) -> float:
        return fitted_threshold(grades.f1[chosen], answered[chosen], margins[chosen])

    passages = passages_of(examples)
    second = halves([""] * (int(passages.max()) + 1))[passages]
    sorts = [(half & sort).sum() for half in (second, ~second) for sort in (answered, ~answered)]
    fitted = cross_fit("threshold", fit, second, enough=min(sorts) >= FEWEST_IN_HALF)
    told, refused = fitted.details, margins > fitted.value
    if refused.all() or not refused.any():
        told = told | {
            "why": f"with the fitted no-answer threshold, {fitted.value:.3g}, {'no' if refused.all() else 'every'} "
            "question gets an answer: the model does not tell those without an answer from the others"
        }
    return Calibrated(replace(output, threshold=fitted.value), replace(decoded, limits=fitted.values), (told,))
