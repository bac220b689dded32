"""Scores of answers to questions, by the published rules of SQuAD 1.1 and 2.0.

Rajpurkar et al. 2016 (1.1) and Rajpurkar, Jia and Liang 2018 (2.0). All scores are rates between 0 and 1; published
tables give percentages. They compare characters, not meanings. The total of 2.0 is optimistic for a model that never
answers: it is correct on every question without an answer.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from palavra.errors import PalavraError
from palavra.metrics.articles import ENGLISH_ARTICLES
from palavra.metrics.resampled import Statistic, means

# ASCII only, as published: quotation marks such as « and “ stay.
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

# Thresholds to compare.
TRIED_THRESHOLDS = 512

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The no-answer margin `value` above which to abstain for the best possible `score`. The score is an upper bound,
    because the gold answers chose it: fit on validation data, and apply to others with `Grades.with_abstentions`.
    """

    value: float
    score: float


@lru_cache
def _article_pattern(articles: frozenset[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, articles)))})\b")


def normalize_answer(text: str, articles: frozenset[str] = ENGLISH_ARTICLES) -> str:
    """Lower the case, remove ASCII punctuation and articles, and separate words by one space; in this order.

    Published scores remove English articles in every language: Portuguese loses its preposition and article `a`, and
    keeps `o`. Pass `PORTUGUESE_ARTICLES`, or none, and report this with the scores.
    """
    text = text.lower().translate(WITHOUT_PUNCTUATION)
    if articles:
        text = _article_pattern(articles).sub(" ", text)
    return " ".join(text.split())


def _overlap(prediction: list[str], gold: list[str]) -> float:
    """Return F1 of the two bags of words. If one is empty, return 1 if both are, else 0, as in 2.0 (1.1 gives 0 for
    both)."""
    if not prediction or not gold:
        return float(prediction == gold)
    shared = sum((Counter(prediction) & Counter(gold)).values())
    return 2 * shared / (len(prediction) + len(gold))


@dataclass(frozen=True, kw_only=True)
class Grades:
    """Scores of each question (E,): `exact` match, 0 or 1, word overlap `f1`, and `no_answer_score`, the score of an
    abstention by both measures. `answered`: whether the text has an answer."""

    exact: Floats
    f1: Floats
    no_answer_score: Floats
    answered: npt.NDArray[np.bool_]

    def with_abstentions(self, abstained: npt.NDArray[np.bool_]) -> "Grades":
        """Return the grades with an abstention on the questions `abstained` (E,)."""
        given = {name: np.where(abstained, self.no_answer_score, getattr(self, name)) for name in ("exact", "f1")}
        return replace(self, **given)

    def statistics(self) -> list[Statistic]:
        """Return the mean grades of all questions, of those with an answer in the text, and of those without."""
        both = {"exact": self.exact, "f1": self.f1}
        sorts = {"has_answer": self.answered, "no_answer": ~self.answered}
        return [
            means(both),
            *(means({f"{name}_{key}": grades * of for key, grades in both.items()}, of) for name, of in sorts.items()),
        ]


def grade(
    predictions: Sequence[str], gold: Sequence[tuple[str, ...]], articles: frozenset[str] = ENGLISH_ARTICLES
) -> Grades:
    """Return exact match and F1 of each answer, the best over several gold answers. Without gold answers the correct
    prediction is "". Gold answers with only articles and punctuation are ignored, as published."""
    exact, overlap, no_answer_score = np.zeros((3, len(gold)))
    for row, (given, answers) in enumerate(zip(predictions, gold, strict=True)):
        normalized = [answer for answer in (normalize_answer(one, articles) for one in answers) if answer] or [""]
        prediction = normalize_answer(given, articles)
        exact[row] = prediction in normalized
        words = prediction.split()
        overlap[row] = max(_overlap(words, answer.split()) for answer in normalized)
        no_answer_score[row] = normalized == [""]
    return Grades(
        exact=exact, f1=overlap, no_answer_score=no_answer_score, answered=np.array([bool(answers) for answers in gold])
    )


def best_threshold(scores: Floats, answered: npt.NDArray[np.bool_], no_answer_margin: Floats) -> Threshold:
    """Return the best threshold on `no_answer_margin` (E,) and the mean score with it.

    scores (E,) of the predictions; answered (E,): whether the text has an answer. The published search may stop between
    equal margins, which no threshold can separate; this one does not. It starts from abstaining on all questions, with
    threshold 0 as published if that is below all margins. Raises PalavraError for a margin that is NaN.
    """
    if np.isnan(no_answer_margin).any():
        raise PalavraError("a no-answer score is not a number: the model has diverged; train with a lower rate")
    order = np.argsort(no_answer_margin, kind="stable")
    ascending = no_answer_margin[order]
    abstained = (~answered).astype(np.float64)
    totals = abstained.sum() + np.cumsum((scores - abstained)[order])
    can_cut = np.append(ascending[1:] > ascending[:-1], True)
    totals[~can_cut] = -math.inf
    best = int(totals.argmax())
    if totals[best] > abstained.sum():
        return Threshold(value=float(ascending[best]), score=float(totals[best]) / len(scores))
    below_all = 0.0 if ascending[0] > 0 else float(np.nextafter(ascending[0], -math.inf))
    return Threshold(value=below_all, score=float(abstained.mean()))


def fitted_threshold(scores: Floats, answered: npt.NDArray[np.bool_], no_answer_margin: Floats) -> float:
    """Return a threshold on `no_answer_margin` (E,) to use on other questions; arguments as in `best_threshold`.

    The best threshold is one of the margins themselves and, of few questions, far from the best on others. Here each
    margin counts with a logistic error (the smoothed maximum score estimator, Horowitz 1992), so that the threshold
    lies between the questions to answer and those to refuse. A normal prior around 0, the published threshold, as wide
    as the margins are large, weighs about as much as one question of the wrong sort.
    """
    spread, size = float(no_answer_margin.std()), float(np.sqrt(np.mean(no_answer_margin**2)))
    if spread == 0:
        return 0.0
    # What an answer brings beyond an abstention.
    gains = scores - (~answered)
    width = spread / 2 * len(scores) ** -0.2
    lowest, highest = (float(of) for of in (no_answer_margin.min(), no_answer_margin.max()))
    tried = np.linspace(min(0.0, lowest) - spread, max(0.0, highest) + spread, TRIED_THRESHOLDS)
    reached = [gains @ expit((threshold - no_answer_margin) / width) for threshold in tried]
    return float(tried[np.argmax(reached - (tried / size) ** 2 / 2)])
