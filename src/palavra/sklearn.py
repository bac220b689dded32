"""Estimators as scikit-learn has them: `fit` fine-tunes a pretrained model to classify texts or to predict numbers."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from palavra.api.finetune import finetune
from palavra.api.results import FineTunedRun
from palavra.errors import PalavraError
from palavra.experiments.runs import model_files
from palavra.inference.finetuned import FineTunedModel
from palavra.inference.predictions import ClassPrediction, ValuePrediction
from palavra.recipe.finetuning_options import Kind

Labels = npt.NDArray[Any]


class InvalidInput(PalavraError, ValueError):
    """What an estimator cannot learn or predict from: a ValueError, as scikit-learn expects."""


class _TextEstimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators do with texts."""

    model: str | Path | None

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        epochs: float | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        strategy: str | None = None,
        max_length: int | None = None,
        valid_fraction: float | None = None,
        options: Mapping[str, object] | None = None,
        seed: int = 0,
        quiet: bool = True,
    ):
        self.model = model
        self.epochs = epochs
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.strategy = strategy
        self.max_length = max_length
        self.valid_fraction = valid_fraction
        self.options = options
        self.seed = seed
        self.quiet = quiet

    def _fine_tune(self, kind: Kind, texts: Sequence[str], labels: Sequence[object], **own: Any) -> None:
        if self.model is None:
            raise InvalidInput("--model is missing: name the folder of a pretrained model")
        names = ("epochs", "steps", "batch_size", "learning_rate", "strategy", "max_length", "valid_fraction", "seed")
        options: dict[str, Any] = {name: getattr(self, name) for name in names} | dict(self.options or {}) | own
        run = finetune(kind, texts=texts, labels=labels, model=self.model, quiet=self.quiet, **options)
        assert isinstance(run, FineTunedRun)
        self.run_ = run
        self.model_: FineTunedModel = run.model

    def _predictions(self, X: Iterable[str], **options: Any) -> list[Any]:
        check_is_fitted(self, "model_")
        return list(self.model_.predict(_texts(X), **options))

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickling keeps: the files of the model, and not the run, whose folder may be temporary."""
        state = {name: value for name, value in super().__getstate__().items() if name not in ("run_", "model_")}
        if hasattr(self, "run_") and self.run_.directory.exists():
            folder = self.run_.directory
            state["_files"] = {name: (folder / name).read_bytes() for name in model_files(folder)}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.get("_files")
        super().__setstate__(state)
        if files is not None:
            with TemporaryDirectory(prefix="palavra-") as folder:
                for name, content in files.items():
                    (Path(folder) / name).parent.mkdir(exist_ok=True)
                    (Path(folder) / name).write_bytes(content)
                self.model_ = FineTunedModel.load(folder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


class TextClassifier(ClassifierMixin, _TextEstimator):  # type: ignore[misc]
    """A classifier of texts.

    `fit` fine-tunes the pretrained `model`, the folder of one, to texts and their classes; `options` are further ones
    of `palavra.finetune`. Then `classes_` are the classes, in order, `run_` is the finished run, whose `save` keeps it,
    and `model_` its model.
    """

    def fit(self, X: Iterable[str], y: Iterable[object]) -> Self:
        """Fine-tune to texts (n,) and their classes (n,)."""
        texts, labels = _texts(X), np.asarray(y)
        _check_lengths(texts, labels)
        check_classification_targets(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise InvalidInput(f"y has {len(self.classes_)} class: a classifier needs two or more")
        names = [unicodedata.normalize("NFC", str(each)).strip() for each in self.classes_]
        if len(set(names) - {""}) < len(names):
            names = [str(number) for number in range(len(names))]
        self._numbers = {name: number for number, name in enumerate(names)}
        self._fine_tune("classification", texts, [names[i] for i in numbers.tolist()], multilabel=False)
        return self

    def predict(self, X: Iterable[str]) -> Labels:
        """Return the most probable class of each text, (n,)."""
        numbers = [self._numbers[found.label] for found in self._predictions(X)]
        return np.asarray(self.classes_[numbers])

    def predict_proba(self, X: Iterable[str]) -> npt.NDArray[np.float64]:
        """Return the probability of each class, (n, classes), in the order of `classes_`."""
        check_is_fitted(self, "model_")
        found = self._predictions(X, top=len(self.classes_))
        probabilities = np.zeros((len(found), len(self.classes_)))
        for row, prediction in zip(probabilities, found, strict=True):
            if not isinstance(prediction, ClassPrediction):
                raise InvalidInput("the model was trained by negative sampling, whose scores are no probabilities")
            for one in prediction.best:
                row[self._numbers[one.label]] = one.probability
        return probabilities


class TextRegressor(RegressorMixin, _TextEstimator):  # type: ignore[misc]
    """A regression from texts to numbers.

    `fit` fine-tunes the pretrained `model`, the folder of one, to texts and their numbers; `options` are further ones
    of `palavra.finetune`. Then `run_` is the finished run, whose `save` keeps it, and `model_` its model.
    """

    def fit(self, X: Iterable[str], y: Iterable[float]) -> Self:
        """Fine-tune to texts (n,) and their numbers (n,)."""
        texts, targets = _texts(X), np.asarray(y, dtype=np.float64)
        _check_lengths(texts, targets)
        assert_all_finite(targets, input_name="y")
        self._fine_tune("regression", texts, targets.tolist())
        return self

    def predict(self, X: Iterable[str]) -> npt.NDArray[np.float64]:
        """Return the number of each text, (n,)."""
        found = self._predictions(X)
        assert all(isinstance(one, ValuePrediction) for one in found)
        return np.array([one.value for one in found], dtype=np.float64)


def _texts(X: Iterable[str]) -> list[str]:
    """The texts of a list, array or series. Raises PalavraError for anything but one text an example."""
    if isinstance(X, str) or getattr(X, "ndim", 1) != 1:
        raise InvalidInput("X must be one text an example: give a list, an array (n,) or a series of texts")
    texts = list(X)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"X[{number}] is of type {type(text).__name__}: each must be a text")
    return [str(text) for text in texts]


def _check_lengths(texts: Sequence[str], labels: Labels) -> None:
    if labels.ndim != 1 or len(labels) != len(texts):
        raise InvalidInput(f"y has the shape {labels.shape}, and X has {len(texts)} texts: give one label a text")
