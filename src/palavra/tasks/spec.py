"""A labelled data set as data: files, columns and options, in a TOML table or from the command line."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from palavra.errors import PalavraError
from palavra.metrics.articles import Articles
from palavra.model.config import HeadConfig, OutputConfig

KindName = Literal["classification", "regression", "token-classification", "question-answering", "multiple-choice"]
Overflow = Literal["truncate", "window"]
Sampling = Literal["proportional", "uniform", "temperature"]
Scheme = Literal["bio", "bioes", "plain"]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of the columns. None stands for the kind's own: `text`, or `text_a` and `text_b`, and `label`;
    `question`, `context` and `answers`; `words` and `label` by number or name in files of columns. `label` may name
    several columns where a kind has several targets; `choices` names the columns of the choices, or one with lists.
    """

    text: str | None = None
    text_a: str | None = None
    text_b: str | None = None
    label: tuple[str, ...] | None = None
    words: str | None = None
    question: str | None = None
    context: str | None = None
    answers: str | None = None
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class TokenClassificationOptions:
    """Token labelling. `subwords`: whether a word's label stands on its first subword or on all of them; `constrained`:
    decode the most probable valid sequence, never an invalid one; `scheme` None: found in the data."""

    subwords: Literal["first", "all"] = "first"
    constrained: bool = True
    scheme: Scheme | None = None


