"""Check a pretraining recipe before reading any text."""

from pathlib import Path

from palavra.config import to_toml
from palavra.errors import PalavraError
from palavra.model.directory import check_weights, read_config
from palavra.option import does_not_apply, misapplied
from palavra.pretraining.objectives import pretraining_objective
from palavra.recipe import FAMILIES_OF, SHAPE, Recipe


def check_recipe(recipe: Recipe) -> None:
    """Raise PalavraError for a recipe that is invalid whatever the text."""
    if not recipe.data.sources:
        raise PalavraError("no text was given: name files, folders or hf://dataset:split to train on")
    to_toml(recipe)  # what cannot be written is refused now
    _check_objective(recipe)
    own = recipe.tokenizer.vocab_size is not None or recipe.tokenizer_from or recipe.model.size != "auto"
    if recipe.init and own:
        raise PalavraError(
            "--init continues a model with its own size and tokenizer: leave out --size, --vocab-size and --tokenizer"
        )
    sized = recipe.of_size("nano" if recipe.model.size == "auto" else recipe.model.size)
    assert sized.train.micro_batch_tokens and sized.model.context
    if sized.train.micro_batch_tokens < sized.model.context:
        raise PalavraError(
            f"a batch of {sized.train.micro_batch_tokens} tokens cannot hold a sequence of {sized.model.context}: "
            "raise --batch-tokens or lower --context"
        )


def _check_objective(recipe: Recipe) -> None:
    """Raise PalavraError for settings that do not fit the recipe's objective."""
    families = FAMILIES_OF[recipe.objective]
    if recipe.family not in families:
        suited = next(name for name, others in FAMILIES_OF.items() if recipe.family in others)
        raise PalavraError(
            f"--objective={recipe.objective} trains {' or '.join(families)}, not {recipe.family}: choose another "
            f"--family, or --objective={suited}"
        )
    for problem in misapplied(recipe, Recipe()):
        raise PalavraError(problem)
    if recipe.init:
        config = read_config(Path(recipe.init))
        check_weights(Path(recipe.init))
        for name in SHAPE:
            if getattr(recipe.model, name) not in (getattr(Recipe().model, name), getattr(config, name)):
                raise PalavraError(does_not_apply(f"model.{name}", "--init, which continues a model as it is"))
        pretraining_objective(recipe).check_config(config, recipe.init)
        if config.mntp and not recipe.mntp:
            raise PalavraError(
                f"{recipe.init} predicts a masked token from the vector before it: add --objective=causal+masked --set "
                "mixture.mntp=true to continue it"
            )


def check_documents(recipe: Recipe, documents: int) -> None:
    """Raise PalavraError if the recipe's objective needs more documents."""
    if recipe.objective == "masked+nsp" and documents < 2:
        raise PalavraError(
            "next-sentence prediction needs several documents to take other sentences from: split the text by "
            "--documents=line or blank-line"
        )
