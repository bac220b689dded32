"""The Python functions that say the same things, with the same names, as the commands."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Unpack

from palavra import config as configuration
from palavra.data.shards import Corpus, Manifest
from palavra.data.sources import SourceConfig
from palavra.errors import PalavraError
from palavra.inference.causal import CausalModel
from palavra.inference.columns import LabelledColumns
from palavra.inference.evaluation import Findings, HeldOut
from palavra.inference.loading import load
from palavra.inference.model import LanguageModel
from palavra.log import Log
from palavra.model.next_sentence import with_second_head
from palavra.recipe import DataConfig, FamilyName, ObjectiveName, Recipe, SizeName
from palavra.run.corpus import in_memory, prepare_shards, train_tokenizer
from palavra.run.joint_objectives import NextSentenceLearning
from palavra.run.learning import learning_in
from palavra.run.pretrain import Finished, Plan, plan_pretraining, resume_pretraining, run_pretraining
from palavra.run.task_api import evaluate_task
from palavra.tasks.directory import is_task_directory
from palavra.tasks.spec import Articles
from palavra.tokenizer import Tokenizer, TokenizerConfig

Documents = Literal["file", "line", "blank-line"]


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
    documents: Documents | None = None,
    encoding: str | None = None,
    valid_share: float | None = None,
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
        "valid_share": valid_share,
        "deduplicate": deduplicate,
    }
    data = replace(base.data, **_present(given))
    train = base.train
    if any(value is not None for value in lengths.values()):
        train = replace(train, minutes=minutes, steps=steps, tokens=tokens, epochs=epochs)
    train = replace(train, **_present({"seed": seed, "tensorboard": tensorboard}))
    model = replace(base.model, **_present({"size": size, "family": family}))
    built = replace(base, data=data, train=train, model=model, objective=objective or base.objective)
    if vocab_size is not None:
        built = replace(built, tokenizer=replace(built.tokenizer, vocab_size=vocab_size))
    if tokenizer is not None:
        built = replace(built, tokenizer_from=str(tokenizer))
    if init is not None:
        built = replace(built, init=str(init))
    return configuration.override(built, set)


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


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


def plan(*sources: str | Path, **options: Any) -> Plan:
    """What `pretrain` with the same arguments would do: a dry run."""
    return plan_pretraining(build_recipe([str(s) for s in sources], **options))


def tokenizer_train(
    *sources: str | Path,
    out: str | Path,
    config: TokenizerConfig | None = None,
    column: str | None = None,
    documents: Documents | None = None,
    encoding: str | None = None,
    log: Log | None = None,
) -> Tokenizer:
    """Train a tokenizer on text and save it in the folder `out`; see `TokenizerConfig`."""
    source = replace(
        SourceConfig(sources=tuple(str(s) for s in sources)),
        **_present({"column": column, "documents": documents, "encoding": encoding}),
    )
    config = config or TokenizerConfig(vocab_size=None)
    return train_tokenizer(source, config, Path(out), log or Log(quiet=True))


def prepare(
    *sources: str | Path,
    tokenizer: str | Path,
    out: str | Path,
    column: str | None = None,
    documents: Documents | None = None,
    encoding: str | None = None,
    valid_share: float | None = None,
    deduplicate: bool | None = None,
    log: Log | None = None,
) -> Manifest:
    """Tokenize text into shards in the folder `out`; restarts where a killed preparation stopped."""
    given = {"column": column, "documents": documents, "encoding": encoding, "valid_share": valid_share,
             "deduplicate": deduplicate}  # fmt: skip
    data = replace(DataConfig(sources=tuple(str(s) for s in sources)), **_present(given))
    return prepare_shards(data, Tokenizer.load(tokenizer), Path(out), log or Log(quiet=True))


def evaluate(
    model: str | Path,
    *sources: str | Path,
    column: str | None = None,
    documents: Documents | None = None,
    encoding: str | None = None,
    task: str | None = None,
    separator: str | None = None,
    threshold: float | None = None,
    articles: Articles | None = None,
    predictions: str | Path | None = None,
    sliding: bool | None = None,
    device: str = "auto",
    log: Log | None = None,
    **columns: Unpack[LabelledColumns],
) -> Any:
    """How good a model is: an `Evaluation`, a `CausalEvaluation`, a `JointEvaluation` or a `TaskEvaluation`, as it is.

    A masked model: on text, under the fixed corruption (15%, fixed seed); without sources on the text that its own run
    held out, with accuracy by frequency band; what it learned beside (`masked+nsp`, `causal+masked`) under a name of
    its own. A causal model: the same text, as perplexity and bits per byte. With `sliding`, where next tokens are
    predicted, the windows of documents longer than the context overlap by half. A fine-tuned model: on a file of
    labelled examples, whose columns `text`, `text_a`, `text_b`, `label`, `words`, `question`, `context`, `answers` and
    `choices` name where they are not those of training, as `encoding` and `separator` do, for one `task` where it has
    several; what it predicts for each example goes to the file `predictions`; `threshold` and `articles` are those of
    `FineTunedModel.answering`.
    """
    of_text = {"column": column, "documents": documents, "sliding": sliding}
    of_tasks = {
        "task": task, "predictions": predictions, "separator": separator, "threshold": threshold, "articles": articles,
        **columns,
    }  # fmt: skip
    if is_task_directory(Path(model)):
        if len(sources) != 1:
            raise PalavraError(f"{model} is fine-tuned: give one file of labelled examples to evaluate it on")
        _refuse(of_text, f"{model} is fine-tuned, and reads labelled examples")
        return evaluate_task(
            model, sources[0], task=task, encoding=encoding, separator=separator, threshold=threshold,
            articles=articles, predictions=predictions, device=device, **columns,
        )  # fmt: skip
    _refuse(of_tasks, f"{model} is not fine-tuned, and reads text")
    reading = _present({"column": column, "documents": documents, "encoding": encoding})
    return _evaluate_text(model, sources, reading, sliding, device, log or Log(quiet=True))


def _refuse(options: dict[str, Any], why: str) -> None:
    """Raise PalavraError for options that mean nothing here."""
    given = sorted(_present(options))
    if given:
        raise PalavraError(f"--{given[0].replace('_', '-')} means nothing here: {why}; leave it out")


def _evaluate_text(
    model: str | Path, sources: Sequence[str | Path], reading: dict[str, Any], sliding: bool | None, device: str,
    log: Log,
) -> Findings:  # fmt: skip
    loaded: LanguageModel | CausalModel = load(model, device=device)
    if isinstance(loaded, LanguageModel):
        loaded.check_head()
    learning = learning_in(Path(model))
    if not learning.next_tokens:
        _refuse({"sliding": sliding}, f"{model} has not learned to predict next tokens")
    tokenizer = loaded.tokenizer
    counts = None
    if sources:
        source = replace(SourceConfig(sources=tuple(str(s) for s in sources)), **reading)
        held_out: Any = in_memory(source, tokenizer, log)
    else:
        folder = Path(model) / "data"
        if not folder.is_dir():
            raise PalavraError(f"{model} holds no text of its own run: name the files to evaluate on")
        corpus = Corpus.open(folder, tokenizer.fingerprint)
        held_out, counts = corpus.valid, corpus.train.token_counts(tokenizer.vocab_size)
    text = HeldOut(documents=held_out, lengths=held_out.lengths, cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id)
    network: Any = loaded.model
    if isinstance(learning, NextSentenceLearning):
        network = with_second_head(network, Path(model)).eval()
    return learning.evaluate(network, text, tokenizer, loaded.compute, limit=None, counts=counts, sliding=bool(sliding))
