"""Multiple choice: which of an example's choices goes with its text (Devlin et al. 2019, section 4.4)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.data.characters import is_blank
from palavra.data.records import Record, column, read_records
from palavra.errors import PalavraError
from palavra.losses import Loss
from palavra.metrics import calibration
from palavra.metrics.classification import check_finite
from palavra.metrics.resampled import means
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.tasks.features import EncodedExamples, Int64Array, head_of, offsets_of, ranges, share_room, wrap
from palavra.tasks.grouped_softmax import group_log_softmax
from palavra.tasks.labels import composed
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import ModelOutputs, Prediction, Scores
from palavra.tasks.temperature_scaling import Tempered
from palavra.tasks.text_examples import shown, text_columns
from palavra.tokenizer import Tokenizer

SHOWN_ERRORS = 20
# Digits of a label; Python refuses to read numbers of thousands.
LONGEST_NUMBER = 10
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ChoiceExample:
    """A `text`, at least two `choices`, and `label`, the number of the right one from 0 on, None where it is not
    known; `where` it is from."""

    text: str
    choices: tuple[str, ...]
    label: int | None
    where: str


class MultipleChoice(Tempered[ChoiceExample]):
    """Each choice is a sequence of its own behind the text and gets one score; softmax over those of an example, which
    may have any number of them."""

    kinds = ("multiple-choice",)
    level: ClassVar[Level] = "sequence"

    @property
    def form(self) -> Form:
        return "MultipleChoice"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy", "calibration_error", "loss")

    # Data

    @classmethod
    def read(cls, spec: TaskSpec, source: str) -> list[ChoiceExample]:
        names = spec.columns.label or ("label",)
        if len(names) != 1:
            raise PalavraError(f"label names {len(names)} columns: multiple choice takes one, the right choice")
        return [_example(record, spec, names[0]) for record in read_records(source, encoding=spec.encoding)]

    @classmethod
    def fit(cls, spec: TaskSpec, examples: Sequence[ChoiceExample]) -> "MultipleChoice":
        if not examples:
            raise PalavraError(f"{spec.train or 'the training data'} has no examples: it needs a line for each")
        task = cls(spec)
        task.check(examples)
        return task

    def check(self, examples: Sequence[ChoiceExample]) -> None:
        for example in examples:
            if example.label is None or not 0 <= example.label < len(example.choices):
                raise PalavraError(f"{example.where}: label {example.label!r} is none of the {len(example.choices)} "
                                   "choices, which count from 0: mend it")  # fmt: skip

    def input_of(self, value: Any, where: str) -> ChoiceExample:
        return _input(value, self.spec, where)

    def summary(self, examples: Sequence[ChoiceExample]) -> dict[str, Any]:
        counts = [len(example.choices) for example in examples]
        sizes, times = np.unique(counts, return_counts=True)
        return {
            "examples": len(examples),
            "choices": {str(size): number for size, number in zip(sizes.tolist(), times.tolist(), strict=True)},
        }

    # The model

    def encode(
        self, examples: Sequence[ChoiceExample], tokenizer: Tokenizer, context: int, segments: bool, *,
        split: bool = False,
    ) -> EncodedExamples:  # fmt: skip
        """[CLS] text [SEP] choice [SEP] for every choice; where both do not fit, the longer one loses its end. Texts
        are never split. `labels` (E, 2) int64, each with its example's first sequence: the right choice, and how many
        there are."""
        del split
        sizes = np.array([len(example.choices) for example in examples], dtype=np.int64)
        example = np.repeat(np.arange(len(examples)), sizes)
        text, text_lengths = tokenizer.encode_flat([one.text for one in examples])
        choice, choice_lengths = tokenizer.encode_flat([choice for one in examples for choice in one.choices])
        kept = share_room(text_lengths[example], choice_lengths, context - 3)
        parts = [
            (text[ranges(offsets_of(text_lengths)[:-1][example], kept[0])], kept[0]),
            (head_of(choice, choice_lengths, kept[1]), kept[1]),
        ]
        wrapped = wrap(parts, tokenizer.cls_id, tokenizer.sep_id)
        cut = (kept[0] < text_lengths[example]) | (kept[1] < choice_lengths)
        count = len(example)
        labels, label_counts = _labels(examples, sizes)
        return EncodedExamples(
            input_ids=wrapped.input_ids,
            lengths=wrapped.lengths,
            segment_ids=wrapped.segment_ids if segments else None,
            example=example,
            rows=np.zeros(count, dtype=np.int64),
            row_counts=np.ones(count, dtype=np.int64),
            labels=labels,
            label_counts=label_counts,
            together=True,
            cut=np.bincount(example[cut], minlength=len(examples)) > 0,
        )

    def build_output(self, width: int) -> nn.Module:
        return nn.Linear(width, 1)

    def loss(self, output: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """The cross-entropy over the choices of each example, summed over the examples. A batch holds all choices of
        an example, one behind the other."""
        return Loss(choice_losses(output(x)[:, 0], batch.labels).sum(), batch.labelled)

    def infer(self, output: nn.Module, x: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Scores (S, 1) of the choices."""
        return (output(x).float(),)

    # Predictions

    def probabilities(self, features: EncodedExamples, inferred: ModelOutputs) -> list[Doubles]:
        """Of the choices of each example."""
        scores = torch.from_numpy(self.tempered(features, inferred)[0][:, 0].astype(np.float64))
        units = features.units
        found = group_log_softmax(scores, torch.from_numpy(features.example), len(units) - 1).exp().numpy()
        return np.split(found, units[1:-1])

    def predict(
        self, examples: Sequence[ChoiceExample], features: EncodedExamples, inferred: ModelOutputs
    ) -> list[Prediction]:
        probabilities = self.probabilities(features, inferred) if examples else []
        return [
            _prediction(example, own.tolist(), int(own.argmax()))
            for example, own in zip(examples, probabilities, strict=True)
        ]

    def score(self, examples: Sequence[ChoiceExample], features: EncodedExamples, inferred: ModelOutputs) -> Scores:
        check_finite(inferred[0], "choices")
        probabilities = self.probabilities(features, inferred)
        inferred = self.tempered(features, inferred)
        chosen = np.array([own.argmax() for own in probabilities])
        confidence = np.array([own.max() for own in probabilities])
        correct = chosen == features.labels[:, 0]
        scores, labels = (torch.from_numpy(array) for array in (inferred[0][:, 0].astype(np.float64), features.labels))
        losses = choice_losses(scores, labels).numpy()
        calibrated = calibration.Calibration.of(confidence, correct)
        details = {
            **self.summary(examples),
            **calibrated.to_json(),
            "errors": _confident_errors(examples, chosen, confidence, correct),
        }
        return Scores(
            main="accuracy",
            values={
                "accuracy": float(correct.mean()),
                "calibration_error": calibrated.error,
                "loss": float(losses.mean()),
            },
            examples=len(examples),
            details=details,
            statistics=lambda: [means({"accuracy": correct, "loss": losses})],
        )

    def divided(self, features: EncodedExamples, inferred: ModelOutputs, temperatures: Doubles) -> ModelOutputs:
        (scores,) = inferred
        return (scores / temperatures[features.example].astype(np.float32)[:, None],)

    def best_temperature(
        self, features: EncodedExamples, inferred: ModelOutputs, chosen: npt.NDArray[np.bool_]
    ) -> float:
        scores = torch.from_numpy(inferred[0][chosen[features.example], 0].astype(np.float64))
        labels = torch.from_numpy(features.labels[chosen])
        return calibration.best_temperature(lambda at: float(choice_losses(scores / at, labels).mean()))

    def at(self, temperature: float) -> "MultipleChoice":
        return MultipleChoice(self.spec, float(temperature))

    # Storage

    def labels_to_json(self) -> dict[str, Any]:
        """Every example brings its own choices."""
        return {"temperature": self.temperature}

    @classmethod
    def from_json(cls, spec: TaskSpec, labels: Mapping[str, Any]) -> "MultipleChoice":
        return cls(spec, float(labels.get("temperature", 1.0)))


