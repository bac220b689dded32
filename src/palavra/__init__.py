"""Palavra: from raw text to a language model that works for you."""

__version__ = "0.1.0"
