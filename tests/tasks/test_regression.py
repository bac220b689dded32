"""Regression: reading numbers, the squared error and scores."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders.tasks import (
    batch_of,
    build,
    fit,
    from_json,
    gradients,
    inferred,
    overfit,
    predict,
    read,
    score,
    trained,
    values_of,
    with_intervals,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from torch import nn

from palavra.api.evaluate import TaskEvaluation
from palavra.errors import PalavraError
from palavra.inference.predictions import Predictions, ValuePrediction
from palavra.metrics.scores import Scores
from palavra.tasks.spec import Columns, TaskSpec
from palavra.tasks.text_examples import TextExample
from palavra.tokenizer import Tokenizer

SPEC = TaskSpec(kind="regression", train="train.csv")
TWO = replace(SPEC, columns=Columns(label=("stars", "price")))
PAIRS = replace(SPEC, columns=Columns(text_a="one", text_b="other", label=("score",)))
TEXTS = ["the old harbour", "um gato correu pela rua", "peter kept the blue one", "maria sold her boat to john", "a"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


def examples_of(targets: Sequence[Sequence[float]], pair: bool = False) -> list[TextExample]:
    return [
        TextExample(
            first=TEXTS[n % len(TEXTS)],
            second=TEXTS[(n + 1) % len(TEXTS)] if pair else None,
            label=tuple(values),
            where=f"train.csv:{n + 2}",
        )
        for n, values in enumerate(targets)
    ]


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


# Reading


def test_numbers_are_read_with_either_decimal_sign(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", '\ufefftext;label\nbom;3,5\nmau; -2.25 \n"o; que";1e2\nfrio;\u22121\n')
    examples = read(SPEC, source)
    assert [(one.first, one.label) for one in examples] == [
        ("bom", (3.5,)),
        ("mau", (-2.25,)),
        ("o; que", (100.0,)),
        ("frio", (-1.0,)),
    ]


def test_several_targets_and_pairs(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", "text,stars,price\na,5,1.5\nb,4,2\n")
    examples = read(TWO, source)
    task = fit(TWO, examples)
    assert [one.label for one in examples] == [(5.0, 1.5), (4.0, 2.0)]
    assert (task.output.names, task.output.mean) == (("stars", "price"), (4.5, 1.75))
    assert task.encoder.summary(examples)["targets"]["price"] == {"lowest": 1.5, "mean": 1.75, "highest": 2.0}
    pairs = read(PAIRS, write(tmp_path / "p.csv", "one,other,score\na,b,1\nc,d,2\n"))
    assert [(one.first, one.second, one.label) for one in pairs] == [("a", "b", (1.0,)), ("c", "d", (2.0,))]


def test_one_value_everywhere_is_an_error() -> None:
    with pytest.raises(PalavraError, match=r"^train\.csv: price is 2 everywhere, so there is nothing to learn[^\n]*$"):
        fit(TWO, examples_of([(1, 2), (3, 2)]))


# The loss


def test_loss_and_gradient_are_torchs_mean_squared_error(tokenizer: Tokenizer) -> None:
    examples = examples_of([(1.0, 2.0), (-3.0, 0.5), (0.0, 4.0)])
    task = fit(TWO, examples)
    output = nn.Linear(5, 2)
    x = torch.randn(3, 5, requires_grad=True)
    batch = batch_of(task.encoder.encode(examples, tokenizer, 32, False))
    assert batch.labels.dtype == torch.float32
    loss = task.output.loss(output, x, batch)
    assert loss.count == 3
    targets = np.array([one.label for one in examples])
    standardized = (targets - targets.mean(0)) / targets.std(0)
    expected = F.mse_loss(output(x), torch.from_numpy(standardized.astype(np.float32)))
    torch.testing.assert_close(loss.mean, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, x, retain_graph=True)[0] for one in (loss.mean, expected)))


@settings(max_examples=6)
@given(cuts=st.sets(st.integers(1, 5)))
def test_any_split_of_a_batch_gives_the_same_gradient(tokenizer: Tokenizer, cuts: set[int]) -> None:
    examples = examples_of([(float(n % 4), n / 2) for n in range(6)])
    task = fit(TWO, examples)
    model = build(task, tokenizer.vocab_size)
    encoded = task.encoder.encode(examples, tokenizer, 64, True)
    found = [gradients(model, task, encoded, bounds) for bounds in ([0, 6], [0, *sorted(cuts), 6])]
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-5)


def test_a_new_output_guesses_the_mean(tokenizer: Tokenizer) -> None:
    examples = examples_of([(100.0, -3.0), (300.0, -5.0)])
    task = fit(TWO, examples)
    nothing = np.zeros((2, 2), dtype=np.float32)
    assert (
        values_of(task, examples, task.encoder.encode(examples, tokenizer, 32, False), (nothing,)).tolist()
        == [[200, -4]] * 2
    )


# Predictions


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_few_examples_are_learned_by_heart(tokenizer: Tokenizer, family: str, pair: bool) -> None:
    examples = examples_of([(1.0, 1.0), (2.0, -1.0), (0.5, 0.0), (-1.0, 0.5)], pair)
    task = fit(TWO, examples)
    model = build(task, tokenizer.vocab_size, family)
    encoded = task.encoder.encode(examples, tokenizer, 64, True)
    assert (encoded.segment_ids is not None) is pair
    assert overfit(model, task, encoded, 200) < 0.05
    found = inferred(model, task, batch_of(encoded))
    predictions = predict(task, examples, encoded, found)
    values = values_of(task, examples, encoded, found)
    np.testing.assert_allclose(
        values, found[0] * np.array(task.output.deviation) + np.array(task.output.mean), rtol=1e-6
    )
    np.testing.assert_allclose([list(one["value"].values()) for one in predictions], values, rtol=1e-6)
    assert list(predictions[0]["value"]) == ["stars", "price"]
    assert score(task, examples, encoded, found).values["pearson"] > 0.95


def test_scores_are_scipys(tokenizer: Tokenizer) -> None:
    random = np.random.default_rng(0)
    targets = random.normal(size=(9, 1))
    values = (targets + random.normal(size=(9, 1))).astype(np.float32)
    examples = examples_of(targets.tolist())
    task = fit(SPEC, examples)
    said = ((values - np.array(task.output.mean)) / np.array(task.output.deviation)).astype(np.float32)
    scores = score(task, examples, task.encoder.encode(examples, tokenizer, 32, False), (said,))
    assert scores.main == "pearson"
    assert set(scores.values) == set(task.scorer.metrics) == with_intervals(scores)
    assert scores.intervals["pearson"].low < scores.values["pearson"] < scores.intervals["pearson"].high
    assert scores.values["pearson"] == pytest.approx(pearsonr(targets[:, 0], values[:, 0])[0])
    assert scores.values["spearman"] == pytest.approx(spearmanr(targets[:, 0], values[:, 0])[0])
    mse = float(np.square(targets - values).mean())
    assert scores.values["mse"] == pytest.approx(mse)
    assert scores.values["loss"] == pytest.approx(mse / targets.var())
    worst = int(np.abs(targets - values).argmax())
    assert scores.details["errors"][0]["where"] == examples[worst].where
    json.dumps(dict(scores.details), allow_nan=False)


@pytest.mark.parametrize("targets", [[(1.0,), (1.0,)], [(1.0,), (2.0,)], [(1.0,)]])
def test_where_there_is_no_correlation_none_was_found(tokenizer: Tokenizer, targets: list[tuple[float]]) -> None:
    task = fit(SPEC, examples_of([(1.0,), (2.0,)]))
    examples = examples_of(targets)
    encoded = task.encoder.encode(examples, tokenizer, 32, False)
    scores = score(task, examples, encoded, (np.full((len(targets), 1), 1.5, dtype=np.float32),))
    assert {"pearson", "spearman"}.isdisjoint(scores.values)
    assert with_intervals(scores) <= {"mse", "rmse", "mae", "r2", "loss"}
    assert len(scores.statistics) == 2  # nothing is ranked
    assert all(np.isfinite(value) for value in scores.values.values())


def test_windows_are_averaged(tokenizer: Tokenizer) -> None:
    long = replace(examples_of([(1.0,)])[0], first=" ".join(TEXTS))
    task = fit(SPEC, examples_of([(1.0,), (2.0,)]))
    encoded = task.encoder.encode([long], tokenizer, 12, False, overflow="window")
    values = np.arange(encoded.sequences, dtype=np.float32)[:, None]
    assert encoded.sequences > 2
    assert encoded.labels.tolist() == [[-1.0]] * encoded.sequences
    assert predict(task, [long], encoded, (values,)) == [{"value": pytest.approx(1.5 + 0.5 * values.mean())}]


def test_labels_survive_json() -> None:
    task = fit(TWO, examples_of([(1.0, 2.0), (3.0, 4.5)]))
    again = from_json(task.spec, json.loads(json.dumps(task.output.to_json())))
    assert (again.output, again.encoder, again.scorer) == (task.output, task.encoder, task.scorer)


@pytest.mark.parametrize(
    ("numbers", "meant"),
    [
        (["0,5", "1,000", "3,125"], [0.5, 1.0, 3.125]),  # the comma of another number is surely a decimal one
        (["1.234", "3"], [1.234, 3.0]),
        (["1.234", "3.5", "2e3"], [1.234, 3.5, 2000.0]),
        (["0,5", "1.234"], ":3: label is '1.234', where the separator may be decimal or of thousands"),
        (["1.100", "x", "0,75"], ":3: label is 'x', not a number"),
        (["1,234", "3.5"], ":2: label is '1,234', where the separator may be decimal or of thousands"),
        (["0,5", "3.5", "1,234"], ":4: label is '1,234', where the separator may be decimal or of thousands"),
        (["1.234,5", "2"], ":2: label is '1.234,5', not a number"),
    ],
)
def test_what_a_sign_means_the_other_numbers_tell(tmp_path: Path, numbers: list[str], meant: Any) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text;label\n" + "".join(f"a;{number}\n" for number in numbers), encoding="utf-8")
    if isinstance(meant, str):
        with pytest.raises(PalavraError) as caught:
            read(TaskSpec(kind="regression"), str(path))
        assert meant in str(caught.value)
    else:
        found = read(TaskSpec(kind="regression"), str(path))
        assert [one.label for one in found] == [(number,) for number in meant]


def test_an_evaluation_tells_each_of_several_targets_in_its_own_units(tmp_path: Path) -> None:
    rows = [
        {"name": "stars", "mse": 4.0, "rmse": 2.0, "r2": None},
        {"name": "price", "mse": 9.0, "rmse": 3.0, "r2": 0.5},
    ]
    scores = Scores(main="pearson", values={"mse": 6.5}, examples=2, details={"per_target": rows}, statistics=())
    lines = TaskEvaluation(task="t", scores=scores, predictions=Predictions([ValuePrediction(value=1.0)] * 2)).lines()
    assert [line.split() for line in lines[1:3]] == [
        ["stars", "mse", "4.0000,", "rmse", "2.0000"], ["price", "mse", "9.0000,", "rmse", "3.0000,", "r2", "0.5000"],
    ]  # fmt: skip
    assert lines[3:] == ["means of 2 targets:", f"{'mse':<19} 6.5000"]
    alone = replace(scores, details={"per_target": rows[:1]})
    one = Predictions([ValuePrediction(value=1.0)])
    assert len(TaskEvaluation(task="t", scores=alone, predictions=one).lines()) == 2
