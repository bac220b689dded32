"""Contextual embeddings: one vector a token, or one a text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from palavra.batch import Batch, Sample
from palavra.errors import PalavraError
from palavra.inference.batching import batches, placed
from palavra.model.compute import Compute
from palavra.model.finite import check_numbers
from palavra.model.heads import VocabularyModel
from palavra.model.pooling import PoolingMode
from palavra.model.sentence_modules import SentenceModules
from palavra.model.task_heads import TaskModel
from palavra.tokenizer import Tokenizer

Pooling = PoolingMode | Literal["token"]
POOLINGS: tuple[Pooling, ...] = (*get_args(PoolingMode), "token")
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embedding:
    """`vectors` (D,) for a pooled text, (L, D) float32 for its tokens; `offsets` where each token stands in
    `text`, in characters; `truncated` when the text was longer than the model reads."""

    text: str
    vectors: Vectors
    offsets: tuple[tuple[int, int], ...]
    truncated: bool


class _Read(NamedTuple):
    """A text as the model reads it: its sequence, the row of its first own token, their offsets, whether it was cut."""

    input_ids: npt.NDArray[np.int64]
    first: int
    offsets: tuple[tuple[int, int], ...]
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Checked options: the modules, or None for the vectors of tokens; the text of the prompt; and what follows."""

    modules: SentenceModules | None
    prompt: str
    normalize: bool
    truncate_dim: int | None


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """Makes vectors of texts; `causal`: a token sees only those before it."""

    model: VocabularyModel | TaskModel
    tokenizer: Tokenizer
    compute: Compute
    modules: SentenceModules
    causal: bool

    @cached_property
    def _reader(self) -> Tokenizer:
        return self.tokenizer.lowercased() if self.modules.lowercase else self.tokenizer

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """The ids before and after a text. An encoder whose tokenizer adds none opens and closes texts with its
        roles."""
        before, after = self.tokenizer.template
        if before or after or self.causal:
            return before, after
        return [self.tokenizer.cls_id], [self.tokenizer.sep_id]

    def wanted(self, pooling: Pooling | None, prompt: str | None, normalize: bool, truncate_dim: int | None) -> Wanted:
        """Return the options of `EmbedsText.embed`, checked. Raises PalavraError for those out of bounds."""
        if pooling is not None and pooling not in POOLINGS:
            raise PalavraError(f"--pooling is {pooling!r}: use one of {', '.join(POOLINGS)}")
        modules: SentenceModules | None = self.modules
        if pooling is not None:
            modules = None if pooling == "token" else replace(self.modules, pooling=(pooling,))
        found = Wanted(modules=modules, prompt=self._prompt(prompt), normalize=normalize, truncate_dim=None)
        most = self.width(found)
        if truncate_dim is not None and not 0 < truncate_dim <= most:
            raise PalavraError(f"--truncate-dim is {truncate_dim}: it must be 1 to {most}, the width of the vectors")
        return replace(found, truncate_dim=truncate_dim)

    def width(self, wanted: Wanted) -> int:
        """Return D, the width of the vectors."""
        size = self.model.config.hidden_size
        return wanted.truncate_dim or (size if wanted.modules is None else wanted.modules.width(size))

    def _prompt(self, prompt: str | None) -> str:
        """Return the text of a prompt."""
        known = self.modules.prompts
        prompt = self.modules.default_prompt if prompt is None else prompt
        if prompt is None or prompt in known:
            return known[prompt] if prompt else ""
        if prompt.isidentifier():  # a word that would stick to that of the text is a mistaken name
            names = f"its prompts are {', '.join(known)}" if known else "it has no prompts"
            raise PalavraError(
                f"--prompt is {prompt!r}, which this model does not know: {names}; a text ends in a blank or a colon"
            )
        return prompt

    def _read(self, text: str, prompt: str) -> _Read:
        """Return a text, with its prompt, as the model reads it."""
        before, after = self._frame
        ids, offsets = self._reader.encode_with_offsets(prompt + text)
        longest = self.modules.max_length or self.tokenizer.max_length or self.model.config.context
        room = max(min(longest, self.model.config.context) - len(before) - len(after), 0)
        own = [(max(start - len(prompt), 0), end - len(prompt)) for start, end in offsets[:room]]
        prompted = sum(end <= 0 for _, end in own) if prompt else 0
        return _Read(
            np.array([*before, *ids[:room], *after], dtype=np.int64), len(before) + prompted, tuple(own[prompted:]),
            len(ids) > room,
        )  # fmt: skip

    def _skipped(self, wanted: Wanted) -> int:
        """Return how many tokens at the beginning of each text do not count in its pooling: those of the prompt, with
        what opens it."""
        if not wanted.prompt or wanted.modules is None or wanted.modules.include_prompt:
            return 0
        ids = self._read("", wanted.prompt).input_ids
        return len(ids) - int(len(ids) > 0 and int(ids[-1]) in self.tokenizer.special_ids)

    def embeddings(self, texts: Sequence[str], wanted: Wanted) -> Iterator[Embedding]:
        """Yield the embeddings of texts, in order."""
        read = [self._read(text, wanted.prompt) for text in texts]
        # Without a template, an empty text has no tokens: its vector is zero.
        filled = [number for number, one in enumerate(read) if len(one.input_ids)]
        skipped = self._skipped(wanted)
        found: dict[int, Vectors] = {}
        with torch.inference_mode():
            for numbers, batch in batches([Sample(input_ids=read[number].input_ids) for number in filled]):
                hidden = self._vectors(batch)
                lengths = batch.cu_seqlens.long().diff()
                each: Sequence[Tensor] = hidden.float().split(lengths.tolist())
                if wanted.modules is not None:
                    each = wanted.modules(hidden, lengths, skipped).unbind()
                for number, own in zip(numbers, each, strict=True):
                    one = read[filled[number]]
                    rows = own if own.ndim == 1 else own[one.first : one.first + len(one.offsets)]
                    rows = rows[..., : wanted.truncate_dim]
                    found[filled[number]] = (F.normalize(rows, dim=-1) if wanted.normalize else rows).cpu().numpy()
        empty = (self.width(wanted),) if wanted.modules is not None else (0, self.width(wanted))
        for number, (text, one) in enumerate(zip(texts, read, strict=True)):
            vectors = found.get(number, np.zeros(empty, dtype=np.float32))
            yield Embedding(text=text, vectors=vectors, offsets=one.offsets, truncated=one.truncated)

    def _vectors(self, batch: Batch) -> Tensor:
        """Return the body's vectors of a packed batch, (N, D)."""
        moved, layout = placed(batch, self.compute)
        with self.compute.autocast():
            hidden: Tensor = self.model.transformer(
                moved.input_ids, moved.position_ids, layout, moved.segment_ids, causal=self.causal
            )
        check_numbers(hidden)
        return hidden
