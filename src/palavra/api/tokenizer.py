"""Train a tokenizer on text."""

from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Unpack

from palavra.api.data import Source, text_sources
from palavra.log import Log
from palavra.pretraining.corpus import train_tokenizer
from palavra.recipe.options import with_options
from palavra.recipe.pretraining import Recipe
from palavra.recipe.typed_options import TokenizerOptions
from palavra.tokenizer import Tokenizer


def tokenizer_train(
    *sources: Source,
    texts: Iterable[str] | None = None,
    out: str | PathLike[str],
    quiet: bool = False,
    **options: Unpack[TokenizerOptions],
) -> Tokenizer:
    """Train a tokenizer on text, save it in the folder `out` and return it.

    `sources` and `texts` are those of `pretrain`. Raises PalavraError for wrong input.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    found, column = text_sources(sources, texts, options.get("column"), folder)
    recipe = with_options(Recipe(), {**options, "column": column})
    data = replace(recipe.data, sources=tuple(found))
    return train_tokenizer(data, recipe.tokenizer, folder, Log(quiet=quiet))
