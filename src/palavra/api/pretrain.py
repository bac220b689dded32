"""Pretrain a language model on text."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Unpack

from palavra.api.data import Source, text_sources
from palavra.api.results import Folder, PretrainedRun
from palavra.log import Log
from palavra.pretraining.plan.dry_run import PretrainingPlan, plan_pretraining
from palavra.pretraining.run import resume_pretraining, run_pretraining
from palavra.recipe.pretraining import Recipe
from palavra.recipe.pretraining_options import build_recipe
from palavra.recipe.typed_options import PretrainOptions
from palavra.training.run_directory import RunDirectory


def pretrain(
    *sources: Source,
    texts: Iterable[str] | None = None,
    out: str | PathLike[str] | None = None,
    recipe: str | PathLike[str] | None = None,
    set: Sequence[str] = (),
    resume: bool = False,
    quiet: bool = False,
    **options: Unpack[PretrainOptions],
) -> PretrainedRun:
    """Pretrain a language model on text and return the finished run in the folder `out`.

    `sources` are files, folders, globs, "hf://dataset[/config]:split", or data in memory: texts, dicts, generators,
    data frames, Arrow tables, data sets; `texts` are further texts. Data that can be read only once is spilled to disk
    to bound memory. Without `out` the run is in a temporary folder, which `save` keeps.

    `recipe` is a TOML file, which the options and then `set` ("key=value") change; `palavra.options("pretrain")` lists
    both. With `resume` an interrupted run in `out` resumes exactly, with its own recipe (only `set` changes it).
    `quiet` suppresses progress output. Raises PalavraError for wrong input, Interrupted after a signal, Diverged if the
    loss diverges.
    """
    log = Log(quiet=quiet)
    folder = Folder(out, resume=resume)
    if resume:
        extra = sorted(key for key, value in {"recipe": recipe, **options}.items() if value is not None)
        if sources or texts is not None or extra:
            ignored = ", ".join([*(["the text"] if sources or texts is not None else []), *extra])
            log.warn(f"--resume uses the recipe in {out}: {ignored} given here has no effect")
        return folder.result(PretrainedRun, resume_pretraining(folder.path, tuple(set), log))
    with folder:
        RunDirectory(folder.path).check_free()
        made = _recipe(sources, texts, recipe, set, options, folder.path)
        return folder.result(PretrainedRun, run_pretraining(made, folder.path, log))


def plan(
    *sources: Source,
    texts: Iterable[str] | None = None,
    recipe: str | PathLike[str] | None = None,
    set: Sequence[str] = (),
    **options: Unpack[PretrainOptions],
) -> PretrainingPlan:
    """Return the plan of `pretrain` with the same arguments: a dry run."""
    return plan_pretraining(_recipe(sources, texts, recipe, set, options, None))


def _recipe(
    sources: Sequence[Source],
    texts: Iterable[str] | None,
    recipe: str | PathLike[str] | None,
    set: Sequence[str],
    options: PretrainOptions,
    spill: Path | None,
) -> Recipe:
    """Return the recipe with its sources, including those in memory."""
    found, column = text_sources(sources, texts, options.get("column"), spill)
    options = {**options, "column": column}
    made = build_recipe(found, recipe=None if recipe is None else Path(recipe), set=set, **options)
    return replace(made, data=replace(made.data, sources=tuple(found))) if found else made
