"""Answers are scored by SQuAD's rules. Expected numbers are worked out by hand from the published description."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palavra.errors import PalavraError
from palavra.metrics.articles import ENGLISH_ARTICLES, PORTUGUESE_ARTICLES
from palavra.metrics.resampled import point
from palavra.metrics.squad import Grades, Threshold, best_threshold, fitted_threshold, grade, normalize_answer


def exact_match(prediction: str, gold: str, articles: frozenset[str] = ENGLISH_ARTICLES) -> bool:
    return bool(grade([prediction], [(gold,)], articles).exact[0])


def f1(prediction: str, gold: str) -> float:
    return float(grade([prediction], [(gold,)]).f1[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat.", "cat"),
        ("an apple a day", "apple day"),
        ("theatre", "theatre"),  # articles are whole words
        ("(1,000) dollars!", "1000 dollars"),  # punctuation goes without a space in its place
        ("the-end", "theend"),  # punctuation goes before articles, which it may hide
        ("a.", ""),
        ("A\tB\n the C", "b c"),
        ("«Ação» – the “end”", "«ação» – “end”"),  # only ASCII punctuation goes
        ("the the the", ""),
    ],
)
def test_normalization(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


def test_articles_are_those_of_a_language() -> None:
    assert normalize_answer("O rato e a rainha") == "o rato e rainha"
    assert normalize_answer("O rato e a rainha", PORTUGUESE_ARTICLES) == "rato e rainha"
    assert normalize_answer("The rat", frozenset()) == "the rat"
    assert exact_match("o rato", "rato", PORTUGUESE_ARTICLES)
    assert not exact_match("o rato", "rato")


@given(text=st.text(), articles=st.sampled_from([PORTUGUESE_ARTICLES, frozenset[str]()]))
def test_normalization_leaves_words_apart_by_one_space(text: str, articles: frozenset[str]) -> None:
    normalized = normalize_answer(text, articles)
    assert normalized == " ".join(normalized.split())
    assert not articles & set(normalized.split())


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("the black cat", "a black cat", 1.0),
        ("black cat", "cat", 2 / 3),  # precision 1/2, recall 1
        ("cat cat dog", "cat dog dog", 2 / 3),  # bags: cat once, dog once; 2/3 and 2/3
        ("dog", "cat", 0.0),
        ("", "", 1.0),
        ("the", "", 1.0),  # nothing is left of it
        ("cat", "", 0.0),
        ("", "cat", 0.0),
    ],
)
def test_overlap_of_words(prediction: str, gold: str, expected: float) -> None:
    assert f1(prediction, gold) == pytest.approx(expected)


@given(one=st.text("ab c.", max_size=8), other=st.text("ab c.", max_size=8))
def test_f1_is_symmetric_and_1_where_equal(one: str, other: str) -> None:
    assert f1(one, other) == f1(other, one)
    assert 0 <= f1(one, other) <= 1
    if exact_match(one, other):
        assert f1(one, other) == 1


GOLD: dict[str, tuple[str, ...]] = {
    "a": ("Denver Broncos", "The Broncos"),
    "b": ("1,000 men",),
    "c": (),
    "d": (),
    "e": ("the",),  # has an answer, of which nothing is left: the right prediction is no answer
}
PREDICTIONS = {"a": "broncos", "b": "men", "c": "", "d": "Paris", "e": "", "not asked": "x"}


def scores_of(grades: Grades, **best: Threshold) -> SimpleNamespace:
    """The mean grades, and the thresholds beside them."""
    names = [f"{sort}{of}" for sort in ("", "has_answer_", "no_answer_") for of in ("exact", "f1")]
    found = {name: value for one in grades.statistics() for name, value in point(one, len(grades.f1)).items()}
    counts = {"has_answer": int(grades.answered.sum()), "no_answer": int((~grades.answered).sum())}
    values = {name: found.get(name) for name in names}
    return SimpleNamespace(**values, **counts, best_exact=best.get("best_exact"), best_f1=best.get("best_f1"))


def question_scores(
    predictions: dict[str, str], gold: dict[str, tuple[str, ...]], no_answer_scores: dict[str, float] | None = None
) -> SimpleNamespace:
    """By question id; with `no_answer_scores` also the thresholds that make the best of them."""
    grades = grade([predictions[name] for name in gold], list(gold.values()))
    if no_answer_scores is None:
        return scores_of(grades)
    no_answer_margin = np.array([no_answer_scores[name] for name in gold])
    best = {
        f"best_{of}": best_threshold(getattr(grades, of), grades.answered, no_answer_margin) for of in ("exact", "f1")
    }
    return scores_of(grades, **best)


def test_scores_by_hand() -> None:
    # exact: a 1 (second gold), b 0, c 1, d 0, e 1. F1: a 1, b: precision 1, recall 1/2, so 2/3, c 1, d 0, e 1.
    found = question_scores(PREDICTIONS, GOLD)
    assert (found.has_answer, found.no_answer) == (3, 2)
    assert found.exact == pytest.approx(3 / 5)
    assert found.f1 == pytest.approx((1 + 2 / 3 + 1 + 0 + 1) / 5)
    assert found.has_answer_exact == pytest.approx(2 / 3)
    assert found.has_answer_f1 == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert found.no_answer_exact == found.no_answer_f1 == 0.5
    assert found.best_exact is None


def test_gold_answers_of_which_nothing_is_left_count_only_where_there_are_no_others() -> None:
    found = question_scores({"a": "", "b": ""}, {"a": ("the", "cat"), "b": ("the", ".")})
    assert (found.has_answer, found.exact, found.f1) == (2, 0.5, 0.5)


def test_squad_1_has_no_questions_without_answer() -> None:
    found = question_scores({"a": "x"}, {"a": ("x",)})
    assert (found.exact, found.no_answer, found.no_answer_exact, found.no_answer_f1) == (1.0, 0, None, None)
    json.dumps(vars(found), allow_nan=False)


def test_thresholds_by_hand() -> None:
    # Sorted by no-answer score: a .1, d .2, b .3, c .9. No answer anywhere scores 2 (c and d). Answering up to
    # a: 2 + 1 = 3; up to d: 3 - 1 = 2; up to b: 2 + 0 = 2 exact, 2 + 2/3 for F1; up to c: + 0, as c predicts "".
    gold = {name: GOLD[name] for name in "abcd"}
    found = question_scores(PREDICTIONS, gold, no_answer_scores={"a": 0.1, "b": 0.3, "c": 0.9, "d": 0.2})
    assert found.best_exact == Threshold(value=0.1, score=3 / 4)
    assert found.best_f1 == Threshold(value=0.1, score=3 / 4)
    assert found.exact == 2 / 4


def test_no_answer_at_all_may_be_best() -> None:
    wrong = {"a": "no", "c": "no"}
    gold: dict[str, tuple[str, ...]] = {"a": ("yes",), "c": ()}
    found = question_scores(wrong, gold, no_answer_scores={"a": 0.5, "c": 0.1})
    assert found.best_exact == Threshold(value=0.0, score=0.5)  # as published
    found = question_scores(wrong, gold, no_answer_scores={"a": -3.0, "c": 2.0})
    assert found.best_exact is not None
    assert found.best_exact.value < -3  # 0 would let the first answer stand
    assert found.best_exact.score == 0.5


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["x", "x y", "z", "", "the"]),
            st.sampled_from([("x",), ("x y", "z"), ()]),
            st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0]) | st.floats(-2, 2),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_the_best_threshold_is_reached_and_nothing_is_better(
    rows: list[tuple[str, tuple[str, ...], float]],
) -> None:
    predictions = {str(i): row[0] for i, row in enumerate(rows)}
    gold = {str(i): row[1] for i, row in enumerate(rows)}
    no_answer_margin = {str(i): row[2] for i, row in enumerate(rows)}
    found = question_scores(predictions, gold, no_answer_scores=no_answer_margin)
    assert found.best_exact is not None
    assert found.best_f1 is not None
    grades = grade(list(predictions.values()), list(gold.values()))
    assert scores_of(grades) == question_scores(predictions, gold)
    scores = np.array(list(no_answer_margin.values()))
    for at in {-9.0, *no_answer_margin.values()}:
        silent = {name: "" if no_answer_margin[name] > at else text for name, text in predictions.items()}
        assert scores_of(grades.with_abstentions(scores > at)) == question_scores(silent, gold)
    every = [scores_of(grades.with_abstentions(scores > at)) for at in {-9.0, *no_answer_margin.values()}]
    assert found.best_exact.score == pytest.approx(max(one.exact for one in every))
    assert found.best_f1.score == pytest.approx(max(one.f1 for one in every))
    reached = scores_of(grades.with_abstentions(scores > found.best_f1.value))
    assert reached.f1 == pytest.approx(found.best_f1.score)


def published_search(scores: list[float], answered: list[bool], no_answer_margin: list[float]) -> tuple[float, float]:
    """Best score and threshold as the task's authors describe the search, a question at a time."""
    current = best = float(answered.count(False))
    threshold = 0.0
    for row in sorted(range(len(scores)), key=lambda i: no_answer_margin[i]):
        current += scores[row] if answered[row] else scores[row] - 1
        if current > best:
            best, threshold = current, no_answer_margin[row]
    return best / len(scores), threshold


