"""Evaluate a model on text or on labelled examples."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from palavra.api.data import Source, columns_in_memory, examples_of, source_of, text_sources
from palavra.config import without_none
from palavra.data.config import DocumentUnit, SourceConfig
from palavra.data.memory import MemorySource
from palavra.data.record_files import check_applies
from palavra.data.shards import Corpus
from palavra.errors import PalavraError
from palavra.files import path_of
from palavra.finetuning.run_info import split_scores
from palavra.inference.causal import CausalModel
from palavra.inference.evaluation import EvalSet, EvaluationResult
from palavra.inference.finetuned import FineTunedModel
from palavra.inference.loading import load
from palavra.inference.masked import MaskedModel
from palavra.inference.predictions import Predictions, prediction_of
from palavra.inference.results import html_table
from palavra.log import Log
from palavra.metrics.articles import Articles
from palavra.metrics.scores import Scores
from palavra.model.next_sentence import with_second_head
from palavra.output import check_no_input, output_file
from palavra.pretraining.corpus import in_memory
from palavra.pretraining.objectives import pretraining_objective_in
from palavra.pretraining.objectives.next_sentence import NextSentencePretraining
from palavra.tasks.column_options import LabelledFile, reading_and_columns
from palavra.tasks.saved_model import is_task_directory
from palavra.tasks.spec import column_flag
from palavra.typed_json import json_text, to_json


def evaluate(
    model: str | PathLike[str],
    *sources: Source,
    texts: Iterable[str] | None = None,
    labels: Iterable[object] | None = None,
    text_pairs: Iterable[tuple[str, str]] | None = None,
    column: str | None = None,
    documents: DocumentUnit | None = None,
    task: str | None = None,
    separator: str | None = None,
    skip_bad: bool | None = None,
    threshold: float | None = None,
    articles: Articles | None = None,
    out_of_scope: str | None = None,
    predictions: str | Path | None = None,
    sliding: bool | None = None,
    device: str = "auto",
    quiet: bool = False,
    **options: Unpack[LabelledFile],
) -> "EvaluationResult | TaskEvaluation":
    """Evaluate a model: return an `Evaluation`, a `CausalEvaluation`, a `JointEvaluation` or a `TaskEvaluation`.

    Sources are files or data in memory, as for `pretrain` or, if the model is fine-tuned, `finetune`. A masked model is
    evaluated on text under the fixed corruption (15%, fixed seed), without sources on the held-out text of its run,
    with accuracy by frequency band; auxiliary objectives (`masked+nsp`, `causal+masked`) are reported by name. A causal
    model is evaluated on the same text by perplexity and bits per byte. With `sliding`, for next-token prediction,
    windows of documents longer than the context overlap by half. A fine-tuned model is evaluated on labelled examples.
    If their columns differ from training, `text`, `text_a`, `text_b`, `label`, `words`, `question`, `context`,
    `answers` and `choices` name them, likewise `encoding` and `separator`; `task` selects one of several. `format`,
    `header`, `sheet`, `records` and `split` say how files are read.
    Predictions for each example go to the file `predictions`; `skip_bad` leaves out examples that cannot be read;
    `threshold`, `articles` and `out_of_scope` are those of `FineTunedModel.evaluate`.
    """
    reading, columns = reading_and_columns(options)
    of_text = {"column": column, "documents": documents, "sliding": sliding}
    of_tasks = {
        "task": task, "predictions": predictions, "separator": separator, "skip_bad": skip_bad,
        "threshold": threshold, "articles": articles, "out_of_scope": out_of_scope,
        "labels": labels, "text_pairs": text_pairs, **columns,
    }  # fmt: skip
    if not isinstance(model, str | PathLike):
        raise PalavraError(f"model is of type {type(model).__name__}: give the folder of a model, or a finished run")
    model = path_of(model, "model")
    if is_task_directory(model):
        alone = labels is None and text_pairs is None
        examples = texts if alone else examples_of(None, texts, labels, text_pairs)
        given = [*sources, *([] if examples is None else [examples])]
        if len(given) != 1:
            raise PalavraError(f"{model} is fine-tuned: give one file of labelled examples to evaluate it on")
        _refuse(of_text, f"{model} is fine-tuned, and reads labelled examples")
        return evaluate_task(
            model, given[0], task=task, separator=separator, skip_bad=skip_bad, threshold=threshold,
            articles=articles, out_of_scope=out_of_scope, predictions=predictions, device=device, **options,
        )  # fmt: skip
    _refuse(of_tasks, f"{model} is not fine-tuned, and reads text")
    found, column = text_sources(sources, texts, column)
    with_columns = without_none(column=column, documents=documents, **reading)
    return _evaluate_text(model, found, with_columns, sliding, device, Log(quiet=quiet))


def _refuse(options: dict[str, Any], why: str) -> None:
    """Raise PalavraError for options that do not apply."""
    given = sorted(without_none(**options))
    if given:
        raise PalavraError(f"{column_flag(given[0])} means nothing here: {why}; leave it out")


def _evaluate_text(
    model: Path, sources: Sequence[str], with_columns: dict[str, Any], sliding: bool | None, device: str,
    log: Log,
) -> EvaluationResult:  # fmt: skip
    loaded = load(model, device=device)
    assert isinstance(loaded, MaskedModel | CausalModel)
    loaded.check_head()
    pretraining = pretraining_objective_in(model)
    if not pretraining.next_tokens:
        _refuse({"sliding": sliding}, f"{model} has not learned to predict next tokens")
    tokenizer = loaded.tokenizer
    counts = None
    if sources:
        source = replace(SourceConfig(sources=tuple(sources)), **with_columns)
        held_out: Any = in_memory(source, tokenizer, log)
    else:
        folder = model / "data"
        if not folder.is_dir():
            raise PalavraError(f"{model} has no held-out text from its run: name the files to evaluate on")
        corpus = Corpus.open(folder, tokenizer.fingerprint)
        held_out, counts = corpus.valid, corpus.train.token_counts(tokenizer.vocab_size)
    text = EvalSet(documents=held_out, lengths=held_out.lengths, cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id)
    network: Any = loaded.model
    if isinstance(pretraining, NextSentencePretraining):
        network = with_second_head(network, Path(model)).eval()
    return pretraining.evaluate(network, text, tokenizer, loaded.compute, counts=counts, sliding=bool(sliding))


@dataclass(frozen=True, kw_only=True)
class TaskEvaluation:
    """The scores of a fine-tuned model on a labelled file, and its prediction for each example; `skipped` says what
    was left out of the file."""

    task: str
    scores: Scores
    predictions: Predictions
    skipped: tuple[str, ...] = ()

    @property
    def truncated(self) -> int:
        """The number of truncated examples."""
        return sum(one.truncated for one in self.predictions)

    def lines(self) -> list[str]:
        """Return the scores as text."""
        articles = self.scores.details.get("articles")
        return [
            f"examples            {len(self.predictions):,}",
            *(f"left out            {line}" for line in self.skipped),
            *([f"cut to the context  {self.truncated:,}"] if self.truncated else []),
            *([f"articles            {articles}"] if articles else []),
            *self._targets(),
            *(self._line(name, value) for name, value in self.scores.values.items()),
        ]

    def _targets(self) -> list[str]:
        """Return the scores of each of several targets in its own units, before their means."""
        targets = self.scores.details.get("per_target") or ()
        if len(targets) < 2:
            return []
        shown = [
            ", ".join(f"{key} {value:.4f}" for key, value in one.items() if isinstance(value, float)) for one in targets
        ]
        lines = [f"{one['name'][:19]:<19} {line}" for one, line in zip(targets, shown, strict=True)]
        return [*lines, f"means of {len(targets)} targets:"]

    def _line(self, name: str, value: float) -> str:
        interval = self.scores.intervals.get(name)
        between = (
            f"   [{interval.low:.4f}, {interval.high:.4f}] with {interval.level:.0%} confidence" if interval else ""
        )
        return f"{name.replace('_', ' '):<19} {value:.4f}{between}"

    def _repr_html_(self) -> str:
        return html_table([self.scores.values])

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON."""
        left_out = {"skipped": list(self.skipped)} if self.skipped else {}
        return {"task": self.task, "truncated": self.truncated, **left_out, **to_json(split_scores(self.scores))}