def choice_losses(scores: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(scores of an example's choices)[right one], (E,) in nats: scores (S,) of all choices, those of each
    example together; labels (E, 2) as `MultipleChoice.encode` has them."""
    right, sizes = labels.unbind(1)
    # The size of the result is known, so that a GPU is not waited for.
    example = torch.arange(len(labels), device=labels.device).repeat_interleave(sizes, output_size=len(scores))
    first = sizes.cumsum(0) - sizes
    return -group_log_softmax(scores, example, len(labels)).index_select(0, first + right)


def _labels(examples: Sequence[ChoiceExample], sizes: Int64Array) -> tuple[Int64Array, Int64Array]:
    """`labels` and `label_counts` of the features; nothing where not all examples are labelled."""
    counts = np.zeros(int(sizes.sum()), dtype=np.int64)
    labels = [example.label for example in examples if example.label is not None]
    if len(labels) < len(examples):
        return np.empty((0, 2), dtype=np.int64), counts
    counts[offsets_of(sizes)[:-1]] = 1
    return np.stack([np.array(labels, dtype=np.int64), sizes], 1), counts


def _prediction(example: ChoiceExample, probabilities: list[float], label: int) -> Prediction:
    return {
        "label": label,
        "choice": example.choices[label],
        "probability": probabilities[label],
        "probabilities": probabilities,
    }


def _confident_errors(
    examples: Sequence[ChoiceExample], chosen: Int64Array, confidence: Doubles, correct: npt.NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """The wrong predictions that the model was surest of."""
    wrong = np.flatnonzero(~correct)
    return [
        {
            "where": examples[i].where,
            "text": examples[i].text[:300],
            "label": examples[i].choices[examples[i].label or 0],
            "predicted": examples[i].choices[int(chosen[i])],
            "probability": float(confidence[i]),
        }
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN_ERRORS].tolist()
    ]


# Reading


def _example(record: Record, spec: TaskSpec, label: str) -> ChoiceExample:
    choices, (name,) = _choices(record, spec), text_columns(spec)
    return ChoiceExample(
        text=_text(column(record, name, option="--text"), record.where, name),
        choices=choices,
        label=_label(column(record, label, option="--label"), choices, f"{record.where}: {label}"),
        where=record.where,
    )


def _input(one: Any, spec: TaskSpec, where: str) -> ChoiceExample:
    """An example to predict from a mapping with the columns, or a text and its choices."""
    (name,) = text_columns(spec)
    if isinstance(one, Mapping):
        record = Record(dict(one), where)
        text, choices = column(record, name, option="--text"), _choices(record, spec)
    elif isinstance(one, list | tuple) and len(one) == 2 and isinstance(one[1], list | tuple):
        text, choices = one[0], _listed(one[1], where, "choices")
    else:
        raise PalavraError(
            f"{where}: a text alone has no choices: give a mapping with {name} and choices, or a text and a list of "
            "choices; on the command line a --file of them, for example JSON lines"
        )
    return ChoiceExample(text=_text(text, where, name), choices=choices, label=None, where=where)


def _choices(record: Record, spec: TaskSpec) -> tuple[str, ...]:
    """Of one column of lists, or of several columns, of which the last ones may be empty."""
    names = spec.columns.choices or ("choices",)
    if len(names) == 1:
        value = column(record, names[0], option="--choices")
        if not isinstance(value, list | tuple):
            raise PalavraError(f"{record.where}: {names[0]} is {shown(value)}, not a list of choices: write a list, "
                               "or name one column for each choice")  # fmt: skip
        return _listed(value, record.where, names[0])
    values = [column(record, name, option="--choices") for name in names]
    while values and (values[-1] is None or values[-1] == ""):
        values.pop()
    return _texts(values, names[: len(values)], record.where)


def _listed(values: Sequence[Any], where: str, name: str) -> tuple[str, ...]:
    return _texts(values, [f"{name}[{number}]" for number in range(len(values))], where)


def _texts(values: Sequence[Any], names: Sequence[str], where: str) -> tuple[str, ...]:
    """The choices, each with the name that an error calls it by."""
    choices = tuple(_text(value, where, name) for value, name in zip(values, names, strict=True))
    if len(choices) < 2:
        raise PalavraError(f"{where}: too few choices ({len(choices)}): there must be at least two")
    return choices


def _text(value: Any, where: str, name: str) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    if not isinstance(value, str) or is_blank(value):
        raise PalavraError(f"{where}: {name} is {shown(value)}, not text: fill it in or remove the line")
    return value


def _label(value: Any, choices: tuple[str, ...], where: str) -> int:
    """The number of the right choice from what a file says of it."""
    text = "" if value is None else str(value).strip()
    if isinstance(value, float) and value.is_integer():
        text = str(int(value))
    meant = {number for number, choice in enumerate(choices) if composed(choice.strip()) == composed(text)}
    if text.isascii() and text.isdigit() and len(text) < LONGEST_NUMBER:
        meant |= {int(text)} & set(range(len(choices)))
    elif len(text) == 1 and text.isascii() and text.isalpha():
        meant |= {ord(text.upper()) - ord("A")} & set(range(len(choices)))
    if len(meant) == 1:
        return meant.pop()
    if meant:
        raise PalavraError(f"{where} is {shown(value)}, which may mean choice {' or '.join(map(str, sorted(meant)))} "
                           "(from 0 on), by number, letter or text: write it in another of these ways")  # fmt: skip
    last = len(choices) - 1
    letter = chr(ord("A") + min(last, 25))
    raise PalavraError(f"{where} is {shown(value)}, none of the choices: write its number, 0 to {last} (not 1 to "
                       f"{last + 1}), its letter, A to {letter}, or its exact text")  # fmt: skip
