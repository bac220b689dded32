"""Validation during training looks at a part of the held-out text that all of it goes into."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builders.models import CLS, SEP, Shelf, vocabulary
from hypothesis import given
from hypothesis import strategies as st

from palavra.inference.evaluation import EvalSet
from palavra.pretraining.job import PretrainingJob


def of(shelf: Shelf) -> EvalSet:
    return EvalSet(documents=shelf, lengths=shelf.lengths, cls_id=CLS, sep_id=SEP)


def documents_of(text: EvalSet) -> list[list[int]]:
    lengths = text.lengths
    found = text.documents.gather(np.arange(len(lengths)), np.zeros_like(lengths), lengths)
    return [part.tolist() for part in np.split(found, np.cumsum(lengths)[:-1])]


def test_every_source_takes_part() -> None:
    """Two sources, one after the other: the first tokens of the second stand behind all of the first."""
    first, second = np.full(40, 11), np.full(40, 22)
    part = of(Shelf([first] * 300 + [second] * 300)).part(4000)
    found = np.concatenate(documents_of(part))
    assert len(found) == part.lengths.sum() == 4000
    assert 0.3 < (found == 22).mean() < 0.7


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.integers(1, 5000))
def test_a_part_is_whole_documents_but_the_last(lengths: list[int], tokens: int) -> None:
    shelf = Shelf.random(lengths)
    part = of(shelf).part(tokens)
    assert part.lengths.sum() == min(sum(lengths), max(tokens, 1000))
    every = [document.tolist() for document in shelf.documents]
    *whole, last = documents_of(part)
    for document in whole:
        every.remove(document)
    assert any(document[: len(last)] == last for document in every)
    assert documents_of(of(shelf).part(tokens)) == [*whole, last]


@pytest.mark.parametrize("context", [16, 64, 512])
def test_a_part_asks_for_the_same_tokens_in_every_context(context: int) -> None:
    part = of(Shelf.random([300, 5, 70, 41] * 20)).part(2000)
    asked, expected = (
        np.sort(np.concatenate([batch.labels.numpy() for batch in part.batches(vocabulary(), width, None)]))
        for width in (context, 128)
    )
    assert asked.tolist() == expected.tolist()


def test_a_run_validates_on_a_part_and_ends_with_all() -> None:
    text = of(Shelf.random([50] * 100))
    seen: list[EvalSet] = []

    def evaluate(model: Any, held_out: EvalSet, *others: Any, **options: Any) -> None:
        assert options.get("limit") is None
        seen.append(held_out)

    job: Any = SimpleNamespace(
        held_out=text, pretraining=SimpleNamespace(evaluate=evaluate), model=None, tokenizer=None, compute=None
    )
    PretrainingJob.evaluate(job, 1500)
    PretrainingJob.evaluate(job, None)
    assert documents_of(seen[0]) == documents_of(text.part(1500))
    assert seen[1] is text
