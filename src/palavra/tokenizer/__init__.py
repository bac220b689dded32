"""Tokenizers: train one, load any that `transformers` reads, encode text, know the roles of the special tokens."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palavra.tokenizer.tokenizer import Tokenizer

__all__ = ["Tokenizer"]


def __getattr__(name: str) -> object:
    """Import `Tokenizer` on first use, so that its configuration can be read without the libraries it needs."""
    if name != "Tokenizer":
        raise AttributeError(f"module 'palavra.tokenizer' has no attribute {name!r}")
    from palavra.tokenizer.tokenizer import Tokenizer

    return Tokenizer
