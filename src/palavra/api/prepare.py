"""Tokenize text into shards."""

from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Unpack

from palavra.api.data import Source, text_sources
from palavra.data.shards import Manifest
from palavra.log import Log
from palavra.pretraining.corpus import prepare_shards
from palavra.recipe.options import with_options
from palavra.recipe.pretraining import Recipe
from palavra.recipe.typed_options import PrepareOptions
from palavra.tokenizer import Tokenizer


def prepare(
    *sources: Source,
    texts: Iterable[str] | None = None,
    tokenizer: str | PathLike[str],
    out: str | PathLike[str],
    quiet: bool = False,
    **options: Unpack[PrepareOptions],
) -> Manifest:
    """Tokenize text into shards in the folder `out`; a killed preparation resumes where it stopped.

    `sources` and `texts` are those of `pretrain`. Raises PalavraError for wrong input.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    found, column = text_sources(sources, texts, options.get("column"), folder)
    data = replace(with_options(Recipe(), {**options, "column": column}).data, sources=tuple(found))
    return prepare_shards(data, Tokenizer.load(Path(tokenizer)), folder, Log(quiet=quiet))
