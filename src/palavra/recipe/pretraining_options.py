"""The options of `pretrain` as a recipe."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from palavra import config as configuration
from palavra.config import without_none
from palavra.data.config import DocumentUnit
from palavra.errors import PalavraError
from palavra.recipe import FamilyName, ObjectiveName, Recipe, SizeName


def build_recipe(
    sources: Sequence[str] = (),
    *,
    recipe: str | Path | None = None,
    objective: ObjectiveName | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    tokens: int | None = None,
    epochs: float | None = None,
    size: SizeName | Literal["auto"] | None = None,
    family: FamilyName | None = None,
    column: str | None = None,
    documents: DocumentUnit | None = None,
    encoding: str | None = None,
    valid_fraction: float | None = None,
    deduplicate: bool | None = None,
    vocab_size: int | None = None,
    tokenizer: str | Path | None = None,
    init: str | Path | None = None,
    seed: int | None = None,
    tensorboard: bool | None = None,
    set: Sequence[str] = (),
) -> Recipe:
    """A recipe from a file (or the defaults), changed by what is given here, then by `set` ("key=value").

    Arguments left None change nothing. Raises PalavraError for an unknown key or a wrong value.
    """
    lengths = {"minutes": minutes, "steps": steps, "tokens": tokens, "epochs": epochs}
    if sum(value is not None for value in lengths.values()) > 1:
        raise PalavraError("give one of --minutes, --steps, --tokens and --epochs: they all set the length")
    base = configuration.from_toml(Recipe, recipe) if recipe is not None else Recipe()
    given = {
        "sources": tuple(str(source) for source in sources) or None,
        "column": column,
        "documents": documents,
        "encoding": encoding,
        "valid_fraction": valid_fraction,
        "deduplicate": deduplicate,
    }
    data = replace(base.data, **without_none(**given))
    train = base.train
    if any(value is not None for value in lengths.values()):
        train = replace(train, minutes=minutes, steps=steps, tokens=tokens, epochs=epochs)
    train = replace(train, **without_none(seed=seed, tensorboard=tensorboard))
    model = replace(base.model, **without_none(size=size, family=family))
    built = replace(base, data=data, train=train, model=model, objective=objective or base.objective)
    if vocab_size is not None:
        built = replace(built, tokenizer=replace(built.tokenizer, vocab_size=vocab_size))
    if tokenizer is not None:
        built = replace(built, tokenizer_from=str(tokenizer))
    if init is not None:
        built = replace(built, init=str(init))
    return configuration.override(built, set)
