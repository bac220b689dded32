"""Regression: one number or several from one text or a pair, by least squares."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.data.records import Record, column
from palavra.errors import PalavraError
from palavra.losses import Loss
from palavra.metrics.regression import regression_scores
from palavra.metrics.resampled import Doubles, Spearman, Statistic, means, regression_statistics
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.model.task_outputs.build import rescaled
from palavra.tasks.features import EncodedExamples
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import ModelOutputs, Prediction, Scores, Task, mean_over_windows
from palavra.tasks.text_examples import TextExample, encode_texts, read_texts, shown, text_columns, text_input
from palavra.tokenizer import Tokenizer

SHOWN_ERRORS = 20
# One sign with three digits behind: of a decimal number or of a thousand.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}[,.]\d{3}")
# Digits in groups of three, and perhaps decimals.
_GROUPED = re.compile(r"[+-]?\d{1,3}([.,\s']\d{3})+([.,]\d+)?")
SHOWN_POINTS = 2000
# The square of a larger one has no place in float32.
LARGEST_TARGET = 1e15
# Of the mean: a smaller deviation is lost in the rounding of float32.
LEAST_DEVIATION = 1e-5
# Of the true values' deviation: predictions that differ less are all alike.
LEAST_SPREAD = 0.01


class Regression(Task[TextExample]):
    """`names` of the targets, `mean` and `deviation` (T,) of each in training.

    The output layer learns targets less their mean in units of their deviation, so that neither their size nor their
    offset matters and several weigh alike. In a saved model mean and deviation are part of that layer, which then gives
    targets in their own units (`in_units`), in `transformers` too. Predictions and scores always have these, but for
    the score `loss`: it is in units of the deviation, as the loss of training.
    """

    kinds = ("regression",)
    level: ClassVar[Level] = "sequence"

    def __init__(
        self, spec: TaskSpec, names: tuple[str, ...], mean: Sequence[float], deviation: Sequence[float] | None = None,
        *, in_units: bool = True,
    ):  # fmt: skip
        super().__init__(spec)
        self.names, self.mean, self.in_units = names, tuple(mean), in_units
        self.deviation = (1.0,) * len(names) if deviation is None else tuple(deviation)
        if not len(names) == len(self.mean) == len(self.deviation) or not min(self.deviation) > 0:
            raise ValueError(f"{len(names)} targets with means {self.mean} and deviations {self.deviation}")

    @property
    def form(self) -> Form:
        return "SequenceClassification"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("pearson", "spearman", "mse", "rmse", "mae", "r2", "loss")

    @property
    def input_parts(self) -> int:
        return len(text_columns(self.spec))

    # Data

    @classmethod
    def read(cls, spec: TaskSpec, source: str) -> list[TextExample]:
        names = _targets(spec)
        numbers = {name: _Numbers(name) for name in names}
        examples = read_texts(spec, source, lambda record: tuple(numbers[name].read(record) for name in names))
        for of in numbers.values():
            of.check()
        return examples

    @classmethod
    def fit(cls, spec: TaskSpec, examples: Sequence[TextExample]) -> "Regression":
        targets = np.array([example.label for example in examples], dtype=np.float64)
        for name, values in zip(_targets(spec), targets.T, strict=True):
            _check_spread(name, values, spec.train or "the training data")
        return cls(spec, _targets(spec), targets.mean(0).tolist(), targets.std(0).tolist(), in_units=False)

    def with_label_counts(self, examples: Sequence[TextExample]) -> "Regression":
        return Regression.fit(self.spec, examples)

    def check(self, examples: Sequence[TextExample]) -> None:
        del examples

    def undefined(self, examples: Sequence[TextExample]) -> tuple[str, ...]:
        """Correlations and explained variance, where a target is the same everywhere."""
        constant = (np.ptp([example.label for example in examples], axis=0) == 0).any()
        return ("pearson", "spearman", "r2") if constant else ()

    def input_of(self, value: Any, where: str) -> TextExample:
        return text_input(self.spec, value, where)

    def summary(self, examples: Sequence[TextExample]) -> dict[str, Any]:
        targets = np.array([example.label for example in examples], dtype=np.float64)
        return {
            "examples": len(examples),
            "targets": {
                name: {"lowest": float(v.min()), "mean": float(v.mean()), "highest": float(v.max())}
                for name, v in zip(self.names, targets.T, strict=True)
            },
        }

    # The model

    def encode(
        self, examples: Sequence[TextExample], tokenizer: Tokenizer, context: int, segments: bool, *,
        split: bool = False,
    ) -> EncodedExamples:  # fmt: skip
        features = encode_texts(examples, tokenizer, context, segments, split)
        if not examples or examples[0].label is None:
            return features
        targets = np.array([example.label for example in examples], dtype=np.float64)
        if not self.in_units:
            targets = (targets - np.array(self.mean)) / np.array(self.deviation)
        labels = targets.astype(np.float32)[features.example]
        return replace(features, labels=labels, label_counts=features.row_counts)

    def build_output(self, width: int) -> nn.Module:
        return nn.Linear(width, len(self.names))

    def fold_scaling(self, output: nn.Module) -> "tuple[Regression, nn.Module]":
        if self.in_units:
            return self, output
        task = Regression(self.spec, self.names, self.mean, self.deviation)
        return task, rescaled(output, torch.tensor(self.deviation), torch.tensor(self.mean))

    def loss(self, output: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """The squared error in units of the targets' deviations, mean over the targets, summed over the examples."""
        difference = output(x).float() - batch.labels
        return Loss(difference.square().mean(1).sum(), batch.labelled)

    def infer(self, output: nn.Module, x: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """What the output layer says (S, T)."""
        return (output(x).float(),)

    # Predictions

    def values(self, examples: Sequence[TextExample], features: EncodedExamples, inferred: ModelOutputs) -> Doubles:
        """Predictions (E, T) in the targets' own units, averaged over the windows of an example."""
        found = mean_over_windows(inferred[0], features.example, len(examples)).astype(np.float64)
        return found if self.in_units else found * np.array(self.deviation) + np.array(self.mean)

    def predict(
        self, examples: Sequence[TextExample], features: EncodedExamples, inferred: ModelOutputs
    ) -> list[Prediction]:
        values = self.values(examples, features, inferred).tolist()
        if len(self.names) == 1:
            return [{"value": row[0]} for row in values]
        return [{"value": dict(zip(self.names, row, strict=True))} for row in values]

    def gold(self, example: TextExample) -> Any:
        return example.label[0] if len(self.names) == 1 else dict(zip(self.names, example.label, strict=True))

    def score(self, examples: Sequence[TextExample], features: EncodedExamples, inferred: ModelOutputs) -> Scores:
        values = self.values(examples, features, inferred)
        targets = np.array([example.label for example in examples], dtype=np.float64)
        found = regression_scores(targets, values, self.names)
        numbers = {name: value for name in self.metrics[:-1] if (value := getattr(found.mean, name)) is not None}
        losses = (((values - targets) / np.array(self.deviation)) ** 2).mean(1)
        numbers["loss"] = float(losses.mean())
        details = {
            **found.to_json(),
            "warnings": self._warnings(targets, values),
            "points": self._points(targets, values),
            "errors": self._largest_errors(examples, targets, values),
        }
        return Scores(
            main="pearson",
            values=numbers,
            examples=len(examples),
            details=details,
            statistics=partial(_statistics, targets, values, losses, "spearman" in numbers),
        )

    def _warnings(self, targets: Doubles, values: Doubles) -> list[str]:
        """What is to be said of predictions that are almost the same for every example."""
        spread, wanted = values.std(0), targets.std(0)
        return [
            f"the predictions of {self.names[t]} hardly differ (deviation {spread[t]:.3g}, that of the true values is "
            f"{wanted[t]:.3g}): little was learned; train longer, at another rate, or on more examples"
            for t in np.flatnonzero(spread < LEAST_SPREAD * wanted).tolist()
        ]

    def _points(self, targets: Doubles, values: Doubles) -> dict[str, list[list[float]]]:
        """True and predicted values of each target, for a picture: of many examples an even choice."""
        chosen = np.unique(np.linspace(0, len(targets) - 1, min(len(targets), SHOWN_POINTS)).astype(int))
        pairs = np.stack([targets[chosen], values[chosen]], 2)
        return {name: pairs[:, number].tolist() for number, name in enumerate(self.names)}

    def _largest_errors(
        self, examples: Sequence[TextExample], targets: Doubles, values: Doubles
    ) -> list[dict[str, Any]]:
        worst = np.argsort(-np.abs(values - targets).mean(1))[:SHOWN_ERRORS]
        return [
            {
                "where": examples[i].where,
                "text": " | ".join(filter(None, (examples[i].first, examples[i].second)))[:300],
                "label": ", ".join(f"{value:g}" for value in targets[i]),
                "predicted": ", ".join(f"{value:.3g}" for value in values[i]),
            }
            for i in worst.tolist()
        ]

    # Storage

    def labels_to_json(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            "in_units": self.in_units,
        }

    @classmethod
    def from_json(cls, spec: TaskSpec, labels: Mapping[str, Any]) -> "Regression":
        names = tuple(labels["names"])
        return cls(spec, names, labels["mean"], labels.get("deviation"), in_units=bool(labels.get("in_units", True)))

    def config_values(self) -> dict[str, Any]:
        return {
            "id2label": {str(number): name for number, name in enumerate(self.names)},
            "label2id": {name: number for number, name in enumerate(self.names)},
            "problem_type": "regression",
        }


def _statistics(targets: Doubles, values: Doubles, losses: Doubles, ranked: bool) -> Sequence[Statistic]:
    """What the intervals take; `ranked`: whether there is a rank correlation."""
    found: list[Statistic] = [regression_statistics(targets, values), means({"loss": losses})]
    return [*found, Spearman(targets, values)] if ranked else found


def _check_spread(name: str, values: Doubles, where: str) -> None:
    """Raise PalavraError for a target whose values (E,) are alike, or alike to all digits that the model has."""
    if np.ptp(values) == 0:
        raise PalavraError(
            f"{where}: {name} is {values[0]:g} everywhere, so there is nothing to learn: check the column"
        )
    if values.std() < LEAST_DEVIATION * abs(values.mean()):
        raise PalavraError(
            f"{where}: {name} is {values.mean():.8g} with a deviation of only {values.std():.3g}, too little for "
            "single precision: subtract what all have in common"
        )


def _targets(spec: TaskSpec) -> tuple[str, ...]:
    return spec.columns.label or ("label",)


class _Numbers:
    """The column of a target. In text a number may have a decimal point or a decimal comma; whether "1,234" and "1.234"
    have one or are thousands, only other numbers of the column tell."""

    def __init__(self, name: str):
        self.name = name
        # The first number, and where it is, in which the sign is surely a decimal one, and in which it may be another.
        self.sure: dict[str, tuple[str, str]] = {}
        self.unsure: dict[str, tuple[str, str]] = {}

    def read(self, record: Record) -> float:
        """The target of a record. Raises PalavraError for what is no number."""
        value = column(record, self.name, option="--label")
        if isinstance(value, str):
            text = value.strip().replace("\N{MINUS SIGN}", "-")
            for sign in ",.":
                if sign in text:
                    noted = self.unsure if _THOUSANDS.fullmatch(text) else self.sure
                    noted.setdefault(sign, (record.where, shown(value)))
            # Python's own literals may have underscores between digits.
            value = text.replace(",", ".") if "_" not in text else ""
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(value, bool) or np.isnan(number):
            said = shown(column(record, self.name))
            hint = "write it without signs between thousands" if _GROUPED.fullmatch(str(value)) else "mend it"
            raise PalavraError(f"{record.where}: {self.name} is {said}, not a number: {hint} or remove the line")
        if abs(number) > LARGEST_TARGET:
            raise PalavraError(
                f"{record.where}: {self.name} is {shown(column(record, self.name))}, not a number up to "
                f"{LARGEST_TARGET:g}: mend it, or divide the whole column"
            )
        return number

    def check(self) -> None:
        """Raise PalavraError for a number that may be a thousand: with a comma where no other number surely has a
        decimal comma, or one has a decimal point; with a point where one has a decimal comma."""
        unsure = None
        if "," in self.unsure and ("," not in self.sure or "." in self.sure):
            unsure = self.unsure[","]
        elif "." in self.unsure and "," in self.sure:
            unsure = self.unsure["."]
        if unsure is not None:
            where, said = unsure
            raise PalavraError(
                f"{where}: {self.name} is {said}, which reads as a thousand or as one: write numbers without a sign "
                "between thousands"
            )
