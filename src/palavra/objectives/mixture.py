"""Two objectives in one run, with the same weights: each next token, and tokens that were hidden."""

from dataclasses import replace

import numpy as np

from palavra.batch import Batch
from palavra.data.loader import Packed
from palavra.losses import Loss
from palavra.model.heads import MaskedLanguageModel
from palavra.model.layouts import Layout
from palavra.objectives.causal import CausalObjective
from palavra.objectives.config import MixtureConfig
from palavra.objectives.hybrid import HybridBatch, ObjectiveBatch, part_of, parted
from palavra.objectives.masked import MaskedObjective


class MixedObjective:
    """Prepares the sequences of each step of a run of so many `steps` for one of two objectives, and scores them with
    that one.

    An encoder reads causal sequences from left to right only; both go through its vocabulary head. Pieces of documents
    are cut alike for both; those to be read from left to right lose their [SEP], and their [CLS] too unless a document
    begins with them, so that a cut is not learned as an end (`data.loader.as_causal`). All tokens of a causal sequence
    are predicted from, and few of a masked one; weights make up for that, so that in steps of many sequences the mean
    loss of causal tokens counts as much as the share of causal sequences, and that of hidden tokens as the rest (but
    for special tokens, which are never hidden). A weight depends only on the shares of causal sequences and of hidden
    tokens, and not on the micro-batch: any split of a step gives the same gradient.
    """

    def __init__(self, causal: CausalObjective, masked: MaskedObjective, config: MixtureConfig, steps: int):
        self.causal, self.masked, self.config, self.steps = causal, masked, config, steps

    def prepare(self, packed: Packed, random: np.random.Generator, progress: float = 0.0) -> HybridBatch:
        """The batch of a step."""
        share, done = self.config.causal_fraction_at(progress, self.steps), self.config.masked_progress(progress)
        hidden = self.masked.masking.mask_rate_at(done)
        first, second = parted(packed, share, random)
        # Of each token of the step, so many are predicted on average.
        labelled = share + (1 - share) * hidden
        parts = []
        if first is not None:
            parts.append(part_of(self.causal.prepare(first, random, progress), causal=True, weight=labelled))
        if second is not None:
            parts.append(part_of(self._hide(second, random, done), causal=False, weight=labelled / hidden))
        return HybridBatch(tuple(parts))

    def _hide(self, packed: Packed, random: np.random.Generator, progress: float) -> Batch:
        batch = self.masked.prepare(packed, random, progress)
        if not self.config.mntp:
            return batch
        # Nothing predicts a first token, which is [CLS] in any text, but not in the random tokens that are measured.
        kept = batch.position_ids[batch.label_rows] > 0
        return replace(batch, label_rows=batch.label_rows[kept] - 1, labels=batch.labels[kept])

    def loss(self, model: MaskedLanguageModel, batch: Batch, layout: Layout) -> Loss:
        """The weighted loss of a part, and the number of its labels. The part is of a batch that `prepare` made."""
        assert isinstance(batch, ObjectiveBatch)
        found = (self.causal if batch.causal else self.masked).loss(model, batch, layout)
        return Loss(batch.weight * found.total, found.count)
