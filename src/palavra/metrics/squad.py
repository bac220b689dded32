"""Scores of answers to questions, by the published rules of SQuAD 1.1 and 2.0.

Rajpurkar et al. 2016 (1.1) and Rajpurkar, Jia and Liang 2018 (2.0). All scores are rates between 0 and 1; published
tables give them times 100. They compare letters, not meanings. The total of 2.0 flatters a model that never answers:
it is right for every question without an answer.
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

from palavra.errors import PalavraError
from palavra.metrics.articles import ENGLISH_ARTICLES
from palavra.metrics.resampled import Statistic, means

# ASCII only, as published: quotation marks such as « and “ stay.
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The no-answer score `value` above which giving no answer makes `score` the best there is: an upper bound, for it
    is chosen with the gold answers. Choose it on validation data and use it, with `Grades.with_abstentions`, on others.
    """

    value: float
    score: float


@lru_cache
def _article_pattern(articles: frozenset[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, articles)))})\b")


def normalize_answer(text: str, articles: frozenset[str] = ENGLISH_ARTICLES) -> str:
    """Return the text in lower case, without ASCII punctuation and articles, words apart by one space; in this order.

    Published scores remove English articles in every language: Portuguese loses its preposition and article `a`, and
    keeps `o`. Give `PORTUGUESE_ARTICLES`, or none, and say so with the numbers.
    """
    text = text.lower().translate(WITHOUT_PUNCTUATION)
    if articles:
        text = _article_pattern(articles).sub(" ", text)
    return " ".join(text.split())


def _overlap(prediction: list[str], gold: list[str]) -> float:
    """Return F1 of the prediction's words, as bags; without words in one of the two, 1 if both have none, else 0, as in
    2.0 (1.1 gives 0 for both)."""
    if not prediction or not gold:
        return float(prediction == gold)
    shared = sum((Counter(prediction) & Counter(gold)).values())
    return 2 * shared / (len(prediction) + len(gold))


@dataclass(frozen=True, kw_only=True)
class Grades:
    """Of each question (E,) whether its answer is right, `exact` 0 or 1, its overlap `f1`, what no answer at all would
    get, `no_answer_score`, by both measures, and whether the text has an answer, `answered`."""

    exact: Floats
    f1: Floats
    no_answer_score: Floats
    answered: npt.NDArray[np.bool_]

    def with_abstentions(self, refused: npt.NDArray[np.bool_]) -> "Grades":
        """The grades with no answer given where `refused` (E,)."""
        given = {name: np.where(refused, self.no_answer_score, getattr(self, name)) for name in ("exact", "f1")}
        return replace(self, **given)

    def statistics(self) -> list[Statistic]:
        """The mean grades of all questions, and of those with and those without an answer in the text."""
        both = {"exact": self.exact, "f1": self.f1}
        sorts = {"has_answer": self.answered, "no_answer": ~self.answered}
        return [
            means(both),
            *(means({f"{name}_{key}": own * of for key, own in both.items()}, of) for name, of in sorts.items()),
        ]


def grade(
    predictions: Sequence[str], gold: Sequence[tuple[str, ...]], articles: frozenset[str] = ENGLISH_ARTICLES
) -> Grades:
    """Return exact match and F1 of each answer; the best of several gold answers counts. Without gold answers the right
    prediction is "". Gold answers of nothing but articles and punctuation are left out, as published."""
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
    """Return the best threshold on no-answer scores `no_answer_margin` (E,) and the mean score with it.

    scores (E,) of the predictions; answered (E,): whether the text has an answer. The published search may stop between
    equal no-answer scores, where no threshold can cut; this one does not. It starts from no answer at all, whose
    threshold is 0 as published if that is below all scores. Raises PalavraError for a score that is not a number.
    """
    if np.isnan(no_answer_margin).any():
        raise PalavraError("a no-answer score is not a number: the model has diverged; train with a lower rate")
    order = np.argsort(no_answer_margin, kind="stable")
    ascending = no_answer_margin[order]
    refused = (~answered).astype(np.float64)
    totals = refused.sum() + np.cumsum((scores - refused)[order])
    can_cut = np.append(ascending[1:] > ascending[:-1], True)
    totals[~can_cut] = -math.inf
    best = int(totals.argmax())
    if totals[best] > refused.sum():
        return Threshold(value=float(ascending[best]), score=float(totals[best]) / len(scores))
    below_all = 0.0 if ascending[0] > 0 else float(np.nextafter(ascending[0], -math.inf))
    return Threshold(value=below_all, score=float(refused.mean()))
