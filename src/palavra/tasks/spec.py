"""A labelled data set as data: files, columns and options, in a TOML table or from the command line."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from palavra.data.config import ReadConfig
from palavra.errors import PalavraError
from palavra.metrics.articles import Articles
from palavra.model.config import HeadConfig, OutputConfig
from palavra.option import Command, Option, declared, does_not_apply, misapplied, option

KindName = Literal["classification", "regression", "token-classification", "question-answering", "multiple-choice"]
Overflow = Literal["truncate", "head-tail", "window"]
WindowJoin = Literal["mean", "max", "ends"]
Sampling = Literal["proportional", "uniform", "temperature"]
Scheme = Literal["bio", "bioes", "plain"]

TEXTS = ("text", "text_a", "text_b")
# Kinds that truncate long texts by default and split them on request; the other kinds have a fixed rule.
SPLIT_BY_REQUEST: tuple[KindName, ...] = ("classification", "regression")
_ONE_LABEL: tuple[KindName, ...] = (*SPLIT_BY_REQUEST, "multiple-choice")
POOLED = _ONE_LABEL  # kinds whose heads read one vector of each text
_LABELLING: tuple[KindName, ...] = ("classification", "token-classification")
_TAGGING: tuple[KindName, ...] = ("token-classification",)
_ANSWERING: tuple[KindName, ...] = ("question-answering",)
_TRAINED: tuple[Command, ...] = ("finetune", "sweep")
_LABELLED: tuple[Command, ...] = (*_TRAINED, "evaluate")
_GIVEN: tuple[Command, ...] = (*_LABELLED, "predict")


def _column(
    flag: str, help: str, unset: str, kinds: tuple[KindName, ...], commands: tuple[Command, ...] = _GIVEN
) -> Any:
    return option(None, help=help, flag=flag, commands=commands, unset=unset, when={"kind": kinds})


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Column names that differ from the kind's defaults."""

    text: str | None = _column("--text", "Column of the text.", "text", (*_LABELLING, "regression", "multiple-choice"))
    text_a: str | None = _column("--text-a", "Column of the first of two texts.", "text_a", _ONE_LABEL)
    text_b: str | None = _column("--text-b", "Column of the second of two texts.", "text_b", SPLIT_BY_REQUEST)
    words: str | None = _column("--words", "Column of the words, by number or name.", "the first", _TAGGING)
    question: str | None = _column("--question", "Column of the question.", "question", _ANSWERING)
    context: str | None = _column("--context", "Column of the passage.", "context", _ANSWERING)
    choices: tuple[str, ...] | None = _column(
        "--choices", "Column with a list of the choices, or one column for each choice.", "choices",
        ("multiple-choice",),
    )  # fmt: skip
    label: tuple[str, ...] | None = _column(
        "--label", "Column of the label, or columns of several targets; of words by number or name.",
        "label; of words the last", (*_LABELLING, "regression", "multiple-choice"), _LABELLED,
    )  # fmt: skip
    answers: str | None = _column("--answers", "Column of the answers.", "answers", _ANSWERING, _LABELLED)


@dataclass(frozen=True, kw_only=True)
class TokenClassificationOptions:
    """Tagging of words."""

    subwords: Literal["first", "all"] = option(
        "first", help="Which subwords of a word carry its label.", flag="--subwords"
    )
    constrained: bool = option(True, help="Predict the most probable valid sequence of tags, never an invalid one.")
    scheme: Scheme | None = option(None, help="Tagging scheme.", flag="--scheme", unset="detected")


