"""Only the vectors of tokens that are read are learned, and nothing else is different."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders.models import model_config, random_batch, run
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from palavra.model.heads import MaskedLanguageModel
from palavra.model.partial_embedding import PartialEmbedding, merge_embedding, split_embedding

VOCABULARY, WIDTH = 11, 4


@given(
    trained=st.sets(st.integers(0, VOCABULARY - 1), min_size=1, max_size=VOCABULARY - 1),
    ids=st.lists(st.integers(0, VOCABULARY - 1), max_size=20),
)
def test_vectors_and_gradients_are_those_of_the_whole_table(trained: set[int], ids: list[int]) -> None:
    """Also of tokens that are not trained, which get none."""
    table = nn.Parameter(torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(0)))
    rows, tokens = torch.tensor(sorted(trained)), torch.tensor(ids, dtype=torch.int64)
    partial = PartialEmbedding(table, rows)
    found, expected = partial(tokens), F.embedding(tokens, table)
    assert torch.equal(found, expected)
    pull = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * pull).sum().backward()
    (expected * pull).sum().backward()
    assert partial.weight.grad is not None
    assert table.grad is not None
    torch.testing.assert_close(partial.weight.grad, table.grad[rows])
    assert torch.equal(partial.merged().weight, table)


@pytest.mark.parametrize("trained", [[], list(range(50))])
def test_there_is_nothing_to_part_where_all_tokens_are_read_or_none(trained: list[int]) -> None:
    embeddings = MaskedLanguageModel(model_config()).transformer.embeddings
    token = embeddings.token
    split_embedding(embeddings, np.array(trained, dtype=np.int64))
    merge_embedding(embeddings)
    assert embeddings.token is token


def test_a_body_that_is_parted_computes_the_same() -> None:
    torch.manual_seed(0)
    model, batch = MaskedLanguageModel(model_config("bert")).eval(), random_batch([5, 9])
    expected, names = run(model, batch), set(model.state_dict())
    split_embedding(model.transformer.embeddings, batch.input_ids.numpy()[:6])
    assert torch.equal(run(model, batch), expected)
    merge_embedding(model.transformer.embeddings)
    assert torch.equal(run(model, batch), expected)
    assert set(model.state_dict()) == names