def evaluate_task(
    model: Path,
    data: Source,
    *,
    task: str | None = None,
    predictions: str | Path | None = None,
    device: str = "auto",
    separator: str | None = None,
    skip_bad: bool | None = None,
    threshold: float | None = None,
    articles: Articles | None = None,
    out_of_scope: str | None = None,
    **options: Unpack[LabelledFile],
) -> TaskEvaluation:
    """Evaluate a fine-tuned model on labelled examples.

    `options` name columns that differ from training, and say how files are read. The file `predictions` gets one JSON
    object an example: `where` it is from, its `gold` label, and the output of `predict`. `threshold`, `articles` and
    `out_of_scope` are those of `FineTunedModel.evaluate`. Raises PalavraError for examples that do not fit the task.
    """
    source = source_of("data", data)
    reading, columns = reading_and_columns(options)
    with ExitStack() as stack:
        temporary = None
        if predictions is not None:
            path = path_of(predictions, "--predictions")
            check_no_input(path, [model, *([] if isinstance(source, MemorySource) else [source])], "--predictions")
            temporary = stack.enter_context(output_file(path))  # before the work, which it may end
        loaded = FineTunedModel.load(model, device=device)
        name, chosen = loaded.task(task)
        if isinstance(source, MemorySource):
            columns = {**columns, **columns_in_memory(chosen.spec, source, columns)}
        reader = loaded.reader(name, separator=separator, skip_bad=skip_bad, **columns, **reading)
        check_applies(reader.spec, [source])
        reader.check_columns(without_none(**columns), [source])
        examples = reader.read_test(source)
        scores, found = loaded.evaluate(
            examples, task=name, threshold=threshold, articles=articles, out_of_scope=out_of_scope
        )
        if temporary is not None:
            lines = [
                json_text({"where": example.where, "gold": reader.gold(example), **one})
                for example, one in zip(examples, found, strict=True)
            ]
            temporary.write_bytes("".join(f"{line}\n" for line in lines).encode())
    made = Predictions(map(prediction_of, found))
    return TaskEvaluation(task=name, scores=scores, predictions=made, skipped=tuple(reader.skipped))
