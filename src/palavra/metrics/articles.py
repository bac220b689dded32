"""Articles by language, which scores of answers ignore."""

from collections.abc import Mapping
from typing import Literal

Articles = Literal["en", "pt", "none"]
ENGLISH_ARTICLES = frozenset({"a", "an", "the"})
PORTUGUESE_ARTICLES = frozenset({"o", "a", "os", "as", "um", "uma", "uns", "umas"})
ARTICLES: Mapping[Articles, frozenset[str]] = {"en": ENGLISH_ARTICLES, "pt": PORTUGUESE_ARTICLES, "none": frozenset()}
