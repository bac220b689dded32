"""The estimators of scikit-learn's kind."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from builders.finetuning import BAD, GOOD, REST, write_pretrained
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks

from palavra.errors import PalavraError
from palavra.sklearn import TextClassifier, TextRegressor

DEVICE = {"set": ("train.device=cpu", "train.compile=off", "train.threads=1")}
TEXTS = [" ".join([REST[i % 8], (GOOD if i % 2 else BAD)[i % 4], REST[i % 3]]) for i in range(48)]
LABELS = np.array([3 if i % 2 else -1 for i in range(48)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    write_pretrained(folder)
    return folder / "bert"


def classifier(model: Path | None, **changes: Any) -> TextClassifier:
    return TextClassifier(model, **{"steps": 20, "batch_size": 8, "learning_rate": 3e-3, "options": DEVICE, **changes})


@pytest.fixture(scope="module")
def fitted(model: Path) -> TextClassifier:
    return classifier(model).fit(TEXTS, LABELS)


def test_a_classifier_learns_its_classes(fitted: TextClassifier) -> None:
    assert fitted.classes_.tolist() == [-1, 3]
    probabilities = fitted.predict_proba(TEXTS)
    assert probabilities.shape == (48, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    predicted = fitted.predict(pandas.Series(TEXTS, index=range(10, 58)))
    assert predicted.dtype == LABELS.dtype
    assert fitted.score(TEXTS, LABELS) == np.mean(predicted == LABELS) > 0.9


def test_a_fitted_classifier_is_kept(fitted: TextClassifier, tmp_path: Path) -> None:
    import palavra

    fitted.run_.save(tmp_path / "kept")
    kept = palavra.load(tmp_path / "kept", kind="fine-tuned")
    assert [one["label"] for one in kept.predict(TEXTS[:4])] == [str(one) for one in fitted.predict(TEXTS[:4])]


def test_names_of_classes_that_texts_do_not_tell_apart_stay_apart(model: Path) -> None:
    labels = np.array([("a" if i % 2 else "a ") for i in range(48)], dtype=object)
    found = classifier(model, steps=1).fit(np.array(TEXTS, dtype=object), labels)
    assert set(found.predict(TEXTS)) <= {"a", "a "}


def test_an_estimator_is_cloned_searched_validated_and_piped(model: Path) -> None:
    estimator = classifier(model, steps=2)
    assert clone(estimator).get_params() == estimator.get_params()
    scores = cross_val_score(estimator, TEXTS, LABELS, cv=2)
    assert scores.shape == (2,)
    pipe = Pipeline([("lower", FunctionTransformer(_lowered)), ("model", estimator)])
    assert pipe.fit(TEXTS, LABELS).predict(TEXTS[:3]).shape == (3,)
    search = GridSearchCV(estimator, {"steps": [1, 2]}, cv=2).fit(TEXTS, LABELS)
    assert search.best_params_["steps"] in (1, 2)
    again = pickle.loads(pickle.dumps(estimator))
    assert again.get_params() == estimator.get_params()
    np.testing.assert_array_equal(again.predict(TEXTS), estimator.predict(TEXTS))


def _lowered(texts: list[str]) -> list[str]:
    return [text.lower() for text in texts]


def test_a_regressor_predicts_numbers(model: Path) -> None:
    targets = LABELS / 2
    found = TextRegressor(model, steps=80, batch_size=8, learning_rate=3e-3, options=DEVICE).fit(TEXTS, targets)
    values = found.predict(TEXTS)
    assert values.shape == (48,)
    assert found.score(TEXTS, targets) > 0.5


@pytest.mark.parametrize(
    ("texts", "labels", "said"),
    [
        ("um texto", [1], "X must be one text an example"),
        (np.zeros((2, 2)), [1, 2], "X must be one text an example"),
        ([1, 2], [1, 2], r"X\[0\] is of type int: each must be a text"),
        (["a", "b"], [1], r"y has the shape \(1,\), and X has 2 texts"),
        (["a", "b"], [1, 1], "y has 1 class: a classifier needs two or more"),
        (["a", "b"], [1, 2], "model= is missing: name the folder of a pretrained model"),
    ],
)
def test_what_an_estimator_cannot_learn_is_an_error(texts: Any, labels: Any, said: str) -> None:
    with pytest.raises(PalavraError, match=said):
        classifier(None).fit(texts, labels)


# The checks of scikit-learn fit arrays of numbers, which are no texts: here each row is spelled as one. What they
# say of numbers themselves (types, NaN, sparse matrices, numbers of features) means nothing to texts and is left out:
# they fail, for an array is not one text an example.


class Spelled:
    """Rows of numbers as texts."""

    def fit(self, X: Any, y: Any) -> Any:
        return super().fit(_spelled(X), y)  # type: ignore[misc]

    def predict(self, X: Any) -> Any:
        return super().predict(_spelled(X))  # type: ignore[misc]


class SpelledClassifier(Spelled, TextClassifier):
    def predict_proba(self, X: Any) -> Any:
        return super().predict_proba(X if isinstance(X, list) else _spelled(X))


class SpelledRegressor(Spelled, TextRegressor):
    pass


def _spelled(X: Any) -> list[str]:
    if isinstance(X, list) and X and isinstance(X[0], str):
        return X
    return [" ".join(f"{REST[int(value) % 8]} {GOOD[int(value * 10) % 4]}" for value in row) for row in np.asarray(X)]


SENSIBLE = [
    checks.check_estimator_tags_renamed,
    checks.check_valid_tag_types,
    checks.check_estimator_repr,
    checks.check_no_attributes_set_in_init,
    checks.check_do_not_raise_errors_in_init_or_set_params,
    checks.check_mixin_order,
    checks.check_parameters_default_constructible,
    checks.check_get_params_invariance,
    checks.check_set_params,
    checks.check_estimators_unfitted,
    checks.check_estimator_cloneable,
]
FITTING = [
    checks.check_estimators_fit_returns_self,
    checks.check_dont_overwrite_parameters,
    checks.check_dict_unchanged,
    checks.check_fit_idempotent,
    checks.check_fit_check_is_fitted,
    checks.check_methods_subset_invariance,
    checks.check_methods_sample_order_invariance,
]


@pytest.mark.parametrize("check", SENSIBLE, ids=lambda check: check.__name__)
@pytest.mark.parametrize("estimator", [TextClassifier(), TextRegressor()], ids=["classifier", "regressor"])
def test_scikit_learn_s_checks_of_parameters_pass(estimator: Any, check: Any) -> None:
    check(type(estimator).__name__, estimator)


@pytest.mark.slow
@pytest.mark.parametrize("check", FITTING, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", [SpelledClassifier, SpelledRegressor])
def test_scikit_learn_s_checks_of_fitting_pass(model: Path, kind: Any, check: Any) -> None:
    check(kind.__name__, kind(model, steps=1, batch_size=8, options=DEVICE))
