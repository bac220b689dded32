"""Tokenize text into shards."""

from collections.abc import Iterable
from os import PathLike
from typing import Unpack

from palavra.api.data import Source, text_recipe
from palavra.data.shards import Manifest
from palavra.files import path_of
from palavra.log import Log
from palavra.output import claimed
from palavra.pretraining.corpus import prepare_shards
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
    folder = path_of(out, "--out")
    with claimed(folder, "text"):
        recipe = text_recipe(sources, texts, options, folder)
        loaded = Tokenizer.load(path_of(tokenizer, "--tokenizer"))
        return prepare_shards(recipe.data, loaded, folder, Log(quiet=quiet))
