"""What every model can do: turn texts into vectors."""

from functools import cached_property
from typing import ClassVar, overload

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from palavra.errors import PalavraError
from palavra.inference.base import AnyModel
from palavra.inference.embedding import Embedder, Embedding, Pooling, Vectors
from palavra.inference.inputs import Texts, one_or_more
from palavra.inference.results import Results
from palavra.model.compute import Compute
from palavra.model.heads import VocabularyModel
from palavra.model.pooling import PoolingMode
from palavra.model.sentence_modules import SentenceModules, default_modules
from palavra.model.task_heads import TaskModel
from palavra.tokenizer import Tokenizer

# Texts whose token vectors are held at once.
ENCODED_AT_ONCE = 4096


class EmbedsText(AnyModel):
    """The base of models that turn texts into vectors: `embed`, `encode`, `similarity`."""

    # Whether a token sees only those before it, whatever the configuration says.
    left_to_right: ClassVar[bool] = False

    model: VocabularyModel | TaskModel
    tokenizer: Tokenizer
    compute: Compute
    sentence: SentenceModules | PalavraError | None

    @overload
    def embed(  # type: ignore[overload-overlap]
        self, texts: str, pooling: Pooling | None = None, *, prompt: str | None = None, normalize: bool = False,
        truncate_dim: int | None = None,
    ) -> Embedding: ...  # fmt: skip

    @overload
    def embed(
        self, texts: Texts, pooling: Pooling | None = None, *, prompt: str | None = None, normalize: bool = False,
        truncate_dim: int | None = None,
    ) -> Results[Embedding]: ...  # fmt: skip

    def embed(
        self, texts: str | Texts, pooling: Pooling | None = None, *, prompt: str | None = None,
        normalize: bool = False, truncate_dim: int | None = None,
    ) -> Embedding | Results[Embedding]:  # fmt: skip
        """Return the contextual vectors of a text or of several; see `encode` for an array.

        `pooling` makes one vector of a text, or is "token" for one of each token. None: that of the model's
        `modules.json`, else "mean", for a causal model "lasttoken". All tokens count, those that open and close a text
        included, and the other modules of `modules.json` follow (not for tokens). `prompt` stands before every text: a
        name among the model's prompts, or a text; None is the model's default, "" none. Vectors are cut to their first
        `truncate_dim` numbers and then, with `normalize`, scaled to length 1.

        Texts longer than the model reads are cut there, and `Embedding.truncated` says so. Raises PalavraError for
        options out of bounds, and for modules that are not supported.
        """
        wanted = self._embedder.wanted(pooling, prompt, normalize, truncate_dim)
        given, single = one_or_more(texts)
        embeddings = Results(self._embedder.embeddings(given, wanted))
        return embeddings[0] if single else embeddings

    def encode(
        self, texts: str | Texts, pooling: PoolingMode | None = None, *, prompt: str | None = None,
        normalize: bool = False, truncate_dim: int | None = None,
    ) -> Vectors:  # fmt: skip
        """Return the vectors of texts as one array: (n, D) float32, of a single text (D,). The options are those of
        `embed`, and so are the vectors: those of `SentenceTransformer.encode`, where `modules.json` is."""
        wanted = self._embedder.wanted(pooling, prompt, normalize, truncate_dim)
        if wanted.modules is None:
            raise PalavraError("--pooling=token gives no single array: use embed")
        given, single = one_or_more(texts)
        found = np.empty((len(given), self._embedder.width(wanted)), dtype=np.float32)
        for start in range(0, len(given), ENCODED_AT_ONCE):
            some = given[start : start + ENCODED_AT_ONCE]
            for number, one in enumerate(self._embedder.embeddings(some, wanted), start):
                found[number] = one.vectors
        return found[0] if single else found

    def similarity(self, vectors: npt.ArrayLike, others: npt.ArrayLike | None = None) -> Vectors:
        """Return how similar vectors (n, D) are to `others` (m, D), or to each other: (n, m) float32, more for the more
        similar.

        The model says how they are compared (`similarity_fn_name` of sentence-transformers): by their cosine, which is
        the default, by their dot product, or by their Euclidean or Manhattan distance, whose sign is then changed.
        """
        first = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
        second = first if others is None else np.atleast_2d(np.asarray(others, dtype=np.float64))
        if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
            raise PalavraError(f"vectors of shapes {first.shape} and {second.shape} cannot be compared")
        kind = self._embedder.modules.similarity
        if kind == "cosine":
            first, second = (each / np.linalg.norm(each, axis=1, keepdims=True).clip(1e-12) for each in (first, second))
        if kind in ("cosine", "dot"):
            found: npt.NDArray[np.float64] = first @ second.T
        else:
            found = -cdist(first, second, "euclidean" if kind == "euclidean" else "cityblock")
        return found.astype(np.float32)

    @cached_property
    def _embedder(self) -> Embedder:
        if isinstance(self.sentence, PalavraError):
            raise self.sentence
        causal = self.left_to_right or self.model.config.causal
        modules = self.sentence or default_modules(causal)
        return Embedder(
            model=self.model, tokenizer=self.tokenizer, compute=self.compute, modules=modules, causal=causal
        )
