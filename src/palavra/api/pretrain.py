"""The Python functions that say the same things, with the same names, as the commands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from palavra.data.shards import Manifest
from palavra.log import Log
from palavra.pretraining.corpus import prepare_shards, train_tokenizer
from palavra.pretraining.plan.dry_run import PretrainingPlan, plan_pretraining
from palavra.pretraining.run import Finished, resume_pretraining, run_pretraining
from palavra.recipe.options import with_options
from palavra.recipe.pretraining_options import build_recipe
from palavra.recipe.typed_options import PrepareOptions, PretrainOptions, TokenizerOptions
from palavra.tokenizer import Tokenizer


def pretrain(
    *sources: str | Path,
    out: str | Path,
    recipe: str | Path | None = None,
    set: Sequence[str] = (),
    resume: bool = False,
    log: Log | None = None,
    **options: Unpack[PretrainOptions],
) -> Finished:
    """Pretrain a language model on text and leave a finished model directory in `out`.

    `sources` are files, folders, globs or "hf://dataset[/config]:split"; `recipe` is a TOML file, which the options and
    then `set` ("key=value") change; `palavra.options("pretrain")` lists both. With `resume` an interrupted run in `out`
    resumes exactly, with its own recipe (only `set` changes it). Raises PalavraError for wrong input, Interrupted after
    a signal, Diverged when the loss is lost.
    """
    log = log or Log(quiet=True)
    if resume:
        extra = sorted(key for key, value in {"recipe": recipe, **options}.items() if value is not None)
        if sources or extra:
            ignored = ", ".join([*(["the text"] if sources else []), *extra])
            log.warn(f"--resume goes on with the recipe in {out}: {ignored} given here changes nothing")
        return resume_pretraining(Path(out), tuple(set), log)
    return run_pretraining(build_recipe(sources, recipe=recipe, set=set, **options), Path(out), log)


def plan(
    *sources: str | Path, recipe: str | Path | None = None, set: Sequence[str] = (), **options: Unpack[PretrainOptions]
) -> PretrainingPlan:
    """Return what `pretrain` with the same arguments would do: a dry run."""
    return plan_pretraining(build_recipe(sources, recipe=recipe, set=set, **options))


def tokenizer_train(
    *sources: str | Path, out: str | Path, log: Log | None = None, **options: Unpack[TokenizerOptions]
) -> Tokenizer:
    """Train a tokenizer on text and save it in the folder `out`."""
    recipe = with_options(build_recipe(sources), options)
    return train_tokenizer(recipe.data, recipe.tokenizer, Path(out), log or Log(quiet=True))


def prepare(
    *sources: str | Path,
    tokenizer: str | Path,
    out: str | Path,
    log: Log | None = None,
    **options: Unpack[PrepareOptions],
) -> Manifest:
    """Tokenize text into shards in the folder `out`; resumes where a killed preparation stopped."""
    data = with_options(build_recipe(sources), options).data
    return prepare_shards(data, Tokenizer.load(tokenizer), Path(out), log or Log(quiet=True))
