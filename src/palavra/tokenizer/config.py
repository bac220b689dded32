"""What a new tokenizer is trained to be."""

from dataclasses import dataclass
from typing import Literal

from palavra.errors import PalavraError

Algorithm = Literal["bpe", "wordpiece", "unigram"]

OWN_TOKENS = {role: f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
_BYTE_VALUES = 256


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """What a vocabulary is trained to.

    `algorithm`: byte-level "bpe" (any text round-trips exactly), "wordpiece" or "unigram". `vocab_size`:
    entries, the five special tokens included; None leaves it to the recipe, by the size
    of the corpus; a corpus that supports fewer gives fewer, and the tokenizer's
    `warnings` say so. `min_frequency`: how often a merge must occur (bpe, wordpiece). `nfc`: compose
    characters (Unicode NFC) first; off by default because a decomposed text would then decode composed.
    `lowercase`, `strip_accents`: throw that distinction away. `sample_bytes`: the vocabulary is trained on at
    most this much UTF-8 text, a uniform sample of documents chosen by content hash in one pass over the
    stream; it bounds memory.

    The same documents in any order give the same vocabulary, except with "unigram", whose trainer in the
    `tokenizers` library sums in an order that changes from run to run.
    """

    algorithm: Algorithm = "bpe"
    vocab_size: int | None = 16_384
    nfc: bool = False
    lowercase: bool = False
    strip_accents: bool = False
    min_frequency: int = 2
    sample_bytes: int = 100_000_000

    def __post_init__(self) -> None:
        smallest = len(OWN_TOKENS) + (_BYTE_VALUES if self.algorithm == "bpe" else 1)
        if self.vocab_size is not None and not smallest <= self.vocab_size <= 1 << 24:
            raise PalavraError(
                f"tokenizer vocab_size is {self.vocab_size}: {self.algorithm} needs at least {smallest}, "
                f"at most {1 << 24}"
            )
        if self.min_frequency < 1 or self.sample_bytes < 1:
            raise PalavraError("tokenizer min_frequency and sample_bytes must be at least 1")

    @property
    def entries(self) -> int:
        """The size of the vocabulary, once it is settled."""
        if self.vocab_size is None:
            raise ValueError("the size of the vocabulary is not settled")
        return self.vocab_size
