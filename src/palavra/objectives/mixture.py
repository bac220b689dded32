"""Two objectives in one run, with the same weights: each next token, and tokens that were hidden."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from palavra.batch import Batch
from palavra.data.loader import Packed
from palavra.errors import PalavraError
from palavra.losses import Loss
from palavra.model.attention import Layout
from palavra.model.heads import MaskedLanguageModel
from palavra.objectives.causal import CausalObjective
from palavra.objectives.masked import MaskedObjective

CAUSAL = "causal"


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Which steps are causal: a share of `causal_share`, the `when` "first" ones, or spread "throughout" the run.

    Causal steps first and masked ones after gave better encoders than masked ones alone at equal cost to
    Gisserot-Boukhlef et al. (2025, arXiv:2507.00994).
    """

    causal_share: float = 0.6
    when: Literal["first", "throughout"] = "first"

    def __post_init__(self) -> None:
        if not 0 <= self.causal_share <= 1:
            raise PalavraError(f"mixture.causal_share is {self.causal_share}: it must be 0 to 1")

    def is_causal(self, progress: float) -> bool:
        """Whether the step at which `progress` (0 to 1) of the training is done is causal.

        It depends on nothing else, so that a resumed run switches where a straight one does, and all micro-batches of
        a step, on all ranks, are of one kind.
        """
        if self.when == "first":
            return progress < self.causal_share
        return bool(np.random.default_rng(round(progress * 2**52)).random() < self.causal_share)


class MixedObjective:
    """Prepares each step for one of two objectives, and scores it with that one.

    An encoder reads causal steps from left to right only; both go through its vocabulary head. Every predicted token
    counts alike, so that a causal step, in which nearly all are predicted, is worth no more than a masked one: the
    loss of a step is the mean over its own.
    """

    def __init__(self, causal: CausalObjective, masked: MaskedObjective, config: MixtureConfig):
        self.causal, self.masked, self.config = causal, masked, config

    def prepare(self, packed: Packed, random: np.random.Generator, progress: float = 0.0) -> Batch:
        """The batch of a step; its `task` says which objective it is for."""
        if self.config.is_causal(progress):
            return replace(self.causal.prepare(packed, random, progress), task=CAUSAL)
        return self.masked.prepare(packed, random, progress)

    def loss(self, model: MaskedLanguageModel, batch: Batch, layout: Layout) -> Loss:
        """The loss of the objective that the batch was prepared for."""
        objective = self.causal if batch.task == CAUSAL else self.masked
        return objective.loss(model, batch, layout)
