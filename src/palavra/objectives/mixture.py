"""Causal and masked language modelling in one run, with the same weights."""

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
    """Causal and masked language modelling with one vocabulary head over a run of `steps`; each sequence trains one.

    Documents are cut into the same pieces for both. Causal pieces drop their [SEP], and their [CLS] unless a document
    begins there, so that the model does not learn a cut as an end (`data.loader.as_causal`). Causal sequences have many
    more labels than masked ones; weights make the mean loss of each kind count in proportion to its sequences (except
    for special tokens, which are never masked). A weight depends only on the fraction of causal sequences and the mask
    rate, so any split of a step into micro-batches gives the same gradient.
    """

    def __init__(self, causal: CausalObjective, masked: MaskedObjective, config: MixtureConfig, steps: int):
        self.causal, self.masked, self.config, self.steps = causal, masked, config, steps

    def prepare(self, packed: Packed, random: np.random.Generator, progress: float = 0.0) -> HybridBatch:
        """Label each sequence of a step for its objective."""
        causal, done = self.config.causal_fraction_at(progress, self.steps), self.config.masked_progress(progress)
        hidden = self.masked.masking.mask_rate_at(done)
        first, second = parted(packed, causal, random)
        # Labels per token of the step, on average.
        labelled = causal + (1 - causal) * hidden
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
        # The first token is never predicted: it is [CLS] in real text, but not in the random tokens of a timing run.
        kept = batch.position_ids[batch.label_rows] > 0
        return replace(batch, label_rows=batch.label_rows[kept] - 1, labels=batch.labels[kept])

    def loss(self, model: MaskedLanguageModel, batch: Batch, layout: Layout) -> Loss:
        """Return the weighted loss of a part from `prepare`, and the number of its labels."""
        assert isinstance(batch, ObjectiveBatch)
        found = (self.causal if batch.causal else self.masked).loss(model, batch, layout)
        return Loss(batch.weight * found.total, found.count)
