"""Baselines without a language model: the same numbers as scikit-learn's own pipelines, in the log, records and report
of every run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.finetuning import Kept, recipe, run, spec
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, r2_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer

from palavra.finetuning import baselines
from palavra.finetuning.baselines import baselines_of, log_baselines
from palavra.report import write_report
from palavra.run_records.finetuning import Baseline, FinetuningEvaluation, SplitScores, TaskScores
from palavra.tasks.multiple_choice.examples import ChoiceExample
from palavra.tasks.registry import KINDS
from palavra.tasks.spec import Columns, TaskSpec
from palavra.tasks.text_examples import TextExample
from palavra.tasks.token_classification.examples import TaggedSentence
from palavra.typed_json import read_json

WORDS = [f"word{number}" for number in range(30)] + ["!", "é", "a"]


def texts(number: int, label: Any, *, seed: int = 0, second: bool = False) -> list[TextExample]:
    """Random texts; `label` is called with the numbers of their words."""
    random = np.random.default_rng(seed)
    found = []
    for index in range(number):
        chosen = random.integers(len(WORDS), size=6)
        first, other = " ".join(WORDS[i] for i in chosen[:4]), " ".join(WORDS[i] for i in chosen[4:])
        where = f"train.csv:{index}"
        found.append(TextExample(first=first, second=other if second else None, label=label(chosen), where=where))
    return found


def split(number: int, label: Any, **options: Any) -> tuple[list[TextExample], list[TextExample]]:
    return texts(number, label, **options), texts(40, label, seed=1, **options)


def scores_of(spec: TaskSpec, train: Sequence[Any], examples: Sequence[Any]) -> dict[str, dict[str, float]]:
    task = KINDS[spec.kind].fit(spec, [*train, *examples], train)
    return {one.name: dict(one.values) for one in baselines_of(task, train, examples)}


def features() -> TfidfVectorizer:
    return TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)


def regression() -> LogisticRegression:
    return LogisticRegression(C=10.0, tol=1e-3)


def of_three(chosen: Any) -> tuple[str]:
    return (("low", "middle", "high")[min(2, int(chosen[0]) // 15)],)


def test_classes_are_those_of_scikit_learn() -> None:
    train, examples = split(200, of_three)
    found = scores_of(TaskSpec(kind="classification", train="t"), train, examples)
    gold = [one.label[0] for one in examples]
    pipeline = make_pipeline(features(), regression()).fit([e.first for e in train], [e.label[0] for e in train])
    chosen = pipeline.predict([one.first for one in examples])
    assert found["TF-IDF with logistic regression"] == pytest.approx(
        {
            "accuracy": accuracy_score(gold, chosen),
            "macro_f1": f1_score(gold, chosen, average="macro"),
            "weighted_f1": f1_score(gold, chosen, average="weighted"),
            "matthews": matthews_corrcoef(gold, chosen),
        }
    )
    labels = [one.label[0] for one in train]
    usual = max(set(labels), key=labels.count)
    assert found["most frequent label"]["accuracy"] == pytest.approx(np.mean([label == usual for label in gold]))
    assert found["TF-IDF with logistic regression"]["accuracy"] > found["most frequent label"]["accuracy"]


def test_the_features_of_two_texts_stand_side_by_side() -> None:
    train, examples = split(200, of_three, second=True)
    columns = Columns(text_a="a", text_b="b")
    found = scores_of(TaskSpec(kind="classification", train="t", columns=columns), train, examples)
    model = features().fit([text for one in train for text in (one.first, one.second)])
    sides = [
        sparse.hstack([model.transform([one.first for one in of]), model.transform([one.second for one in of])])
        for of in (train, examples)
    ]
    chosen = regression().fit(sides[0].tocsr(), [one.label[0] for one in train]).predict(sides[1].tocsr())
    reached = found["TF-IDF with logistic regression"]["accuracy"]
    assert reached == accuracy_score([one.label[0] for one in examples], chosen)


def test_label_sets_are_one_against_the_rest() -> None:
    def labels(chosen: Any) -> tuple[str, ...]:
        return tuple(sorted({f"label{int(i) // 8}" for i in chosen[:2]}))

    train, examples = split(200, labels)
    found = scores_of(TaskSpec(kind="classification", train="t", multilabel=True), train, examples)
    binary = MultiLabelBinarizer().fit([one.label for one in train])
    gold = binary.transform([one.label for one in examples])
    pipeline = make_pipeline(features(), OneVsRestClassifier(regression()))
    pipeline.fit([one.first for one in train], binary.transform([one.label for one in train]))
    chosen = pipeline.predict([one.first for one in examples])
    reached = found["TF-IDF with logistic regression"]
    assert reached["micro_f1"] == pytest.approx(f1_score(gold, chosen, average="micro"))
    usual = np.zeros_like(gold)
    usual[:, binary.transform([one.label for one in train]).sum(0).argmax()] = 1
    assert found["most frequent label"]["micro_f1"] == pytest.approx(f1_score(gold, usual, average="micro"))


def test_a_label_of_all_label_sets_or_of_none_is_not_learned() -> None:
    train = texts(20, lambda chosen: ("always", *(["some"] if chosen[0] > 9 else [])))
    examples = texts(20, lambda chosen: ("always", "never"), seed=1)
    found = scores_of(TaskSpec(kind="classification", train="t", multilabel=True), train, examples)
    assert found["TF-IDF with logistic regression"]["micro_f1"] > 0.5


def test_numbers_are_those_of_scikit_learn() -> None:
    train, examples = split(200, lambda chosen: (float(chosen[:4].sum()), 1e6 * float(chosen[0])))
    columns = Columns(label=("one", "two"))
    found = scores_of(TaskSpec(kind="regression", train="t", columns=columns), train, examples)
    pipeline = make_pipeline(features(), Ridge()).fit([e.first for e in train], [e.label for e in train])
    chosen, gold = pipeline.predict([one.first for one in examples]), np.array([one.label for one in examples])
    reached = found["TF-IDF with ridge regression"]
    assert reached["r2"] == pytest.approx(r2_score(gold, chosen), rel=1e-3)
    correlations = [np.corrcoef(gold[:, target], chosen[:, target])[0, 1] for target in range(2)]
    assert reached["pearson"] == pytest.approx(np.mean(correlations), rel=1e-3)
    assert "pearson" not in found["mean"]
    assert found["mean"]["r2"] == pytest.approx(0, abs=0.1)


def test_many_classes_take_the_nearest_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST_DECISIONS", 500)
    train, examples = split(200, of_three)
    found = scores_of(TaskSpec(kind="classification", train="t"), train, examples)
    model = features()
    known = model.fit_transform([one.first for one in train]).toarray()
    wanted = model.transform([one.first for one in examples]).toarray()
    names = sorted({one.label[0] for one in train})
    of = np.array([one.label[0] for one in train])
    means = np.stack([known[of == name].mean(0) for name in names])
    chosen = (wanted @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)
    right = [names[i] == one.label[0] for i, one in zip(chosen, examples, strict=True)]
    assert list(found) == ["most frequent label", "TF-IDF with the nearest class mean"]
    assert found["TF-IDF with the nearest class mean"]["accuracy"] == pytest.approx(np.mean(right))


def test_label_sets_of_too_many_labels_have_the_most_frequent_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST_DECISIONS", 500)
    train, examples = split(200, of_three)
    found = scores_of(TaskSpec(kind="classification", train="t", multilabel=True), train, examples)
    assert list(found) == ["most frequent label"]


def sentence(words: str, labels: str) -> TaggedSentence:
    text = words.split()
    return TaggedSentence(words=tuple(text), labels=tuple(labels.split()), spans=(), text=words, where="t.conll:1")


def test_words_take_their_most_frequent_label() -> None:
    train = [
        sentence("Ana mora em Faro hoje", "B-PER O O B-LOC O"),
        sentence("Ana viu Faro", "B-PER O O"),
        sentence("Faro dorme", "B-LOC O"),
    ]
    examples = [sentence("Ana e Faro", "B-PER O B-LOC"), sentence("Rui mora em Ana", "B-PER O O B-LOC")]
    found = scores_of(TaskSpec(kind="token-classification", train="t"), train, examples)
    (values,) = found.values()
    # Ana is PER three times, once wrongly; Rui is unknown, so O.
    assert values["token_accuracy"] == pytest.approx(5 / 7)
    assert values["precision"] == pytest.approx(2 / 3)
    assert values["recall"] == pytest.approx(2 / 4)


def test_choices_are_drawn_and_answers_have_no_baseline() -> None:
    examples = [
        ChoiceExample(text="t", choices=("a", "b", "c", "d")[:size], label=0, where=f"t:{size}") for size in (2, 4)
    ]
    assert scores_of(TaskSpec(kind="multiple-choice", train="t"), examples, examples) == {
        "random choice": {"accuracy": pytest.approx(3 / 8)}
    }


@pytest.mark.parametrize("text", ["!", "é", "\u200b", "汉字", " " * 6000 + "word", "_"])
def test_every_text_that_is_not_blank_has_features(text: str) -> None:
    train = [TextExample(first=text, second=None, label=(name,), where="t:1") for name in ("a", "b")]
    found = scores_of(TaskSpec(kind="classification", train="t"), train, train)
    assert found["TF-IDF with logistic regression"]["accuracy"] == 0.5


def test_a_run_says_what_the_texts_give_without_a_model(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    log, out = Kept(), tmp_path / "out"
    run(recipe(pretrained, spec(reviews, test=str(reviews / "test.csv")), train={"steps": 1}), out, log)
    (task,) = read_json(FinetuningEvaluation, out / "evaluation.json").tasks
    assert list(task.baselines) == ["test"]
    better = task.better_baseline("test")
    assert better is not None
    assert better.name == "TF-IDF with logistic regression"
    reached, wanted = task.splits["test"].values["accuracy"], better.values["accuracy"]
    assert any(
        "task, test: accuracy without a language model: most frequent label 0.5" in line
        and f"TF-IDF with logistic regression {wanted:.4f}" in line
        for line in log.said
    )
    (warned,) = [line for line in (out / "train.log").read_text().splitlines() if "is below" in line]
    assert f"accuracy {reached:.4f} is below that of TF-IDF with logistic regression, {wanted:.4f}" in warned
    page = write_report(out).read_text(encoding="utf-8")
    assert "Without a language model, test examples" in page
    assert "On test TF-IDF with logistic regression, without a language model, is better than this model." in page


def test_without_test_examples_the_baselines_are_those_of_validation(
    pretrained: Path, reviews: Path, tmp_path: Path
) -> None:
    run(recipe(pretrained, spec(reviews, "regression"), train={"steps": 1}), tmp_path / "out")
    (task,) = read_json(FinetuningEvaluation, tmp_path / "out" / "evaluation.json").tasks
    assert [one.name for one in task.baselines["valid"]] == ["mean", "TF-IDF with ridge regression"]


def evaluated(reached: float | None, *others: float | None) -> TaskScores:
    def values(score: float | None) -> dict[str, float]:
        return {} if score is None else {"pearson": score}

    scores = SplitScores(main="pearson", values=values(reached), interval=None, intervals={}, details={})
    of = tuple(Baseline(name=f"baseline {number}", values=values(score)) for number, score in enumerate(others))
    return TaskScores(
        name="task", kind="regression", selection_metric="pearson", splits={"test": scores}, baselines={"test": of}
    )


@pytest.mark.parametrize(
    ("reached", "others", "better"),
    [
        (0.5, (0.4, 0.5), None),
        (0.5, (0.6, 0.7, 0.1), "baseline 1"),
        (0.5, (None,), None),
        (None, (None, -0.5), "baseline 1"),
        (None, (None,), None),
        (0.5, (), None),
    ],
)
def test_only_a_higher_baseline_is_better(
    reached: float | None, others: tuple[float | None, ...], better: str | None
) -> None:
    task, log = evaluated(reached, *others), Kept()
    found = task.better_baseline("test")
    assert (found.name if found else None) == better
    log_baselines(FinetuningEvaluation(tasks=(task,)), log)
    assert log.said
