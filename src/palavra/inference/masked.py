"""A model ready for use: weights, tokenizer and the arithmetic, loaded from one directory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import ClassVar, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palavra.batch import Batch, Sample
from palavra.errors import PalavraError
from palavra.inference.base import AnyModel
from palavra.inference.batching import batches
from palavra.inference.embedding import Embedding, Pooling, pool
from palavra.inference.filling import Blank, blanks_of, likeliest
from palavra.inference.infilling import Filling, Order, Read, filling_of, proposals_of, samples_of, search
from palavra.inference.scoring import BATCH_TOKENS, Masking, Score, score_masked
from palavra.model.compute import Compute, choose_compute
from palavra.model.config import CompileMode, Precision
from palavra.model.directory import load_masked_model
from palavra.model.heads import MaskedLanguageModel, lay_out
from palavra.objectives.masked import Vocabulary
from palavra.tokenizer import Tokenizer


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """What masking needs of a tokenizer. Raises PalavraError when it has no mask token."""
    return Vocabulary(
        size=tokenizer.vocab_size,
        mask_id=tokenizer.mask_id,
        special_ids=tokenizer.special_ids,
        starts_word=tokenizer.starts_word,
    )


@dataclass(frozen=True)
class MaskedModel(AnyModel):
    """A pretrained masked language model.

    `missing` names parameters that the directory did not have, such as the head of a bare encoder.
    """

    kind: ClassVar[str] = "a masked language model"
    offers: ClassVar[tuple[str, ...]] = ("fill", "embed", "score", "evaluate")

    model: MaskedLanguageModel
    tokenizer: Tokenizer
    compute: Compute
    missing: tuple[str, ...] = ()

    @classmethod
    def load(
        cls, directory: str | Path, *, device: str = "auto", precision: Precision = "float32",
        compile: CompileMode = "off",
    ) -> "MaskedModel":  # fmt: skip
        """Load a directory written by Palavra or `transformers`. Raises PalavraError when it cannot."""
        path = Path(directory)
        if not path.is_dir():
            raise PalavraError(f"{path} is not a folder: give the folder of a model (it holds config.json)")
        model, missing = load_masked_model(path)
        tokenizer = Tokenizer.load(path)
        tokenizer.check_fits(model.config.vocab_size, path)
        compute = choose_compute(device, precision, compile)
        return cls(model.to(compute.device).eval(), tokenizer, compute, missing)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What masking needs of the tokenizer."""
        return vocabulary_of(self.tokenizer)

    @overload
    def fill(self, text: str, top: int = 5, order: Order = "parallel") -> list[Blank]: ...  # type: ignore[overload-overlap]

    @overload
    def fill(self, text: Sequence[str], top: int = 5, order: Order = "parallel") -> list[list[Blank]]: ...

    def fill(
        self, text: str | Sequence[str], top: int = 5, order: Order = "parallel"
    ) -> list[Blank] | list[list[Blank]]:
        """The `top` most probable tokens for every mask in a text, best first.

        One text gives a list of blanks, in order; several give a list for each. "parallel": every mask is predicted
        with all the others of its text left masked. "iterative": the surest mask is filled with its best token, the
        text is read again, and so on: a mask's proposals are those it had when it was its turn, and the first of them
        stands in the text from then on. Raises PalavraError for a text without a mask, one longer than the context, or
        a model without a masked-language-model head.
        """
        self._check_count("top", top)
        texts = [text] if isinstance(text, str) else list(text)
        self.check_head()
        found = search([sample for one in texts for sample in self.masked(one)], self._reader(top), order, 1)
        filled = [proposals_of(best, self.tokenizer, top) for (best,) in found]
        return filled[0] if isinstance(text, str) else filled

    @overload
    def fillings(  # type: ignore[overload-overlap]
        self, text: str, n_best: int = 5, *, order: Order = "iterative", beam: int | None = None,
        lengths: tuple[int, int] | None = None,
    ) -> list[Filling]: ...  # fmt: skip

    @overload
    def fillings(
        self, text: Sequence[str], n_best: int = 5, *, order: Order = "iterative", beam: int | None = None,
        lengths: tuple[int, int] | None = None,
    ) -> list[list[Filling]]: ...  # fmt: skip

    def fillings(
        self, text: str | Sequence[str], n_best: int = 5, *, order: Order = "iterative", beam: int | None = None,
        lengths: tuple[int, int] | None = None,
    ) -> list[Filling] | list[list[Filling]]:  # fmt: skip
        """The `n_best` most probable ways to fill all blanks of a text, best first; masks side by side are one blank.

        "iterative": a beam search over the order of the surest mask first, `beam` hypotheses wide (None: `n_best`),
        with as many passes as there are masks; exact where the beam is wide enough to hold all there is. "parallel":
        the masks are taken as independent, which needs one pass and no beam.

        `lengths` (fewest, most tokens) leaves the length of a text's only blank open: write it as one mask. Each
        length is searched, and since longer fillings are less probable merely because they are longer, all are ranked
        by `Filling.probability_per_token`; `probability` stays that given the length.

        Raises PalavraError as `fill`, and for numbers or lengths out of bounds.
        """
        self._check_count("n_best", n_best)
        if beam is not None and order == "parallel":
            raise PalavraError('a beam means nothing to order "parallel", whose best fillings are exact: leave it out')
        if beam is not None and beam < n_best:
            raise PalavraError(f"beam is {beam}: it must be at least n_best, which is {n_best}")
        texts = [text] if isinstance(text, str) else list(text)
        self.check_head()
        samples = [self.masked(one, lengths) for one in texts]
        width = beam or n_best
        found = search([sample for own in samples for sample in own], self._reader(width), order, width)
        filled = []
        for own in samples:
            whole = [filling_of(best, self.tokenizer) for held in islice(found, len(own)) for best in held]
            filled.append(sorted(whole, key=lambda filling: -filling.probability_per_token)[:n_best])
        return filled[0] if isinstance(text, str) else filled

    def _check_count(self, name: str, value: int) -> None:
        most = self.tokenizer.vocab_size
        if not 0 < value <= most:
            raise PalavraError(f"{name} is {value}: it must be 1 to {most}, the size of the vocabulary")

    def masked(self, text: str, lengths: tuple[int, int] | None = None) -> list[Sample]:
        """A text as `fillings` reads it: once, or once for each length of its blank. Raises PalavraError as it does."""
        return samples_of(text, self.tokenizer, self.model.config.context, lengths)

    def _reader(self, most: int) -> Read:
        """What finds the `most` likeliest tokens of masks."""
        return lambda samples: likeliest(self.model, self.tokenizer, self.compute, samples, most)

    def check_head(self) -> None:
        """Raise PalavraError for a bare encoder, which cannot predict words."""
        if any(name.startswith("head.") for name in self.missing):
            raise PalavraError(
                "this model has no masked-language-model head (it is a bare encoder): it can embed, not predict "
                "words; pretrain it with --init first"
            )

    def distribution(self, text: str) -> Tensor:
        """The probability of every vocabulary entry for each mask of a text: (masks, V) float32, rows sum to 1."""
        self.check_head()
        sample = blanks_of(text, self.tokenizer, self.model.config.context)
        ((_, vectors, batch),) = self._run([sample])
        return torch.softmax(self._logits(vectors, batch), -1).cpu()

    def embed(self, texts: str | Sequence[str], pooling: Pooling = "mean") -> list[Embedding]:
        """Contextual vectors of texts: one a text ("mean" over its tokens, or that of "cls"), or one a "token".

        Texts longer than the context are cut there, and `Embedding.truncated` says so.
        """
        wanted = [texts] if isinstance(texts, str) else list(texts)
        samples, surfaces, truncated = [], [], []
        for text in wanted:
            ids, offsets = self.tokenizer.encode_with_offsets(text)
            room = self.model.config.context - 2
            samples.append(self._sample(ids[:room]))
            surfaces.append(offsets[:room])
            truncated.append(len(ids) > room)
        found: dict[int, npt.NDArray[np.float32]] = {}
        for rows, vectors, batch in self._run(samples):
            bounds = batch.cu_seqlens.tolist()
            for number, start, stop in zip(rows, bounds, bounds[1:], strict=False):
                found[number] = pool(vectors[start:stop], pooling).float().cpu().numpy()
        return [
            Embedding(text=text, vectors=found[i], offsets=tuple(surfaces[i]), truncated=truncated[i])
            for i, text in enumerate(wanted)
        ]

    def score(
        self, texts: str | Sequence[str], per_token: bool = False, masking: Masking = "word"
    ) -> list[Score]:  # fmt: skip
        """The pseudo-log-likelihood of each text, its tokens masked one after the other; see `score_masked`.

        Raises PalavraError for a text longer than the context, or a model without a masked-language-model head.
        """
        self.check_head()
        if masking not in ("token", "word"):
            raise PalavraError(f"masking is {masking!r}: it must be token or word")
        wanted = [texts] if isinstance(texts, str) else list(texts)
        return score_masked(self.model, self.tokenizer, self.compute, wanted, masking=masking, per_token=per_token)

    def _sample(self, ids: Sequence[int]) -> Sample:
        whole = [self.tokenizer.cls_id, *ids, self.tokenizer.sep_id]
        return Sample(input_ids=np.array(whole, dtype=np.int64))

    def _logits(self, vectors: Tensor, batch: Batch) -> Tensor:
        """Logits (M, V) float32 for the labelled rows, from vectors (N, D)."""
        with torch.inference_mode(), self.compute.autocast():
            rows = batch.label_rows - int(self.model.config.mntp)
            return self.model.logits(vectors.index_select(0, rows)).float()

    def _run(self, samples: Sequence[Sample]) -> Iterator[tuple[list[int], Tensor, Batch]]:
        """Vectors (N, D) of all samples, packed: (numbers of the samples in the batch, vectors, batch)."""
        for rows, batch in batches(samples, BATCH_TOKENS):
            layout = lay_out(batch, self.compute.backend, self.compute.device)
            with torch.inference_mode(), self.compute.autocast():
                moved = batch.to(self.compute.device)
                vectors = self.model(moved, layout)
            yield rows, vectors, moved
