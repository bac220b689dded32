"""Baselines: what the same training examples give without a language model, to compare a run with.

Each kind of task has one that does not read the texts (the most frequent label, the mean, a random choice) and one that
knows words only: TF-IDF features of words and punctuation marks with logistic regression (one per label for label
sets), with the nearest class mean for many classes, with ridge regression for numbers; of words, the most frequent
label of each in training. They take about a second, so some of the training examples and features may have to do.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from scipy import sparse

from palavra.finetuning.splits import Split
from palavra.log import Log
from palavra.metrics.classification import class_statistics, label_set_statistics
from palavra.metrics.regression import regression_statistics
from palavra.metrics.resampled import BoolArray, Integers, Statistic, means, point
from palavra.run_records.finetuning import Baseline, FinetuningEvaluation
from palavra.tasks.multiple_choice.examples import ChoiceExample
from palavra.tasks.regression.encoding import targets_of
from palavra.tasks.sequence_classification.encoding import LabelEncoder
from palavra.tasks.task import AnyTask
from palavra.tasks.text_examples import TextExample
from palavra.tasks.token_classification.examples import TaggedSentence
from palavra.tasks.token_classification.output import TagOutput
from palavra.tasks.token_classification.scores import TagScorer
from palavra.tasks.token_classification.tags import normalized

MOST_EXAMPLES = 10_000  # training examples of the baselines that read texts: the first ones
MOST_CHARACTERS = 5_000  # of a text
MOST_WORDS = 50_000  # features
# Logistic regression on more, the examples times the classes, takes seconds: class means instead, of label sets none.
MOST_DECISIONS = 1_000_000
WORDS = r"\w+|[^\w\s]"
INVERSE_PENALTY = 10.0  # of logistic regression
PENALTY = 1.0  # of ridge regression


def with_baselines(evaluation: FinetuningEvaluation, splits: Sequence[Split]) -> FinetuningEvaluation:
    """Return the evaluation of a run with the baselines of each task, on the test examples or else on the validation
    examples."""
    of = {split.task.spec.name: split for split in splits}
    tasks = []
    for task in evaluation.tasks:
        split, scored = of[task.name], [name for name in ("test", "valid") if name in task.splits][:1]
        found = {
            name: baselines_of(split.task, split.train, split.task.in_scope(getattr(split, name))) for name in scored
        }
        tasks.append(replace(task, baselines={name: baselines for name, baselines in found.items() if baselines}))
    return replace(evaluation, tasks=tuple(tasks))


def log_baselines(evaluation: FinetuningEvaluation, log: Log) -> None:
    """Log the main score of each baseline, and warn of a model that is below one."""
    for task in evaluation.tasks:
        for name, baselines in task.baselines.items():
            main = task.splits[name].main

            def written(values: Mapping[str, float], main: str = main) -> str:
                return f"{values[main]:.4f}" if main in values else "not defined"

            said = ", ".join(f"{one.name} {written(one.values)}" for one in baselines)
            log.line(f"{task.name}, {name}: {main} without a language model: {said}")
            if better := task.better_baseline(name):
                log.warn(
                    f"{task.name}, {name}: {main} {written(task.splits[name].values)} is below that of "
                    f"{better.name}, {written(better.values)}: train for more steps or at another rate, and check "
                    "that the texts tell the labels"
                )


def baselines_of(task: AnyTask, train: Sequence[Any], examples: Sequence[Any]) -> tuple[Baseline, ...]:
    """Return the scores of the baselines of a task, fitted on the training examples, on labelled `examples`. Kinds
    without a baseline have none."""
    kind = task.spec.kind
    if kind == "multiple-choice":
        return (_random_choice(examples),)
    if kind == "token-classification":
        return (_word_labels(task, train, examples),)
    if kind == "regression":
        return tuple(_regression(train, examples))
    if kind == "classification":
        return tuple(_label_sets(task, train, examples) if task.spec.multilabel else _classes(train, examples))
    return ()


def _baseline(name: str, statistics: Sequence[Statistic], examples: Sequence[Any]) -> Baseline:
    points = [point(one, len(examples)) for one in statistics]
    return Baseline(name=name, values={key: value for of in points for key, value in of.items()})


def _random_choice(examples: Sequence[ChoiceExample]) -> Baseline:
    chances = [1 / len(example.choices) for example in examples]
    return _baseline("random choice", [means({"accuracy": chances})], examples)


def _word_labels(task: AnyTask, train: Sequence[TaggedSentence], examples: Sequence[TaggedSentence]) -> Baseline:
    """Give each word its most frequent label in training, and words that training lacks the most frequent one."""
    output, scorer = task.output, task.scorer
    assert isinstance(output, TagOutput)
    assert isinstance(scorer, TagScorer)
    scheme, number = output.scheme, {label: index for index, label in enumerate(output.labels)}
    of_word: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example in train:
        for word, label in zip(example.words, normalized(example, scheme), strict=True):
            of_word[word][label] += 1
    usual_of = {word: counts.most_common(1)[0][0] for word, counts in of_word.items()}
    usual = Counter(chain.from_iterable(counts.elements() for counts in of_word.values())).most_common(1)[0][0]
    words = chain.from_iterable(example.words for example in examples)
    chosen = np.array([number[usual_of.get(word, usual)] for word in words], dtype=np.int64)
    gold = np.array([number[label] for example in examples for label in normalized(example, scheme)], dtype=np.int64)
    sizes = np.array([len(example.words) for example in examples], dtype=np.int64)
    statistics, _ = scorer.measured(examples, gold, chosen, sizes)
    return _baseline("most frequent label of each word", statistics, examples)


def _regression(train: Sequence[TextExample], examples: Sequence[TextExample]) -> Iterator[Baseline]:
    from sklearn.linear_model import Ridge

    gold, known = targets_of(examples), targets_of(train)
    yield _baseline("mean", [regression_statistics(gold, np.broadcast_to(known.mean(0), gold.shape))], examples)
    features, wanted = _features(train[:MOST_EXAMPLES], examples)
    found = Ridge(alpha=PENALTY).fit(features, known[:MOST_EXAMPLES]).predict(wanted).reshape(gold.shape)
    yield _baseline("TF-IDF with ridge regression", [regression_statistics(gold, found)], examples)


def _classes(train: Sequence[TextExample], examples: Sequence[TextExample]) -> Iterator[Baseline]:
    names, numbers = np.unique([example.label[0] for example in (*train, *examples)], return_inverse=True)
    known, gold = numbers[: len(train)], numbers[len(train) :]
    usual = np.full(len(gold), np.bincount(known).argmax())
    yield _baseline("most frequent label", [class_statistics(gold, usual)], examples)
    known = known[:MOST_EXAMPLES]
    features, wanted = _features(train[:MOST_EXAMPLES], examples)
    if len(known) * len(names) > MOST_DECISIONS:
        found = _nearest_class(features, known, wanted)
        yield _baseline("TF-IDF with the nearest class mean", [class_statistics(gold, found)], examples)
    elif len(np.unique(known)) > 1:
        found = _logistic_regression(features, known, wanted)
        yield _baseline("TF-IDF with logistic regression", [class_statistics(gold, found)], examples)


def _label_sets(task: AnyTask, train: Sequence[TextExample], examples: Sequence[TextExample]) -> Iterator[Baseline]:
    encoder = task.encoder
    assert isinstance(encoder, LabelEncoder)
    known, gold = (encoder.targets(of).astype(np.bool_) for of in (train, examples))
    usual = np.zeros(gold.shape, dtype=np.bool_)
    usual[:, known.sum(0).argmax()] = True
    yield _baseline("most frequent label", [label_set_statistics(gold, usual)], examples)
    known = known[:MOST_EXAMPLES]
    if known.size > MOST_DECISIONS:
        return
    features, wanted = _features(train[:MOST_EXAMPLES], examples)
    found = np.zeros(gold.shape, dtype=np.bool_)
    found[:, known.all(0)] = True
    for label in np.flatnonzero(known.any(0) & ~known.all(0)).tolist():
        found[:, label] = _logistic_regression(features, known[:, label], wanted)
    yield _baseline("TF-IDF with logistic regression", [label_set_statistics(gold, found)], examples)


def _logistic_regression(features: sparse.csr_array, known: Integers | BoolArray, wanted: sparse.csr_array) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=INVERSE_PENALTY, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after the default number of iterations it is good enough
        return model.fit(features, known).predict(wanted)


def _nearest_class(features: sparse.csr_array, known: Integers, wanted: sparse.csr_array) -> Integers:
    """Return the class whose mean features have the highest cosine with each row, the lowest number of equal ones."""
    from sklearn.preprocessing import normalize

    places = np.ones(len(known)), (known, np.arange(len(known)))
    classes = normalize(sparse.csr_array(places, shape=(int(known.max()) + 1, len(known))) @ features)
    # A block of rows at a time holds at most as many numbers as logistic regression decides.
    rows = max(1, MOST_DECISIONS // classes.shape[0])
    starts = range(0, wanted.shape[0], rows)
    return np.concatenate([(wanted[start : start + rows] @ classes.T).toarray().argmax(1) for start in starts])


def _features(train: Sequence[TextExample], examples: Sequence[TextExample]) -> tuple[Any, Any]:
    """Return the TF-IDF features of training examples and of others, sparse; those of two texts stand side by side."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    model = TfidfVectorizer(token_pattern=WORDS, sublinear_tf=True, max_features=MOST_WORDS)

    def texts(of: Sequence[TextExample]) -> list[list[str]]:
        sides = [[example.first for example in of], [example.second for example in of if example.second is not None]]
        return [[text.strip()[:MOST_CHARACTERS] for text in side] for side in sides if side]

    known, wanted = texts(train), texts(examples)
    model.fit(chain.from_iterable(known))
    made = [sparse.csr_array(sparse.hstack([model.transform(side) for side in of])) for of in (known, wanted)]
    return made[0], made[1]
