"""Multiple choice: labels in every form, ragged numbers of choices, and learning."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from builders.models import scramble
from builders.tasks import (
    batch_of,
    build,
    choices_of,
    fit,
    from_json,
    inferred,
    load_theirs,
    loss_of,
    overfit,
    predict,
    read,
    score,
    trained,
    with_intervals,
)
from hypothesis import given
from hypothesis import strategies as st

from palavra.data.packing import Cursor
from palavra.errors import PalavraError
from palavra.tasks.encoded_examples import EncodedExamples, offsets_of
from palavra.tasks.multiple_choice.examples import ChoiceExample
from palavra.tasks.sampling import BatchSampler
from palavra.tasks.spec import Columns, TaskSpec
from palavra.tasks.text_examples import text_columns

transformers.utils.logging.set_verbosity_error()

TOKENIZER = trained()
SPEC = TaskSpec(kind="multiple-choice")
TASK = choices_of(SPEC)


def example(text: str, *choices: str, label: int | None) -> ChoiceExample:
    return ChoiceExample(text=text, choices=choices, label=label, where="c.json:1")


EXAMPLES = [
    example("the boat was red.", "it was blue", "it was red", label=1),
    example("um gato correu.", "a menina", "o gato", "a rua", "avó", "john", label=1),
    example("maria sold her boat.", "maria", "peter", "john", label=0),
    example("the harbour was built in 1834.", "1834", "300", "a year later", "town", label=0),
    example("peter kept the blue one.", "red", "peter", label=1),
    example("john paid 300 coins.", "peter", "maria", "john", "the town", "gato", label=2),
    example("the lighthouse is beside it.", "beside", "before", "later", label=0),
    example("a menina não viu.", "correu", "viu", "não viu", "kept", label=2),
]


def encode(examples: list[ChoiceExample] = EXAMPLES, context: int = 64) -> EncodedExamples:
    encoded: EncodedExamples = TASK.encoder.encode(examples, TOKENIZER, context, True)
    return encoded


# Encoding


def test_each_choice_is_a_sequence_behind_the_text() -> None:
    features = encode()
    assert features.segment_ids is not None
    tokens = offsets_of(features.lengths)
    place = 0
    for number, one in enumerate(EXAMPLES):
        for choice in one.choices:
            part = slice(tokens[place], tokens[place + 1])
            text, own = TOKENIZER.encode(one.text), TOKENIZER.encode(choice)
            expected = [TOKENIZER.cls_id, *text, TOKENIZER.sep_id, *own, TOKENIZER.sep_id]
            assert features.input_ids[part].tolist() == expected
            assert features.segment_ids[part].tolist() == [0] * (len(text) + 2) + [1] * (len(own) + 1)
            assert features.example[place] == number
            place += 1
    assert place == features.sequences
    assert features.truncated == 0
    assert features.labels.tolist() == [[one.label, len(one.choices)] for one in EXAMPLES]
    assert TASK.encoder.encode(EXAMPLES, TOKENIZER, 64, False).segment_ids is None


@given(context=st.integers(5, 40))
def test_too_long_texts_are_cut_and_their_examples_counted(context: int) -> None:
    features = encode(context=context)
    assert features.lengths.max() <= context
    whole = encode().lengths > context
    assert features.truncated == len(set(encode().example[whole].tolist()))


# The model


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_packed_choices_score_as_alone(family: str) -> None:
    features = TASK.encoder.encode(EXAMPLES, TOKENIZER, 64, family == "bert")
    model = build(TASK, TOKENIZER.vocab_size, family).double()
    scramble(model)
    (packed,) = inferred(model, TASK, batch_of(features))
    alone = [inferred(model, TASK, batch_of(features, np.array([i])))[0] for i in range(features.sequences)]
    np.testing.assert_allclose(packed, np.concatenate(alone), atol=1e-6)
    scores = np.split(packed[:, 0].astype(np.float64), features.units[1:-1])
    each = [
        float(F.cross_entropy(torch.from_numpy(own), torch.tensor(one.label)))
        for own, one in zip(scores, EXAMPLES, strict=True)
    ]
    with torch.inference_mode():
        loss = loss_of(model, TASK, batch_of(features))
    assert loss.count == len(EXAMPLES)
    assert float(loss.total) == pytest.approx(sum(each))
    assert score(TASK, EXAMPLES, features, (packed,)).values["loss"] == pytest.approx(np.mean(each))
    made = predict(TASK, EXAMPLES, features, (packed,))
    for one, own, found in zip(EXAMPLES, scores, made, strict=True):
        assert found["probabilities"] == pytest.approx(torch.from_numpy(own).softmax(0).tolist())
        assert found["label"] == int(own.argmax())
        assert found["choice"] == one.choices[found["label"]]
        assert found["probability"] == max(found["probabilities"])


@given(seed=st.integers(0, 99), batch_size=st.integers(1, 8), tokens=st.integers(1, 300))
def test_any_split_into_micro_batches_gives_the_same_loss(seed: int, batch_size: int, tokens: int) -> None:
    features = encode()
    scores = np.random.default_rng(seed).normal(size=(features.sequences, 1))
    output = torch.nn.Identity()
    plan = BatchSampler(encoded={"task": features}, batch_size=batch_size, micro_batch_tokens=tokens, seed=seed)
    steps = plan.micro_batches(Cursor())
    total = count = 0.0
    for _ in range(plan.epoch_steps):
        for chosen in next(steps):
            batch = features.batch(chosen.sequences, "task")
            loss = TASK.output.loss(output, torch.from_numpy(scores[chosen.sequences]), batch)
            total, count = total + float(loss.total), count + loss.count
    assert count == len(EXAMPLES)
    whole = TASK.output.loss(output, torch.from_numpy(scores), batch_of(features))
    assert total == pytest.approx(float(whole.total))


def test_scores_are_those_of_transformers(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=64,
    )  # fmt: skip
    theirs: Any = transformers.BertForMultipleChoice(config).eval()
    scramble(theirs)
    theirs.save_pretrained(tmp_path)
    features = encode()
    model = load_theirs(TASK, tmp_path)
    (found,) = inferred(model, TASK, batch_of(features))
    assert features.segment_ids is not None
    tokens = offsets_of(features.lengths)
    losses = []
    for one, first, behind in zip(EXAMPLES, features.units, features.units[1:], strict=False):
        ids = torch.zeros(1, len(one.choices), 64, dtype=torch.int64)
        segments, mask = torch.zeros_like(ids), torch.zeros_like(ids)
        for place, sequence in enumerate(range(first, behind)):
            part = slice(tokens[sequence], tokens[sequence + 1])
            length = int(features.lengths[sequence])
            ids[0, place, :length] = torch.from_numpy(features.input_ids[part].astype(np.int64))
            segments[0, place, :length] = torch.from_numpy(features.segment_ids[part].astype(np.int64))
            mask[0, place, :length] = 1
        with torch.inference_mode():
            out = theirs(input_ids=ids, token_type_ids=segments, attention_mask=mask, labels=torch.tensor([one.label]))
        np.testing.assert_allclose(found[first:behind, 0], out.logits[0].numpy(), atol=1e-5)
        losses.append(float(out.loss))
    with torch.inference_mode():
        assert float(loss_of(model, TASK, batch_of(features)).mean) == pytest.approx(np.mean(losses), abs=1e-5)


def test_eight_examples_are_learned_by_heart() -> None:
    features = encode()
    model = build(TASK, TOKENIZER.vocab_size, hidden_size=32, intermediate_size=64)
    assert overfit(model, TASK, features, 80) < 0.1
    result = inferred(model, TASK, batch_of(features))
    assert [made["label"] for made in predict(TASK, EXAMPLES, features, result)] == [one.label for one in EXAMPLES]
    scores = score(TASK, EXAMPLES, features, result)
    assert scores.main == TASK.scorer.metrics[0] == "accuracy"
    assert tuple(scores.values) == TASK.scorer.metrics
    assert scores.values["accuracy"] == 1.0
    assert with_intervals(scores) == {"loss"}  # all are right
    wrong = score(TASK, EXAMPLES, features, (-result[0],))
    assert wrong.intervals["loss"].low < wrong.values["loss"] < wrong.intervals["loss"].high
    assert wrong.values["accuracy"] < 0.2
    with pytest.raises(PalavraError, match="outputs for 1 of 28 choices are not finite: it has diverged"):
        score(TASK, EXAMPLES, features, (np.where(np.arange(28)[:, None] == 3, np.nan, result[0]),))
    assert wrong.details["errors"][0]["probability"] == max(e["probability"] for e in wrong.details["errors"])
    assert json.loads(json.dumps(wrong.details))["choices"] == {"2": 2, "3": 2, "4": 2, "5": 2}


# Data


def written(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("label", "expected"),
    [(1, 1), ("1", 1), (1.0, 1), ("B", 1), ("b", 1), ("gato", 1), (" gato ", 1), (0, 0), ("A", 0), ("casa", 0)],
)
def test_labels_are_numbers_letters_or_texts(tmp_path: Path, label: Any, expected: int) -> None:
    (one,) = read(SPEC, written(tmp_path, {"text": "t", "choices": ["casa", "gato"], "label": label}))
    assert one == ChoiceExample(text="t", choices=("casa", "gato"), label=expected, where=f"{tmp_path}/c.jsonl:1")
    # By number and by text the same.
    (one,) = read(SPEC, written(tmp_path, {"text": "t", "choices": ["2", "1", "0"], "label": "1"}))
    assert one.label == 1


def test_a_table_has_a_column_for_each_choice(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("question;a;b;c;right\nwho?;me;you;they;C\nwhat?;this;that;;0\n", encoding="utf-8")
    columns = Columns(text="question", choices=("a", "b", "c"), label=("right",))
    spec = TaskSpec(kind="multiple-choice", columns=columns)
    found = read(spec, str(path))
    assert [(one.text, one.choices, one.label) for one in found] == [
        ("who?", ("me", "you", "they"), 2),
        ("what?", ("this", "that"), 0),
    ]


@pytest.mark.parametrize("columns", [Columns(text_a="ask"), Columns(text_a="ask", text_b="b"), Columns(text="ask")])
def test_the_text_is_read_as_of_every_kind(tmp_path: Path, columns: Columns) -> None:
    (tmp_path / "c.jsonl").write_text('{"ask": "who?", "choices": ["me", "you"], "label": 0}\n', encoding="utf-8")
    spec = TaskSpec(kind="multiple-choice", columns=columns)
    assert text_columns(spec) == ("ask",)
    assert [one.text for one in read(spec, str(tmp_path / "c.jsonl"))] == ["who?"]


def test_inputs_and_examples_without_labels() -> None:
    made = TASK.reader.inputs([{"text": "t", "choices": ["a", "b"], "more": 1}, ("t", ["a", "b"])])
    assert {(one.text, one.choices, one.label) for one in made} == {("t", ("a", "b"), None)}
    features = encode([*made, example("u", "a", "b", "c", label=None)])
    assert len(features.labels) == features.label_counts.sum() == 0
    batch = batch_of(features)
    assert batch.labelled == 0
    scores = np.array([[0.0], [1], [2], [0], [0], [0], [5]], dtype=np.float32)
    predictions = predict(TASK, [*made, example("u", "a", "b", "c", label=None)], features, (scores,))
    assert [one["choice"] for one in predictions] == ["b", "a", "c"]


def test_fit_and_check() -> None:
    task = fit(SPEC, EXAMPLES)
    assert from_json(SPEC, task.output.to_json()).spec == SPEC
    for label in (None, 2, -1):
        with pytest.raises(PalavraError, match=r"c\.json:1: label .* is none of the 2 choices"):
            task.encoder.check([*EXAMPLES, example("t", "a", "b", label=label)])
    with pytest.raises(PalavraError, match="has no examples"):
        fit(SPEC, [])
