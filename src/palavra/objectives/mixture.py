"""Two objectives in one run, with the same weights: each next token, and tokens that were hidden."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from palavra.batch import Batch
from palavra.data.loader import Packed
from palavra.errors import PalavraError
from palavra.losses import Loss
from palavra.model.heads import MaskedLanguageModel
from palavra.model.layouts import Layout
from palavra.objectives.causal import CausalObjective
from palavra.objectives.hybrid import HybridBatch, ObjectiveBatch, part_of, parted
from palavra.objectives.masked import MaskedObjective


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """How much is causal: `causal_fraction` of the steps, the `when` "first" ones, or spread "throughout" the run; or
    of the sequences of every batch, both kinds "together".

    Causal steps first and masked ones after gave better encoders than masked ones alone at equal cost to
    Gisserot-Boukhlef et al. (2025, arXiv:2507.00994); both kinds together, in one model that can be used as either,
    are the hybrid of Charpentier and Samuel (2024, arXiv:2410.24159). `mntp` is their masked next-token prediction:
    a hidden token is predicted from the vector of the token before it, as the next one is, so that both objectives
    use vectors and head alike.
    """

    causal_fraction: float = 0.6
    when: Literal["first", "throughout", "together"] = "first"
    mntp: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.causal_fraction <= 1:
            raise PalavraError(f"mixture.causal_fraction is {self.causal_fraction}: it must be 0 to 1")

    def causal_fraction_at(self, progress: float, steps: int) -> float:
        """The share of the sequences that are causal in the step at which `progress` (0 to 1) of a run of so many
        `steps` is done.

        It depends on nothing else, so that a resumed run switches where a straight one does, and all micro-batches of
        a step, on all ranks, are alike. Of the first n steps n times the share are causal, rounded down where they are
        spread throughout, and up where they come first.
        """
        if self.when == "together":
            return self.causal_fraction
        if self.when == "first":
            return float(progress < self.causal_fraction)
        step = round(progress * steps)
        return float(math.floor((step + 1) * self.causal_fraction) - math.floor(step * self.causal_fraction))

    def masked_progress(self, progress: float) -> float:
        """How much of the masked part of a run is done when `progress` of the run is: where causal steps come first,
        what changes over masked training begins after them."""
        if self.when != "first" or self.causal_fraction == 1:
            return progress
        return max(0.0, (progress - self.causal_fraction) / (1 - self.causal_fraction))

    def kinds_of_steps(self, steps: int) -> list[tuple[float, float]]:
        """A typical step of each kind there is: the progress at which it is made, and the share of such steps."""
        share = self.causal_fraction
        if self.when == "together" or share in (0, 1):
            return [(0.5, 1.0)]
        if self.when == "first":
            return [(share / 2, share), ((1 + share) / 2, 1 - share)]
        causal = np.diff(np.floor(np.arange(steps + 1) * share)) > 0
        kinds = [(np.flatnonzero(causal), share), (np.flatnonzero(~causal), 1 - share)]
        # The middle one of each: what changes over a run is then at its mean.
        return [(int(made[len(made) // 2]) / steps, part) for made, part in kinds if len(made)]


class MixedObjective:
    """Prepares the sequences of each step of a run of so many `steps` for one of two objectives, and scores them with
    that one.

    An encoder reads causal sequences from left to right only; both go through its vocabulary head. Pieces of documents
    are cut alike for both; those to be read from left to right lose their [SEP], and their [CLS] too unless a document
    begins with them, so that a cut is not learned as an end (see `data.loader.opened`). All tokens of a causal sequence
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
