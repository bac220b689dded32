"""Tokenizers: train one, load anybody's, encode much, and know the roles of the special tokens."""

from palavra.tokenizer.tokenizer import Tokenizer
from palavra.tokenizer.training import TokenizerConfig

__all__ = ["Tokenizer", "TokenizerConfig"]