@dataclass(frozen=True, kw_only=True)
class QuestionAnsweringOptions:
    """Question answering. `stride`: tokens that neighbouring windows of a long context share; `max_answer_length` in
    tokens; `n_best` how many answers a prediction lists; `threshold`: how much better "no answer" must score (logits)
    than the best answer to be given, None: fitted on the validation data where some questions have none; `articles`:
    those of which language scores leave out, "en" as published for SQuAD, "pt" or "none". It stands with the scores:
    numbers with other articles are other numbers."""

    stride: int = 128
    max_answer_length: int = 30
    n_best: int = 5
    threshold: float | None = None
    articles: Articles = "en"

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise PalavraError(
                f"question_answering.threshold is {self.threshold}: give a finite number of "
                "logits, 0 for the published rule"
            )
        for name in ("stride", "max_answer_length", "n_best"):
            if getattr(self, name) < 1:
                raise PalavraError(f"question_answering.{name} is {getattr(self, name)}: it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task. `name` tells it from others in one model; `train`, `valid`, `test` are files (or `hf://...:split`);
    without `valid`, `valid_fraction` of the training examples is held out.

    `multilabel`: several labels an example, in a list or parted by `separator`; None: where they are lists.
    `class_weights` "balanced" weighs rare classes up; `label_smoothing` as in Szegedy et al. 2016. `overflow`: what
    validation and prediction do with texts beyond the context: "truncate" them (counted), or "window" them into
    overlapping windows whose probabilities are averaged (of a pair the longer text). `temperature`: fit one on the
    validation examples, so that probabilities can be taken at their word (Guo et al. 2017). `weight` of the task among
    several.
    """

    kind: KindName
    name: str = "task"
    train: str = ""
    valid: str | None = None
    test: str | None = None
    valid_fraction: float = 0.1
    columns: Columns = field(default_factory=Columns)
    encoding: str = "utf-8"
    multilabel: bool | None = None
    separator: str = ","
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: float = 0.0
    max_length: int | None = None
    overflow: Overflow = "truncate"
    temperature: bool = False
    weight: float = 1.0
    head: HeadConfig = field(default_factory=HeadConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    token_classification: TokenClassificationOptions = field(default_factory=TokenClassificationOptions)
    question_answering: QuestionAnsweringOptions = field(default_factory=QuestionAnsweringOptions)

    def __post_init__(self) -> None:
        # The name becomes part of parameter names, which have dots of their own.
        if not self.name.isidentifier():
            raise PalavraError(f"task name {self.name!r}: use letters, digits and _ only, a letter first")
        if not 0 < self.valid_fraction < 1:
            raise PalavraError(f"valid_fraction is {self.valid_fraction}: it must lie between 0 and 1")
        if not 0 <= self.label_smoothing < 1:
            raise PalavraError(f"label_smoothing is {self.label_smoothing}: it must be at least 0 and below 1")
        if self.weight <= 0:
            raise PalavraError(f"weight is {self.weight}: it must be above 0")
        if self.max_length is not None and self.max_length < 4:
            raise PalavraError(f"max_length is {self.max_length}: a sequence needs at least 4 tokens")


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """Several tasks in one model. Each step is of one task, drawn in proportion to its examples, `uniform`ly, or to
    its examples to the power 1 / `temperature`. `weighting`: the tasks' losses are weighed by their own fixed weights,
    or by "uncertainty", learned (Kendall et al. 2018, arXiv:1705.07115, eq. 10)."""

    sampling: Sampling = "proportional"
    temperature: float = 2.0
    weighting: Literal["fixed", "uncertainty"] = "fixed"

    def __post_init__(self) -> None:
        if self.temperature < 1:
            raise PalavraError(f"mixing.temperature is {self.temperature}: it must be at least 1")


_CLASSES: tuple[KindName, ...] = ("classification",)
_SEQUENCES: tuple[KindName, ...] = (*_CLASSES, "regression", "multiple-choice")
# Those whose long texts are cut unless they are to be split; the others decide by themselves.
SPLIT_BY_REQUEST: tuple[KindName, ...] = (*_CLASSES, "regression")
TEXTS = ("text", "text_a", "text_b")
# The fields of `Columns` that each kind takes.
COLUMNS_OF: Mapping[KindName, tuple[str, ...]] = {
    "classification": (*TEXTS, "label"),
    "regression": (*TEXTS, "label"),
    "token-classification": ("text", "words", "label"),
    "question-answering": ("question", "context", "answers"),
    "multiple-choice": ("text", "text_a", "choices", "label"),
}
# Fields that mean something to some kinds only.
_FIELDS_OF: dict[str, tuple[KindName, ...]] = {
    "multilabel": _CLASSES,
    "separator": _CLASSES,
    "temperature": (*_CLASSES, "token-classification", "multiple-choice"),
    "class_weights": (*_CLASSES, "token-classification"),
    "label_smoothing": (*_CLASSES, "token-classification"),
    "output": (*_CLASSES, "token-classification"),
    "overflow": SPLIT_BY_REQUEST,
    "token_classification": ("token-classification",),
    "question_answering": ("question-answering",),
    "head.pooling": _SEQUENCES,
}


def option(name: str) -> str:
    """A column as the command line calls it."""
    return f"--{name.replace('_', '-')}"


def text_fields(spec: TaskSpec) -> tuple[str, ...]:
    """Which of `TEXTS` name the one text or the two of the task; the others mean nothing to it."""
    columns, takes = spec.columns, COLUMNS_OF[spec.kind]
    if "text" not in takes:
        return tuple(name for name in TEXTS if name in takes)
    if "text_b" in takes and columns.text_b is not None:
        return "text_a", "text_b"
    alone = "text_a" if "text_a" in takes and columns.text is None and columns.text_a is not None else "text"
    return (alone,)


def reads_separator(spec: TaskSpec) -> bool:
    """Whether one field may hold several labels."""
    return spec.kind in _CLASSES and bool(spec.multilabel)


def unread_fields(spec: TaskSpec) -> Iterator[str]:
    """Of each field that was set and means nothing to the task, what it is, what the kind takes, and what to do."""
    plain = TaskSpec(kind=spec.kind)
    for path, kinds in _FIELDS_OF.items():
        value, default = spec, plain
        for name in path.split("."):
            value, default = getattr(value, name), getattr(default, name)
        if spec.kind not in kinds and value != default:
            yield f"{path} means nothing for {spec.kind}, only for {', '.join(kinds)}: leave it out"
    takes, texts = COLUMNS_OF[spec.kind], text_fields(spec)
    for name in (each.name for each in fields(Columns) if getattr(spec.columns, each.name) is not None):
        if name not in takes:
            yield f"columns.{name} means nothing for {spec.kind}, which takes {', '.join(takes)}: leave it out"
        elif name in TEXTS and name not in texts:
            yield f"columns.{name} would not be read, but {' and '.join(texts)}: leave one of them out"
    if spec.kind in _CLASSES and spec.separator != plain.separator and not reads_separator(spec):
        yield "separator would not be read, for it parts several labels of one field: set multilabel to true"


def check_fields(spec: TaskSpec) -> None:
    """Raise PalavraError for a field that was set and means nothing to the task."""
    for problem in unread_fields(spec):
        raise PalavraError(f"task {spec.name}: {problem}")
