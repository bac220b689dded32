"""The Python functions that say the same things, with the same names, as the commands."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from palavra.config import without_none
from palavra.data.config import DocumentUnit, SourceConfig
from palavra.data.shards import Manifest
from palavra.log import Log
from palavra.pretraining.corpus import prepare_shards, train_tokenizer
from palavra.pretraining.plan.dry_run import PretrainingPlan, plan_pretraining
from palavra.pretraining.run import Finished, resume_pretraining, run_pretraining
from palavra.recipe import DataConfig
from palavra.recipe.pretraining_options import build_recipe
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig


def pretrain(
    *sources: str | Path, out: str | Path, resume: bool = False, log: Log | None = None, **options: Any
) -> Finished:
    """Pretrain a language model on text and leave a finished model directory in `out`.

    `sources` are files, folders, globs or "hf://dataset[/config]:split"; `options` are those of
    `build_recipe`. With `resume` an interrupted run in `out` goes on exactly, with its own recipe (only `set`
    changes it). Raises PalavraError for wrong input, Interrupted after a signal, Diverged when the loss is lost.
    """
    log = log or Log(quiet=True)
    if resume:
        extra = sorted(key for key, value in options.items() if key != "set" and value not in (None, ()))
        if sources or extra:
            ignored = ", ".join([*(["the text"] if sources else []), *extra])
            log.warn(f"--resume goes on with the recipe in {out}: {ignored} given here changes nothing")
        return resume_pretraining(Path(out), tuple(options.get("set") or ()), log)
    return run_pretraining(build_recipe([str(s) for s in sources], **options), Path(out), log)


def plan(*sources: str | Path, **options: Any) -> PretrainingPlan:
    """What `pretrain` with the same arguments would do: a dry run."""
    return plan_pretraining(build_recipe([str(s) for s in sources], **options))


def tokenizer_train(
    *sources: str | Path,
    out: str | Path,
    config: TokenizerConfig | None = None,
    column: str | None = None,
    documents: DocumentUnit | None = None,
    encoding: str | None = None,
    log: Log | None = None,
) -> Tokenizer:
    """Train a tokenizer on text and save it in the folder `out`; see `TokenizerConfig`."""
    source = replace(
        SourceConfig(sources=tuple(str(s) for s in sources)),
        **without_none(column=column, documents=documents, encoding=encoding),
    )
    config = config or TokenizerConfig(vocab_size=None)
    return train_tokenizer(source, config, Path(out), log or Log(quiet=True))


def prepare(
    *sources: str | Path,
    tokenizer: str | Path,
    out: str | Path,
    column: str | None = None,
    documents: DocumentUnit | None = None,
    encoding: str | None = None,
    valid_fraction: float | None = None,
    deduplicate: bool | None = None,
    log: Log | None = None,
) -> Manifest:
    """Tokenize text into shards in the folder `out`; restarts where a killed preparation stopped."""
    given = {"column": column, "documents": documents, "encoding": encoding, "valid_fraction": valid_fraction,
             "deduplicate": deduplicate}  # fmt: skip
    data = replace(DataConfig(sources=tuple(str(s) for s in sources)), **without_none(**given))
    return prepare_shards(data, Tokenizer.load(tokenizer), Path(out), log or Log(quiet=True))
