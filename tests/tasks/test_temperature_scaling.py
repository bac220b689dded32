"""Temperatures: one for label sets too, and part of the saved output layer, so that `transformers` has it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.classification import SEVERAL, SPEC, examples_of
from builders.task_directories import SEVERAL as SETS
from builders.task_directories import SINGLE, TEXTS, build, save, theirs, with_head
from builders.tasks import calibrated, choices_of, classification_of, fit, from_json, predict, score, trained, words_of
from scipy.special import expit, log_softmax, softmax

from palavra.inference.finetuned import FineTunedModel
from palavra.inference.predictions import Predictions
from palavra.metrics.calibration import PRIOR_DEVIATION, fit_label_temperature
from palavra.model.compute import choose_compute
from palavra.model.config import OutputConfig
from palavra.model.task_outputs.build import is_linear, rescaled
from palavra.model.task_outputs.layers import Softmax
from palavra.tasks.multiple_choice.examples import ChoiceExample
from palavra.tasks.spec import TaskSpec, TokenClassificationOptions
from palavra.tasks.task import DecodeOptions
from palavra.tasks.token_classification.examples import TaggedSentence
from palavra.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


def at(task: Any, temperature: float) -> Any:
    return classification_of(task.spec, task.output.labels, task.output.counts, temperature)


def sentence_of(words: tuple[str, ...], labels: list[str]) -> TaggedSentence:
    starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])]).tolist()
    spans = tuple((start, start + len(word)) for start, word in zip(starts, words, strict=True))
    return TaggedSentence(words=words, labels=tuple(labels), where="t:1", text=" ".join(words), spans=spans)


def best(predictions: Predictions) -> list[dict[str, float]]:
    return [{one["label"]: one["probability"] for one in of["best"]} for of in predictions.to_json()]


@pytest.mark.parametrize("task", [SINGLE, SETS], ids=["single", "several"])
def test_transformers_gives_probabilities_at_the_fitted_temperature(
    tokenizer: Tokenizer, tmp_path: Path, task: Any
) -> None:
    warm = at(task, 2.5)
    model = build(tokenizer, {"task": warm})
    compute = choose_compute("cpu", "float32", "off")
    live = best(FineTunedModel(model, {"task": warm}, tokenizer, compute).predict(TEXTS))
    cold = best(FineTunedModel(model, {"task": task}, tokenizer, compute).predict(TEXTS))
    assert save(model, {"task": warm}, tokenizer, tmp_path)
    logits = theirs(tmp_path, warm)[1].numpy()
    probabilities = expit(logits) if task is SETS else softmax(logits, 1)
    loaded = FineTunedModel.load(tmp_path, device="cpu")
    again = best(loaded.predict(TEXTS))
    for number, row in enumerate(probabilities):
        for label, probability in zip(task.output.labels, row.tolist(), strict=True):
            assert again[number][label] == pytest.approx(probability, abs=1e-5)
            assert live[number][label] == pytest.approx(probability, abs=1e-5)
    assert max(abs(one[label] - other[label]) for one, other in zip(live, cold, strict=True) for label in one) > 0.01
    assert loaded.task()[1].output.to_json()["temperature"] == 1.0


@pytest.mark.parametrize("name", ["softmax", "sampled", "hierarchical"])
def test_a_temperature_is_applied_once_after_loading(tokenizer: Tokenizer, tmp_path: Path, name: Any) -> None:
    warm = at(with_head(SINGLE, SINGLE.spec.head, OutputConfig(name=name)), 0.4)
    model = build(tokenizer, {"task": warm})
    live = best(
        FineTunedModel(model, {"task": warm}, tokenizer, choose_compute("cpu", "float32", "off")).predict(TEXTS)
    )
    save(model, {"task": warm}, tokenizer, tmp_path)
    loaded = FineTunedModel.load(tmp_path, device="cpu")
    for one, other in zip(live, best(loaded.predict(TEXTS)), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert loaded.task()[1].output.to_json()["temperature"] == (1.0 if is_linear(model.head("task").output) else 0.4)


def test_only_linear_outputs_are_rescaled() -> None:
    linear = torch.nn.Linear(4, 3)
    x, scale, shift = torch.randn(5, 4), torch.tensor([2.0, 0.5, 1e4]), torch.tensor([1.0, -3.0, 1e5])
    torch.testing.assert_close(rescaled(linear, scale, shift)(x), linear(x) * scale + shift)
    task = with_head(SINGLE, SINGLE.spec.head, OutputConfig(name="hierarchical"))
    with pytest.raises(ValueError, match="Hierarchical are not those of one linear layer"):
        rescaled(task.output.build(4), scale, shift)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_of_label_sets_is_found_again(temperature: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 5)) * 2
    labels = random.random(logits.shape) < expit(logits)
    assert fit_label_temperature((logits * temperature).astype(np.float32), labels) == pytest.approx(
        temperature, rel=0.05
    )
    with pytest.raises(ValueError, match="as many labels"):
        fit_label_temperature(logits, labels[:, :4])


def test_a_temperature_is_fitted_for_label_sets(tokenizer: Tokenizer) -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=(60, 2)) * 2
    chosen = random.random(logits.shape) < expit(logits)
    examples = examples_of([tuple(name for name, own in zip("ab", row, strict=True) if own) for row in chosen])
    encoded = fit(SEVERAL, examples).encoder.encode(examples, tokenizer, 32, False)
    found = ((5 * logits).astype(np.float32),)
    task = fit(replace(SEVERAL, temperature=True), examples)
    fitted, scores = calibrated(task, examples, encoded, found)
    assert 3 < fitted.output.temperature < 9
    assert scores.details["fitted"][0]["scored"] == "cross-fitted"
    assert scores.values["loss"] < score(task, examples, encoded, found).values["loss"]
    assert scores.values["micro_f1"] == score(task, examples, encoded, found).values["micro_f1"]
    np.testing.assert_allclose(
        fitted.output.probabilities(encoded, found), expit(5 * logits / fitted.output.temperature), rtol=1e-4
    )
    # Found out from the data, as well as said.
    plain = fit(replace(SPEC, temperature=True), examples)
    assert calibrated(plain, examples, encoded, found)[0].output.to_json() == fitted.output.to_json()


def test_texts_in_windows_have_the_temperature_of_their_averages(tokenizer: Tokenizer) -> None:
    """One that fits what is scored, the mean over windows, not the windows one by one."""
    random = np.random.default_rng(0)
    labels = ["ab"[i] for i in random.integers(2, size=40)]
    examples = [replace(one, first=" ".join(TEXTS * (1 + n % 4))) for n, one in enumerate(examples_of(labels))]
    task = fit(replace(SPEC, temperature=True, overflow="window"), examples)
    encoded = task.encoder.encode(examples, tokenizer, 24, False, overflow="window")
    assert encoded.sequences > 60
    right = np.array([task.output.labels.index(labels[n]) for n in encoded.example])
    logits = random.normal(size=(encoded.sequences, 2)) * 4
    logits[np.arange(len(logits)), right] += 2
    found = (logits.astype(np.float32),)
    fitted, scores = calibrated(task, examples, encoded, found)

    def loss(temperature: float) -> float:
        return score(task, examples, encoded, found, DecodeOptions(temperature=temperature)).values["loss"]

    grid = np.exp(np.linspace(-3, 3, 121))
    prior = (np.log(grid) / PRIOR_DEVIATION) ** 2 / 2
    losses = np.array([loss(one) for one in grid])
    assert fitted.output.temperature == pytest.approx(grid[np.argmin(40 * losses + prior)], rel=0.06)
    assert scores.details["fitted"][0]["scored"] == "cross-fitted"
    sets = fit(replace(SEVERAL, temperature=True), examples_of([(one,) for one in labels]))
    labelled = [replace(one, label=(label,)) for one, label in zip(examples, labels, strict=True)]
    both = sets.encoder.encode(labelled, tokenizer, 24, False, overflow="window")
    warm = sets.output.best_temperature(both, found, np.ones(40, dtype=bool))
    losses = np.array(
        [score(sets, examples, both, found, DecodeOptions(temperature=one)).values["loss"] for one in grid]
    )
    assert warm == pytest.approx(grid[np.argmin(40 * losses + prior)], rel=0.06)


# Of words, and of choices


def drawn_labels(log_p: np.ndarray, seed: int) -> list[int]:
    random = np.random.default_rng(seed)
    return [int(random.choice(len(row), p=np.exp(row) / np.exp(row).sum())) for row in log_p]


@pytest.mark.parametrize("subwords", ["first", "all"])
def test_words_have_the_temperature_that_fits_them(subwords: Any) -> None:
    """Three times too sure: the temperature says so, and choices stay what they were."""
    random = np.random.default_rng(0)
    classes = ("O", "B-LOC", "I-LOC")
    spec = TaskSpec(
        kind="token-classification",
        temperature=True,
        token_classification=TokenClassificationOptions(subwords=subwords, constrained=False),
    )
    task = words_of(spec, classes, [9, 3, 3], "bio")
    words = [tuple(f"{'ab'[n % 2]}o" for n in range(random.integers(1, 9))) for _ in range(60)]
    tagged = [sentence_of(of, ["O"] * len(of)) for of in words]
    logits = log_softmax(random.normal(size=(sum(map(len, words)), 3)) * 1.5, axis=1)
    labels, place = drawn_labels(logits, 1), 0
    for number, of in enumerate(words):
        tagged[number] = sentence_of(of, [classes[k] for k in labels[place : place + len(of)]])
        place += len(of)
    encoded = task.encoder.encode(tagged, trained(), 32, True)
    word = np.cumsum(encoded.row_starts) - 1 if encoded.row_starts is not None else np.arange(len(logits))
    found = (log_softmax(3 * logits[word], axis=1).astype(np.float32),)
    fitted, scores = calibrated(task, tagged, encoded, found)
    assert fitted.output.temperature == pytest.approx(3, rel=0.35)
    assert scores.details["fitted"][0]["scored"] == "cross-fitted"
    before = score(task, tagged, encoded, found)
    assert scores.values["loss"] < before.values["loss"]
    assert scores.values["calibration_error"] < before.values["calibration_error"]
    assert scores.values["f1"] == before.values["f1"]
    said = predict(fitted, tagged, encoded, found)
    expected = softmax(found[0] / fitted.output.temperature, axis=1).max(1)
    starts = encoded.row_starts if encoded.row_starts is not None else slice(None)
    np.testing.assert_allclose(np.concatenate([one["probabilities"] for one in said]), expected[starts], rtol=1e-4)
    again = from_json(fitted.spec, fitted.output.to_json())
    assert (again.output, again.encoder, again.scorer) == (fitted.output, fitted.encoder, fitted.scorer)


def test_choices_have_the_temperature_that_fits_them() -> None:
    random = np.random.default_rng(0)
    task = choices_of(TaskSpec(kind="multiple-choice", temperature=True))
    sizes = random.integers(2, 5, size=80)
    logits = [random.normal(size=size) * 1.5 for size in sizes]
    examples = [
        ChoiceExample(text="o gato", choices=("a",) * len(row), label=drawn_labels(row[None], n)[0], where=f"c:{n}")
        for n, row in enumerate(logits)
    ]
    encoded = task.encoder.encode(examples, trained(), 32, True)
    found = ((3 * np.concatenate(logits)[:, None]).astype(np.float32),)
    fitted, scores = calibrated(task, examples, encoded, found)
    assert fitted.output.temperature == pytest.approx(3, rel=0.35)
    assert scores.details["fitted"][0]["scored"] == "cross-fitted"
    assert scores.values["loss"] < score(task, examples, encoded, found).values["loss"]
    for row, said in zip(logits, predict(fitted, examples, encoded, found), strict=True):
        np.testing.assert_allclose(said["probabilities"], softmax(3 * row / fitted.output.temperature), rtol=1e-4)
    assert from_json(fitted.spec, fitted.output.to_json()).output.temperature == fitted.output.temperature


def test_a_linear_layer_of_words_and_of_choices_takes_the_temperature_in() -> None:
    words = words_of(TaskSpec(kind="token-classification"), ("O", "B-LOC", "I-LOC"), [9, 3, 3], "bio", 2.5)
    for warm in (words, choices_of(TaskSpec(kind="multiple-choice"), 2.5)):
        output = warm.output.build(4)
        task, fold_scaling = warm.output.fold_scaling(output)
        assert task.temperature == 1.0
        linear, divided = (of.linear if isinstance(of, Softmax) else of for of in (output, fold_scaling))
        x = torch.randn(5, 4)
        torch.testing.assert_close(divided(x), linear(x) / 2.5)
    with pytest.raises(ValueError, match="a temperature of 0"):
        choices_of(TaskSpec(kind="multiple-choice"), 0.0)


def test_logits_that_mean_nothing_keep_their_temperature() -> None:
    """Thousands of words whose logits are far too large, at random: no temperature in the searched range is enough."""
    random = np.random.default_rng(0)
    task = choices_of(TaskSpec(kind="multiple-choice", temperature=True))
    examples = [
        ChoiceExample(text="o gato", choices=("a", "b"), label=int(random.integers(2)), where=f"c:{n}")
        for n in range(40)
    ]
    encoded = task.encoder.encode(examples, trained(), 32, True)
    found = ((1e5 * random.normal(size=(80, 1))).astype(np.float32),)
    fitted, scores = calibrated(task, examples, encoded, found)
    assert fitted.output.temperature == 1.0
    assert [one["scored"] for one in fitted.fitted] == ["not-fitted"]
    assert "the temperature stays 1: the best one is 100 or beyond" in scores.details["warnings"][0]