@dataclass(frozen=True, kw_only=True)
class QuestionAnsweringOptions:
    """Question answering. Scores with different `articles` are not comparable."""

    stride: int | None = option(
        None,
        help="Tokens that neighbouring windows of a long passage have in common.",
        unset="128, or half a window if that is less",
    )
    max_answer_length: int = option(30, help="Most tokens of an answer.")
    n_best: int = option(5, help="How many answers a prediction lists.")
    threshold: float | None = option(
        None,
        help='How much higher than the best answer "no answer" must score, in logits, to be given; 0 as in SQuAD 2.0.',
        flag="--threshold",
        commands=("evaluate", "predict"),
        unset="fitted on validation questions",
    )
    articles: Articles = option(
        "en",
        help="Language whose articles exact match and F1 ignore; en as published for SQuAD.",
        flag="--articles",
        commands=("evaluate",),
    )

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise PalavraError(f"question_answering.threshold is {self.threshold}: give a finite number of logits, 0 "
                               "for the published rule")  # fmt: skip
        for name in ("stride", "max_answer_length", "n_best"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PalavraError(f"question_answering.{name} is {value}: it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TaskSpec(ReadConfig):
    """One task: its files (or `hf://...:split`), how they are read, their columns, and how to train it.
    `label_smoothing` follows Szegedy et al. 2016, `temperature` Guo et al. 2017, head-tail truncation Sun et al. 2019
    (arXiv:1905.05583); windows of a long text overlap."""

    kind: KindName = field(metadata={"option": Option(help="Kind of task: the first argument of the command.")})
    name: str = option("task", help="Name that tells it from other tasks of the model: letters, digits and _.")
    train: str = option("", help="Training examples: the second argument of the command.", path=True)
    valid: str | None = option(
        None, help="Validation examples.", flag="--valid", unset="a part of the training examples", path=True
    )
    test: str | None = option(None, help="Test examples, evaluated once, at the end.", flag="--test", path=True)
    valid_fraction: float = option(
        0.1,
        help="Fraction of the training examples to validate on, where there are no validation examples.",
        flag="--valid-fraction",
    )
    columns: Columns = option(Columns(), help="Names of the columns.")
    skip_bad: bool = option(
        False,
        help="Leave out examples that cannot be read, and say how many, instead of stopping.",
        flag="--skip-bad",
        commands=_LABELLED,
        when={"kind": (*_ONE_LABEL, *_ANSWERING)},
    )
    multilabel: bool | None = option(
        None,
        help="Whether an example may have several labels.",
        flag="--multilabel/--single-label",
        unset="true where labels are lists",
        when={"kind": ("classification",)},
    )
    separator: str = option(
        ",",
        help="What separates several labels in one field.",
        flag="--separator",
        commands=_LABELLED,
        when={"kind": ("classification",)},
    )
    class_weights: Literal["none", "balanced"] = option(
        "none", help="Whether rare classes weigh more.", flag="--class-weights", when={"kind": _LABELLING}
    )
    label_smoothing: float = option(
        0.0,
        help="Fraction of each label spread over all labels, weighted as the example's own.",
        flag="--label-smoothing",
        when={"kind": _LABELLING},
    )
    max_length: int | None = option(
        None, help="Most tokens of a sequence.", flag="--max-length", unset="the model's context"
    )
    overflow: Overflow = option(
        "truncate",
        help="What to do with longer texts: read their beginning, a quarter from the beginning and the rest from the "
        "end, or all of it in windows.",
        flag="--overflow",
        commands=(*_TRAINED, "predict"),
        when={"kind": SPLIT_BY_REQUEST},
    )
    windows: WindowJoin = option(
        "mean",
        help="How to join the predictions of windows: their mean, the maximum of each class, or the mean of the first "
        "and the last window.",
        flag="--windows",
        commands=(*_TRAINED, "predict"),
        when={"kind": SPLIT_BY_REQUEST, "overflow": ("window",)},
    )
    temperature: bool = option(
        False,
        help="Calibrate probabilities on the validation examples.",
        flag="--temperature",
        when={"kind": ("classification", "token-classification", "multiple-choice")},
    )
    coverage: float | None = option(
        None,
        help="Fraction of texts like the validation examples that get a label; predictions of the least certain others "
        "say that they abstain.",
        flag="--coverage",
        unset="all",
        when={"kind": ("classification",)},
    )
    out_of_scope: str | None = option(
        None,
        help="Label of test examples that belong to no class; scored by how well their probability tells them from the "
        "others.",
        flag="--out-of-scope",
        commands=_LABELLED,
        when={"kind": ("classification",)},
    )
    weight: float = option(1.0, help="Weight of the task's loss among several tasks.")
    head: HeadConfig = option(HeadConfig(), help="What stands between the body and the output layer.")
    output: OutputConfig = option(OutputConfig(), help="Output layer.", when={"kind": _LABELLING})
    token_classification: TokenClassificationOptions = option(
        TokenClassificationOptions(), help="Tagging of words.", when={"kind": _TAGGING}
    )
    question_answering: QuestionAnsweringOptions = option(
        QuestionAnsweringOptions(), help="Question answering.", when={"kind": _ANSWERING}
    )

    def __post_init__(self) -> None:
        # The name becomes part of parameter names, whose parts are separated by dots.
        if not self.name.isidentifier():
            raise PalavraError(f"task name {self.name!r}: use letters, digits and _ only, a letter first")
        if not 0 < self.valid_fraction < 1:
            raise PalavraError(f"valid_fraction is {self.valid_fraction}: it must lie between 0 and 1")
        if not 0 <= self.label_smoothing < 1:
            raise PalavraError(f"label_smoothing is {self.label_smoothing}: it must be at least 0 and below 1")
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise PalavraError(f"coverage is {self.coverage}: it must lie between 0 and 1")
        if self.output.name == "negative-sampling":
            self._check_scores()
        if self.weight <= 0:
            raise PalavraError(f"weight is {self.weight}: it must be above 0")
        if self.max_length is not None and self.max_length < 4:
            raise PalavraError(f"max_length is {self.max_length}: a sequence needs at least 4 tokens")

    def _check_scores(self) -> None:
        """Raise PalavraError for what needs probabilities, where the output gives scores."""
        needs = "output negative-sampling, whose scores are no probabilities"
        if self.kind != "classification":
            raise PalavraError(does_not_apply("output negative-sampling", self.kind, ["classification"]))
        for name, value in (("label_smoothing", self.label_smoothing), ("temperature", self.temperature)):
            if value:
                raise PalavraError(does_not_apply(name, needs))

    @property
    def source(self) -> str:
        """Return the name of the training examples for messages; data in memory have a `name`."""
        return str(getattr(self.train, "name", self.train) or "the training data")

    def label_column(self, takes: str) -> str | None:
        """Return the label column, if named. Raises PalavraError for several; `takes` says what the task takes."""
        names = self.columns.label or (None,)
        if len(names) != 1:
            raise PalavraError(f"label names {len(names)} columns: {takes}")
        return names[0]


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """Several tasks in one model. Each step is of one task; "uncertainty" learns the weights of the losses (Kendall et
    al. 2018, arXiv:1705.07115, eq. 10)."""

    sampling: Sampling = option(
        "proportional",
        help="Which task a step is of, drawn by: its number of examples, none of it, or that to the power of 1 / "
        "temperature.",
    )
    temperature: float = option(2.0, help="The temperature of the sampling.", when={"sampling": ("temperature",)})
    weighting: Literal["fixed", "uncertainty"] = option(
        "fixed", help="Weights of the tasks' losses: their own, or learned from uncertainty."
    )

    def __post_init__(self) -> None:
        if self.temperature < 1:
            raise PalavraError(f"mixing.temperature is {self.temperature}: it must be at least 1")


# The fields of `Columns` that apply to each kind.
COLUMNS_OF: Mapping[KindName, tuple[str, ...]] = {
    kind: tuple(each.key for each in declared(Columns) if kind in each.when["kind"]) for kind in get_args(KindName)
}


def column_flag(name: str) -> str:
    """Return the command-line option of a column."""
    return f"--{name.replace('_', '-')}"


def named_columns(spec: TaskSpec) -> tuple[str, ...]:
    """Return the names, or numbers, of the columns that the task names."""
    given = (value for value in vars(spec.columns).values() if value is not None)
    return tuple(name for value in given for name in ((value,) if isinstance(value, str) else value))


def text_fields(spec: TaskSpec) -> tuple[str, ...]:
    """Return which of `TEXTS` apply to the task's one or two texts."""
    columns, takes = spec.columns, COLUMNS_OF[spec.kind]
    if "text" not in takes:
        return tuple(name for name in TEXTS if name in takes)
    if "text_b" in takes and columns.text_b is not None:
        return "text_a", "text_b"
    alone = "text_a" if "text_a" in takes and columns.text is None and columns.text_a is not None else "text"
    return (alone,)


def reads_separator(spec: TaskSpec) -> bool:
    """Return whether one field may hold several labels."""
    return spec.kind == "classification" and bool(spec.multilabel)


def unread_fields(spec: TaskSpec) -> Iterator[str]:
    """Yield a message for each field that was set but has no effect on the task."""
    plain = TaskSpec(kind=spec.kind)
    yield from misapplied(spec, plain, "kind")
    takes, texts = COLUMNS_OF[spec.kind], text_fields(spec)
    for name in TEXTS:
        if name in takes and name not in texts and getattr(spec.columns, name) is not None:
            yield f"columns.{name} would not be read, but {' and '.join(texts)}: leave one of them out"
    if spec.kind == "classification" and spec.separator != plain.separator and not reads_separator(spec):
        yield "separator would not be read, for it separates several labels of one field: set multilabel to true"


def check_fields(spec: TaskSpec) -> None:
    """Raise PalavraError for a field that was set and does not apply to the task."""
    for problem in unread_fields(spec):
        raise PalavraError(f"task {spec.name}: {problem}")
