"""Equal scores count as a guess in every kind of task, wherever the gold label stands among the labels."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from builders.classification import examples_of
from builders.tasks import choices_of, classification_of, score, trained, words_of
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from palavra.metrics.scores import Scores
from palavra.metrics.top_k import LISTED, Ranking, chances, gold_ranks
from palavra.tasks.multiple_choice.examples import ChoiceExample
from palavra.tasks.spec import TaskSpec
from palavra.tasks.token_classification.examples import TaggedSentence

WORDPIECE = trained()
LABELS = tuple("abcdefgh")


def of_texts(rows: np.ndarray, gold: Sequence[int]) -> Scores:
    task = classification_of(
        TaskSpec(kind="classification", multilabel=False), LABELS[: rows.shape[1]], [1] * rows.shape[1]
    )
    examples = examples_of([LABELS[number] for number in gold])
    encoded = task.encoder.encode(examples, WORDPIECE, 32, False)
    return score(task, examples, encoded, (rows,))


def of_words(rows: np.ndarray, gold: Sequence[int]) -> Scores:
    labels = LABELS[: rows.shape[1]]
    task = words_of(TaskSpec(kind="token-classification"), labels, [1] * len(labels), "plain")
    words = ("o",) * len(gold)
    spans = tuple((2 * place, 2 * place + 1) for place in range(len(gold)))
    names = tuple(labels[number] for number in gold)
    examples = [TaggedSentence(words=words, labels=names, spans=spans, text=" ".join(words), where="t:1")]
    return score(task, examples, task.encoder.encode(examples, WORDPIECE, 64, False), (rows,))


def of_choices(rows: np.ndarray, gold: Sequence[int]) -> Scores:
    task = choices_of(TaskSpec(kind="multiple-choice"))
    examples = [
        ChoiceExample(text="o gato", choices=tuple(LABELS[: rows.shape[1]]), label=number, where="c:1")
        for number in gold
    ]
    encoded = task.encoder.encode(examples, WORDPIECE, 32, False)
    return score(task, examples, encoded, (rows.reshape(-1, 1),))


@pytest.mark.parametrize("scores_of", [of_texts, of_words, of_choices])
@pytest.mark.parametrize("gold", [0, 2, 7])
def test_a_model_that_tells_nothing_apart_guesses(scores_of: object, gold: int) -> None:
    assert callable(scores_of)
    found = scores_of(np.full((6, 8), -np.log(8), dtype=np.float32), [gold] * 6).values
    assert found["accuracy"] == pytest.approx(1 / 8)
    assert found["calibration_error"] == pytest.approx(0, abs=1e-6)
    assert found.get("accuracy_at_5", 5 / 8) == pytest.approx(5 / 8)


@given(scores=st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=2, max_size=6), gold=st.integers(0, 5))
def test_a_tie_is_broken_in_every_order(scores: list[float], gold: int) -> None:
    gold %= len(scores)
    above, tied = gold_ranks(np.array([gold]), np.array([scores]))
    for count in (1, 2, 5):
        orders = list(permutations(range(len(scores))))
        among = [gold in sorted(order, key=lambda place: -scores[place])[:count] for order in orders]
        assert chances(count, above, tied) == pytest.approx(np.mean(among))


def test_without_ties_accuracies_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    rows, gold = random.dirichlet(np.ones(8), size=200), random.integers(8, size=200)
    ranking = Ranking.of(rows, gold)
    assert ranking.hit.mean() == accuracy_score(gold, rows.argmax(1))
    assert ranking.among.mean() == pytest.approx(top_k_accuracy_score(gold, rows, k=LISTED))
