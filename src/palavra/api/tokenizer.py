"""Train a tokenizer on text."""

from collections.abc import Iterable
from os import PathLike
from typing import Unpack

from palavra.api.data import Source, text_recipe
from palavra.files import path_of
from palavra.log import Log
from palavra.output import check_alone, claimed
from palavra.pretraining.corpus import train_tokenizer
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
    folder = path_of(out, "--out")
    with claimed(folder, "tokenizer"):
        check_alone(folder, "tokenizer")  # a model that somebody put beside it would lose its tokenizer
        recipe = text_recipe(sources, texts, options, folder)
        return train_tokenizer(recipe.data, recipe.tokenizer, folder, Log(quiet=quiet))
