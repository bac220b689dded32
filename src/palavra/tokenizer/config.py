"""What a new tokenizer is trained to be."""

from dataclasses import dataclass
from typing import Literal

from palavra.errors import PalavraError
from palavra.option import option

Algorithm = Literal["bpe", "wordpiece", "unigram"]

OWN_TOKENS = {role: f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
MOST_ENTRIES = 1 << 24
_BYTE_VALUES = 256


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """What a vocabulary is trained to.

    The same documents in any order give the same vocabulary, except with "unigram", whose trainer in the `tokenizers`
    library sums in an order that changes from run to run.
    """

    algorithm: Algorithm = option(
        "bpe",
        help="Kind of vocabulary; bpe is byte-level and exact for any text.",
        flag="--algorithm",
        commands=("tokenizer train",),
    )
    vocab_size: int | None = option(
        16_384,
        help="Entries of the vocabulary, five special ones included; a text that supports fewer gives fewer.",
        flag="--vocab-size",
        commands=("tokenizer train", "pretrain"),
        unset="fits the text: 4096 to 32768",
    )
    nfc: bool = option(
        False, help="Compose characters (Unicode NFC) first.", flag="--nfc", commands=("tokenizer train",)
    )
    lowercase: bool = option(False, help="Lowercase all text.", flag="--lowercase", commands=("tokenizer train",))
    strip_accents: bool = option(False, help="Remove accents.", flag="--strip-accents", commands=("tokenizer train",))
    min_frequency: int = option(2, help="How often a merge must occur.", when={"algorithm": ("bpe", "wordpiece")})
    sample_bytes: int = option(
        100_000_000,
        help="Train on at most this much UTF-8 text: a uniform sample of the documents, by content hash; equal "
        "documents count as often as they occur, and are all in the sample or none.",
    )

    def __post_init__(self) -> None:
        smallest = len(OWN_TOKENS) + (_BYTE_VALUES if self.algorithm == "bpe" else 1)
        if self.vocab_size is not None and not smallest <= self.vocab_size <= MOST_ENTRIES:
            raise PalavraError(
                f"tokenizer vocab_size is {self.vocab_size}: {self.algorithm} needs at least {smallest}, "
                f"at most {MOST_ENTRIES}"
            )
        if self.min_frequency < 1 or self.sample_bytes < 1:
            raise PalavraError("tokenizer min_frequency and sample_bytes must be at least 1")

    @property
    def entries(self) -> int:
        """The size of the vocabulary, once it is settled."""
        if self.vocab_size is None:
            raise ValueError("the size of the vocabulary is not settled")
        return self.vocab_size
