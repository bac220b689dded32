"""Regression: one number or several from one text or a pair, by least squares."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.data.records import Record, column
from palavra.errors import PalavraError
from palavra.losses import Loss
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.tasks.features import Features
from palavra.tasks.regression_metrics import regression_scores
from palavra.tasks.spec import TaskSpec
from palavra.tasks.statistics import Spearman, Statistic, means, regression_statistics
from palavra.tasks.task import Inferred, Prediction, Scores, Task, mean_over_windows
from palavra.tasks.texts import TextExample, encode_texts, read_texts, shown, text_columns, text_input
from palavra.tokenizer import Tokenizer

SHOWN_ERRORS = 20
# One comma with three digits behind: of a decimal number or of a thousand.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
SHOWN_POINTS = 2000
# The square of a larger one has no place in float32.
LARGEST_TARGET = 1e15


class Regression(Task[TextExample]):
    """`names` of the targets. They are learned as they come, neither centred nor scaled, so that a saved model gives
    them in their own unit in `transformers` too; `mean` (T,) of the training targets is where the output layer's
    bias begins."""

    kinds = ("regression",)
    level: ClassVar[Level] = "sequence"

    def __init__(self, spec: TaskSpec, names: tuple[str, ...], mean: Sequence[float]):
        super().__init__(spec)
        self.names, self.mean = names, tuple(mean)

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
        return read_texts(spec, source, lambda record: tuple(_number(record, name) for name in names))

    @classmethod
    def fit(cls, spec: TaskSpec, examples: Sequence[TextExample]) -> "Regression":
        targets = np.array([example.label for example in examples], dtype=np.float64)
        for name, values in zip(_targets(spec), targets.T, strict=True):
            if np.ptp(values) == 0:
                raise PalavraError(
                    f"{spec.train or 'the training data'}: {name} is {values[0]:g} everywhere, so there is nothing to "
                    "learn: check the column"
                )
        return cls(spec, _targets(spec), targets.mean(0).tolist())

    def check(self, examples: Sequence[TextExample]) -> None:
        del examples

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
    ) -> Features:  # fmt: skip
        features = encode_texts(examples, tokenizer, context, segments, split)
        if not examples or examples[0].label is None:
            return features
        targets = np.array([example.label for example in examples], dtype=np.float32)
        return replace(features, labels=targets[features.example], label_counts=features.row_counts)

    def build_output(self, width: int) -> nn.Module:
        return nn.Linear(width, len(self.names))

    def start(self, output: nn.Module) -> None:
        """Let a new output layer guess the mean, instead of 0: the first steps then learn what differs."""
        assert isinstance(output, nn.Linear)
        with torch.no_grad():
            output.bias.copy_(torch.tensor(self.mean))

    def loss(self, output: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """The squared error, mean over the targets, summed over the examples."""
        difference = output(x).float() - batch.labels
        return Loss(difference.square().mean(1).sum(), batch.labelled)

    def infer(self, output: nn.Module, x: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Values (S, T)."""
        return (output(x).float(),)

    # Predictions

    def predict(self, examples: Sequence[TextExample], features: Features, inferred: Inferred) -> list[Prediction]:
        values = mean_over_windows(inferred[0], features.example, len(examples)).tolist()
        if len(self.names) == 1:
            return [{"value": row[0]} for row in values]
        return [{"value": dict(zip(self.names, row, strict=True))} for row in values]

    def score(self, examples: Sequence[TextExample], features: Features, inferred: Inferred) -> Scores:
        values = mean_over_windows(inferred[0], features.example, len(examples)).astype(np.float64)
        targets = np.array([example.label for example in examples], dtype=np.float64)
        found = regression_scores(targets, values, self.names)
        numbers = {name: value for name in self.metrics[:-1] if (value := getattr(found.mean, name)) is not None}
        # Predictions that are all alike correlate with nothing; the deciding number has to be one.
        numbers = {"pearson": 0.0, **numbers, "loss": found.mean.mse}
        details = {
            **found.to_json(),
            "points": self._points(targets, values),
            "errors": self._largest_errors(examples, targets, values),
        }
        return Scores(
            main="pearson",
            values=numbers,
            examples=len(examples),
            details=details,
            statistics=partial(_statistics, targets, values, "spearman" in numbers),
        )

    def _points(
        self, targets: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
    ) -> dict[str, list[list[float]]]:
        """True and predicted values of each target, for a picture: of many examples an even choice."""
        chosen = np.unique(np.linspace(0, len(targets) - 1, min(len(targets), SHOWN_POINTS)).astype(int))
        pairs = np.stack([targets[chosen], values[chosen]], 2)
        return {name: pairs[:, number].tolist() for number, name in enumerate(self.names)}

    def _largest_errors(
        self, examples: Sequence[TextExample], targets: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
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
        return {"names": list(self.names), "mean": list(self.mean)}

    @classmethod
    def from_json(cls, spec: TaskSpec, labels: Mapping[str, Any]) -> "Regression":
        return cls(spec, tuple(labels["names"]), labels["mean"])

    def config_values(self) -> dict[str, Any]:
        return {
            "id2label": {str(number): name for number, name in enumerate(self.names)},
            "label2id": {name: number for number, name in enumerate(self.names)},
            "problem_type": "regression",
        }


def _statistics(targets: npt.NDArray[np.float64], values: npt.NDArray[np.float64], ranked: bool) -> Sequence[Statistic]:
    """What the intervals take; `ranked`: whether there is a rank correlation."""
    found: list[Statistic] = [
        regression_statistics(targets, values),
        means({"loss": ((values - targets) ** 2).mean(1)}),
    ]
    return [*found, Spearman(targets, values)] if ranked else found


def _targets(spec: TaskSpec) -> tuple[str, ...]:
    return spec.columns.label or ("label",)


def _number(record: Record, name: str) -> float:
    value = column(record, name, option="--label")
    if isinstance(value, str) and _THOUSANDS.fullmatch(value.strip()):
        raise PalavraError(
            f"{record.where}: {name} is {shown(value)}, which reads as a thousand or as one: write numbers without a "
            "sign between thousands"
        )
    try:
        number = float(str(value).strip().replace(",", ".")) if isinstance(value, str) else float(value)
    except OverflowError:
        number = float("inf")
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or np.isnan(number):
        raise PalavraError(f"{record.where}: {name} is {shown(value)}, not a number: mend it or remove the line")
    if abs(number) > LARGEST_TARGET:
        raise PalavraError(
            f"{record.where}: {name} is {shown(value)}, not a number up to {LARGEST_TARGET:g}: mend it, or divide the "
            "whole column"
        )
    return number
