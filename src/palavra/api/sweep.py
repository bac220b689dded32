"""Search for good fine-tuning settings."""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Unpack

from palavra.api.data import Source, examples_of
from palavra.api.finetune import GivenExamples
from palavra.api.results import Folder, SweepRun
from palavra.experiments.sweep import run_sweep
from palavra.log import Log
from palavra.recipe.finetuning_options import Kind
from palavra.recipe.typed_options import FinetuneOptions


def sweep(
    kind: Kind,
    train: Source | None = None,
    *,
    texts: Iterable[str | Sequence[str]] | None = None,
    labels: Iterable[object] | None = None,
    text_pairs: Iterable[tuple[str, str]] | None = None,
    out: str | PathLike[str] | None = None,
    trials: int = 20,
    search: Sequence[str] = (),
    minutes: float | None = None,
    recipe: str | Path | None = None,
    set: Sequence[str] = (),
    resume: bool = False,
    quiet: bool = False,
    **options: Unpack[FinetuneOptions],
) -> SweepRun:
    """Search recipe fields for the best validation score and leave the best trial's model in `out`.

    Examples, `recipe`, `set` and the options are those of `finetune`. `search` names the fields to search, each as
    "key=low..high", "key=low..high:log" or "key=a,b,c"; the default is learning rate, strategy and epochs around the
    recipe's. The first trial is the recipe itself, as far as it lies in the space. After `minutes` no further trial
    starts. Only the best trial is scored on the test examples, once, at the end. With `resume` an interrupted sweep
    resumes: finished trials are kept, an unfinished one is run again, and `trials` may be increased. Raises
    PalavraError for wrong input or if Optuna is missing, Interrupted after a signal.
    """
    examples = examples_of(train, texts, labels, text_pairs, kind)
    with Folder(out, resume=resume) as folder:
        made = GivenExamples(kind, examples, options, folder.path).recipe(recipe, set, resume=resume)
        found = run_sweep(made, search, trials, minutes, folder.path, resume, Log(quiet=quiet))
        return folder.result(SweepRun, found)
