"""What each kind of model can do, and the error for anything else."""

from typing import ClassVar

from palavra.errors import PalavraError

# Everything that some kind of model can be asked, and what makes a model that can.
ASKED = {
    "fill": "a masked language model (palavra pretrain)",
    "fillings": "a masked language model (palavra pretrain)",
    "distribution": "a masked language model (palavra pretrain)",
    "embed": "a masked language model (palavra pretrain)",
    "encode": "a masked language model (palavra pretrain)",
    "generate": "a causal language model (palavra pretrain --objective=causal or causal+masked)",
    "stream": "a causal language model (palavra pretrain --objective=causal or causal+masked)",
    "score": "a language model (palavra pretrain)",
    "predict": "a fine-tuned model (palavra finetune)",
}


class WrongKindError(PalavraError, AttributeError):
    """A method that this kind of model does not have."""


class AnyModel:
    """The base of models ready for use. `kind` is its kind in words; `offers` names its methods."""

    kind: ClassVar[str]
    offers: ClassVar[tuple[str, ...]]

    def __getattr__(self, name: str) -> object:
        if name not in ASKED:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        raise self._cannot(name)

    def check_offers(self, name: str) -> None:
        """Raise WrongKindError unless this kind of model does `name`, as the others that do would understand it."""
        if name not in self.offers:
            raise self._cannot(name)

    def _cannot(self, name: str) -> WrongKindError:
        own = ", ".join(self.offers)
        return WrongKindError(f"this is {self.kind}, which cannot {name}: use {own}, or {ASKED[name]}")
