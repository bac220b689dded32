"""A model of causal+masked, ready for use as a masked and as a causal one."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from palavra.inference.causal import CausalModel, GeneratesText
from palavra.inference.masked import MaskedModel


@dataclass(frozen=True)
class MixedModel(MaskedModel, GeneratesText):
    """A masked language model that has learned to predict next tokens too (`causal+masked`)."""

    kind: ClassVar[str] = "a masked and causal language model"
    offers: ClassVar[tuple[str, ...]] = (*MaskedModel.offers, "generate")

    @cached_property
    def causal(self) -> CausalModel:
        """The same model, read from left to right only: its `score` is a log-likelihood, not a pseudo one.

        Raises PalavraError for a model without a vocabulary head.
        """
        self.check_head()
        return CausalModel(self.model, self.tokenizer, self.compute)
