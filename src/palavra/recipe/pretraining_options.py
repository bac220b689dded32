"""Build a pretraining recipe from the options of `pretrain`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from palavra import config as configuration
from palavra.recipe.options import check_given, with_options
from palavra.recipe.pretraining import Recipe
from palavra.recipe.typed_options import PretrainOptions


def build_recipe(
    sources: Sequence[str | Path] = (),
    *,
    recipe: str | Path | None = None,
    set: Sequence[str] = (),
    **options: Unpack[PretrainOptions],
) -> Recipe:
    """Return a recipe from a file (or the defaults), changed by the options, then by `set` ("key=value").

    Raises PalavraError for an unknown key, a wrong value, or an option that does not apply.
    """
    base = configuration.from_toml(Recipe, recipe) if recipe is not None else Recipe()
    if sources:
        base = configuration.changed(base, {"data.sources": [str(source) for source in sources]})
    made = configuration.override(with_options(base, options), set)
    check_given(made, options)
    return made
