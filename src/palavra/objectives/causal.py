"""Causal language modelling: predict each token from those before it, a whole text in one pass."""

import numpy as np

from palavra.batch import Batch, from_arrays
from palavra.data.loader import Packed, as_causal
from palavra.data.packing import Int64Array
from palavra.losses import Loss, SoftmaxGradient, linear_cross_entropy, softmax_gradient
from palavra.model.heads import VocabularyModel, in_blocks
from palavra.model.layouts import Layout


def next_tokens(input_ids: Int64Array, lengths: Int64Array, following: Int64Array | None = None) -> Batch:
    """Return a batch in which every token is labelled with the one that follows it.

    input_ids (N,), lengths (S,) of the sequences, `following` (S,) the token after each; without it the last token of a
    sequence has no label. Teacher forcing (Williams and Zipser 1989): the true tokens are the input, so one causal pass
    predicts them all. No label crosses from one sequence to the next.
    """
    last = np.cumsum(lengths) - 1
    labels = np.append(input_ids[1:], 0)
    if following is not None:
        labels[last] = following
        return from_arrays(input_ids, lengths, np.arange(len(labels)), labels)
    rows = np.delete(np.arange(len(labels)), last)
    return from_arrays(input_ids, lengths, rows, labels[rows])


class CausalObjective:
    """Causal language modelling. Each token of a document is predicted once, from the first after [CLS] to the final
    [SEP]. A piece that is cut ends without [SEP]: the next piece continues it."""

    def __init__(self, kernel: SoftmaxGradient = softmax_gradient):
        self.kernel = kernel

    def prepare(self, packed: Packed, random: np.random.Generator, progress: float = 0.0) -> Batch:
        """Label each token of `packed` with the next one, as causal text. Deterministic and independent of progress."""
        del random, progress
        packed = as_causal(packed)
        return next_tokens(packed.input_ids, packed.lengths, packed.following)

    def loss(self, model: VocabularyModel, batch: Batch, layout: Layout) -> Loss:
        """Return the summed -log P(next token | previous tokens of its sequence) over the labelled rows, and their
        number. Attention is causal, whatever the model's family."""
        hidden = model(batch, layout, in_blocks(batch.label_rows, layout), causal=True)
        return linear_cross_entropy(model.head(hidden), *model.unembedding, batch.labels, self.kernel)
