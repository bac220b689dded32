"""What the method claims of sampling (B): the rows marked exact, one test a row, each named by the row's id."""

import math

import numpy as np
import pytest
from builders.claims import SENTENCES, portuguese_model
from builders.models import vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from palavra.inference.masked import MaskedModel
from palavra.objectives.config import MaskingConfig
from palavra.objectives.masked import MaskedObjective, Vocabulary


@pytest.fixture(scope="module")
def palavra() -> MaskedModel:
    return portuguese_model()


@pytest.mark.parametrize(("mask", "random"), [(0.8, 0.1), (0.5, 0.25), (1.0, 0.0)])
@pytest.mark.parametrize("share", [0.05, 0.15, 0.30])
def test_mask_rate_holds_for_a_hundred_tokens_and_for_many__B_15(share: float, mask: float, random: float) -> None:
    """5, 15 or 30 of a sequence of 100; of those 80% [MASK], 10% random, 10% kept, or as asked."""
    words = vocabulary(2005)
    objective = MaskedObjective(MaskingConfig(mask_rate=share, mask=mask, random=random), words)
    counts = np.zeros(3, dtype=np.int64)
    for seed in range(40):
        source = np.random.default_rng(seed)
        ids = np.concatenate([[2], source.integers(5, 2005, size=100), [3]])
        batch = objective.corrupt(ids, np.array([102]), source)
        assert batch.labelled == round(100 * share)
        shown = batch.input_ids[batch.label_rows]
        assert not set(batch.labels.tolist()) & words.special_ids
        assert not set(shown[shown != words.mask_id].tolist()) & words.special_ids
        kept = int((shown == batch.labels).sum())
        masked = int((shown == words.mask_id).sum())
        counts += [masked, batch.labelled - masked - kept, kept]
    total = counts.sum()
    for count, rate in zip(counts, (mask, random, 1 - mask - random), strict=True):
        assert abs(count - rate * total) <= 4 * math.sqrt(total * rate * (1 - rate)) + 2


def test_random_replacements_are_never_special_tokens__B_15() -> None:
    objective = MaskedObjective(MaskingConfig(mask_rate=0.9, mask=0.0, random=1.0), vocabulary())
    batch = objective.corrupt(np.full(4000, 7), np.array([4000]), np.random.default_rng(0))
    assert set(batch.input_ids[batch.label_rows].tolist()) == set(range(5, 50))


ROMA = ["O", "rato", "roeu", "a", "roupa", "do", "rei", "de", "Roma"]


def test_labels_come_from_the_text_itself__B_T1() -> None:
    """ "O rato [MASK] a roupa do [MASK] de Roma", labels "roeu" and "rei"; whatever is hidden, the labels restore."""
    names = ["[CLS]", "[SEP]", "[MASK]", *sorted(set(ROMA))]
    ids = np.array([0, *(names.index(word) for word in ROMA), 1])
    words = Vocabulary(len(names), 2, frozenset({0, 1, 2}), np.ones(len(names), dtype=bool))
    objective = MaskedObjective(MaskingConfig(mask_rate=2 / 9, mask=1.0, random=0.0), words)
    seen = {}
    for seed in range(400):
        batch = objective.corrupt(ids, np.array([len(ids)]), np.random.default_rng(seed))
        corrupted = " ".join(names[i] for i in batch.input_ids[1:-1].tolist())
        seen[corrupted] = [names[i] for i in batch.labels.tolist()]
        restored = batch.input_ids.clone()
        restored[batch.label_rows] = batch.labels
        assert restored.tolist() == ids.tolist()
    assert len(seen) == math.comb(9, 2)
    assert seen["O rato [MASK] a roupa do [MASK] de Roma"] == ["roeu", "rei"]


@settings(max_examples=10)
@given(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=4), st.integers(0, 99))
def test_labels_of_any_text_are_its_own_tokens__B_T1(palavra: MaskedModel, texts: list[str], seed: int) -> None:
    tokenizer = palavra.tokenizer
    parts = [[tokenizer.cls_id, *tokenizer.encode(text), tokenizer.sep_id] for text in texts]
    ids = np.array([i for part in parts for i in part])
    objective = MaskedObjective(MaskingConfig(unit="word"), palavra.vocabulary)
    batch = objective.corrupt(ids, np.array([len(part) for part in parts]), np.random.default_rng(seed))
    restored = batch.input_ids.clone()
    restored[batch.label_rows] = batch.labels
    assert restored.tolist() == ids.tolist()


def test_corrupted_sentence_of_the_walk_through__B_ex_corrupt() -> None:
    """ "A águia voa alto no céu azul." -> "A [MASK] voa alto no céu verde.": the library's own corruption draws it,
    with 80/10/10, and its labels are the words that stood there."""
    words = ["A", "águia", "voa", "alto", "no", "céu", "azul", ".", "verde"]
    number = {word: 10 + place for place, word in enumerate(words)}
    special = frozenset(range(10))
    vocabulary = Vocabulary(10 + len(words), 4, special, np.ones(10 + len(words), dtype=bool))
    ids = np.array([2, *(number[word] for word in words[:8]), 3])
    wanted = ids.copy()
    wanted[[2, 7]] = 4, number["verde"]
    objective = MaskedObjective(MaskingConfig(mask_rate=0.25), vocabulary)  # two of its eight tokens
    for seed in range(20_000):
        batch = objective.corrupt(ids, np.array([len(ids)]), np.random.default_rng(seed))
        if batch.input_ids.tolist() == wanted.tolist() and batch.label_rows.tolist() == [2, 7]:
            break
    assert batch.input_ids.tolist() == wanted.tolist()
    assert batch.labels.tolist() == [number["águia"], number["azul"]]
