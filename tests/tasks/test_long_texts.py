"""Texts longer than the context: what is read of them, and how the predictions of their windows are joined."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.classification import SEVERAL, SPEC
from builders.prediction import model_of
from builders.tasks import batch_of, build, classification_of, inferred, overfit, predict, regression_of, trained
from scipy.special import logit

from palavra.errors import PalavraError
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import DecodeOptions
from palavra.tasks.text_examples import TextExample, encode_texts

TOKENIZER = trained()
CONTEXT = 24


def texts() -> list[TextExample]:
    """Texts of one filler that differ in their last word only, which decides."""
    last = {"a": "harbour", "b": "gato"}
    return [
        TextExample(first=f"{'the old town ' * 12}{last[label]}", second=None, label=(label,), where=f"t:{number}")
        for number, label in enumerate("ab" * 5)
    ]


@pytest.mark.parametrize(
    ("overflow", "windows"), [("head-tail", "mean"), ("window", "mean"), ("window", "max"), ("window", "ends")]
)
def test_a_text_that_its_last_word_decides_is_learned_and_predicted(overflow: Any, windows: Any) -> None:
    examples = texts()
    spec = TaskSpec(kind="classification", multilabel=False, overflow=overflow, windows=windows)
    task = classification_of(spec, ("a", "b"), (10, 10))
    model = build(task, TOKENIZER.vocab_size)
    encoded = task.encoder.encode(examples, TOKENIZER, CONTEXT, False, overflow=overflow)
    overfit(model, task, encoded, 60)
    found = predict(task, examples, encoded, inferred(model, task, batch_of(encoded)))
    assert [one["label"] for one in found] == [one.label[0] for one in examples]
    assert all(one["probability"] > 0.5 for one in found)


def test_of_a_cut_text_a_quarter_is_its_beginning() -> None:
    (whole,) = TOKENIZER.encode_many([texts()[0].first])
    encoded = encode_texts(texts()[:1], TOKENIZER, CONTEXT, False, "head-tail")
    room = CONTEXT - 2
    assert encoded.input_ids[1:-1].tolist() == whole[: room // 4] + whole[-(room - room // 4) :]
    assert encoded.truncated == 1
    short = [replace(texts()[0], first="um gato")]
    assert (
        encode_texts(short, TOKENIZER, CONTEXT, False, "head-tail").input_ids.tolist()
        == encode_texts(short, TOKENIZER, CONTEXT, False, "truncate").input_ids.tolist()
    )
    pair = [replace(texts()[0], second=texts()[1].first)]
    both = encode_texts(pair, TOKENIZER, CONTEXT, True, "head-tail")
    assert both.input_ids[-2] == TOKENIZER.encode("gato")[-1]


def test_windows_are_joined_as_asked() -> None:
    example = replace(texts()[0], first=" ".join(["a"] * 50))
    several = classification_of(replace(SEVERAL, overflow="window"), ("a", "b"), (1, 1))
    single = classification_of(replace(SPEC, multilabel=False, overflow="window"), ("a", "b"), (1, 1))
    encoded = encode_texts([example], TOKENIZER, CONTEXT, False, "window")
    assert encoded.sequences == 3
    p = np.array([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]])
    for task, outputs in ((single, np.log(p)), (several, logit(p))):
        for how, expected in (("mean", p.mean(0)), ("max", p.max(0)), ("ends", (p[0] + p[2]) / 2)):
            if task is single:
                expected = expected / expected.sum()
            options = DecodeOptions(windows=how)  # type: ignore[arg-type]
            found = task.output.probabilities(encoded, (outputs.astype(np.float32),), options)
            np.testing.assert_allclose(found[0], expected, rtol=1e-5)
        for rows, differ in ((outputs, True), (outputs[[0, 2, 2]], False)):
            (said,) = predict(task, [example], encoded, (rows.astype(np.float32),))
            assert said.get("windows_differ", False) == differ
    values = regression_of(TaskSpec(kind="regression"), ["y"], [0.0])
    for how, expected in (("mean", 0.5), ("max", 0.9), ("ends", 0.3)):
        (found,) = predict(values, [example], encoded, (p[:, :1].astype(np.float32),), DecodeOptions(windows=how))  # type: ignore[arg-type]
        assert found["value"] == pytest.approx(expected, abs=1e-6)


def test_a_prediction_says_how_to_join_windows() -> None:
    model = model_of("classification")
    long = " ".join(["old gato"] * 100)
    assert "windows_differ" not in model.predict("gato", overflow="window").to_json()
    for windows in ("mean", "max", "ends"):
        model.predict(long, overflow="window", windows=windows)
    with pytest.raises(PalavraError, match=r"windows= does not apply to overflow truncate; it applies to window"):
        model.predict(long, windows="max")
