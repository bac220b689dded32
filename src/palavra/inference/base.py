"""What each kind of model can do, and the error for anything else."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeVar

from palavra.errors import PalavraError
from palavra.files import path_of
from palavra.model.compute import Compute, choose_compute, for_attention
from palavra.model.config import CompileMode, Precision
from palavra.model.heads import VocabularyModel
from palavra.model.sentence_modules import SentenceModules, read_sentence_modules
from palavra.model.task_heads import TaskModel
from palavra.tokenizer import Tokenizer

Network = TypeVar("Network", bound=VocabularyModel | TaskModel)
Rest = TypeVar("Rest")
_MASKED = "a masked language model (palavra pretrain)"
_CAUSAL = "a causal language model (palavra pretrain --objective=causal or causal+masked)"
# Everything that some kind of model can be asked, and what makes a model that can.
ASKED = {
    **dict.fromkeys(("fill", "fillings", "distribution"), _MASKED),
    **dict.fromkeys(("generate", "stream"), _CAUSAL),
    "follows": "a model that learned next sentences (palavra pretrain --objective=masked+nsp)",
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


def model_folder(directory: str | Path) -> Path:
    """Return the path of a model directory. Raises PalavraError if it is not a directory."""
    path = path_of(directory, "the path of the model")
    if not path.is_dir():
        raise PalavraError(f"{path} is not a folder: give the folder of a model (it holds config.json)")
    return path


def sentence_modules_of(path: Path) -> SentenceModules | PalavraError | None:
    """Return how the model of a directory makes vectors of texts: None if it does not say so, and the error if it asks
    for what is not supported, which hinders nothing else."""
    try:
        return read_sentence_modules(path)
    except PalavraError as error:
        return error


def load_parts(
    path: Path, read: Callable[[Path], tuple[Network, Rest]], device: str, precision: Precision, compile: CompileMode
) -> tuple[Network, Tokenizer, Compute, Rest]:
    """Return the network of a model directory, on its device, with tokenizer, compute and what else `read` returns.

    Raises PalavraError for a directory that cannot be read, or whose tokenizer does not fit the network.
    """
    model, rest = read(path)
    tokenizer = Tokenizer.load(path)
    tokenizer.check_fits(model.config.vocab_size, path)
    compute = choose_compute(device, precision, compile)
    compute = for_attention(compute, relative=model.config.relative is not None)
    model.to(compute.device).eval()
    return model, tokenizer, compute, rest