@given(data=st.data(), size=st.integers(1, 20))
def test_equals_the_published_search_where_scores_differ(data: st.DataObject, size: int) -> None:
    no_answer_margin = data.draw(st.lists(st.floats(0.001, 1), min_size=size, max_size=size, unique=True))
    scores = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=size, max_size=size))
    answered = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    found = best_threshold(np.array(scores), np.array(answered), np.array(no_answer_margin))
    assert (found.score, found.value) == pytest.approx(published_search(scores, answered, no_answer_margin))


def test_a_no_answer_score_that_is_no_number_is_an_error() -> None:
    with pytest.raises(PalavraError, match="not a number"):
        question_scores({"a": "x"}, {"a": ("x",)}, no_answer_scores={"a": math.nan})


@pytest.mark.parametrize(("answerable", "refused"), [(-12.0, 8.0), (2.0, 16.0), (-0.6, -0.4)])
@pytest.mark.parametrize("questions", [16, 60, 400])
def test_a_fitted_threshold_holds_for_other_questions(answerable: float, refused: float, questions: int) -> None:
    """Two sorts of margins that hardly overlap: the best threshold on some of them withholds answers to others."""
    random = np.random.default_rng(questions)
    spread = (refused - answerable) / 6

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        answered = np.arange(count) % 2 == 0
        return answered, random.normal(np.where(answered, answerable, refused), spread)

    reached = []
    for _ in range(20):
        answered, margins = drawn(questions)
        others, theirs = drawn(1000)
        scores = answered.astype(np.float64)
        thresholds = fitted_threshold(scores, answered, margins), best_threshold(scores, answered, margins).value
        reached.append([float(((theirs <= one) == others).mean()) for one in thresholds])
    fitted, best = np.mean(reached, 0)
    assert fitted > best
    assert fitted > 0.98
    assert np.min(reached, 0)[0] > 0.95


def test_a_threshold_without_evidence_is_the_published_one() -> None:
    assert fitted_threshold(np.array([1.0, 0.0]), np.array([True, False]), np.array([-3.0, -3.0])) == 0.0
    # Every threshold between the two is as good: the middle is taken, a little nearer to 0, and no margin.
    found = fitted_threshold(np.array([1.0] * 5 + [0.0] * 5), np.arange(10) < 5, np.repeat([-12.0, 8.0], 5))
    assert -2 < found < 0
