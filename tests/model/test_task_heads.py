"""Heads: a packed batch gives each example what it gives alone, and every option computes what it says."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders.models import layout_of, model_config, scramble
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

from palavra.batch import Batch
from palavra.errors import PalavraError
from palavra.model.config import HeadActivation, HeadConfig, HeadNorm, Pooling
from palavra.model.families.tasks import expressible, own_head
from palavra.model.layers import ACTIVATIONS
from palavra.model.task_heads import BatchNorm, Head, TaskModel, output_width
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.saved_model import load_task_model, save_task_model

FAMILIES = ("bert", "modernbert")
CLASSES = 3


def head_of(config: HeadConfig, family: str = "bert", **changes: Any) -> Head:
    body = model_config(family, **changes)
    resolved = config.resolved(own_head(body, "SequenceClassification"))
    return Head(resolved, "sequence", nn.Linear(output_width(resolved, body), CLASSES), body)


def build(config: HeadConfig, family: str = "bert", **changes: Any) -> TaskModel:
    """A tiny model in float64 whose every parameter matters."""
    torch.manual_seed(0)
    model = TaskModel(model_config(family, **changes), {"task": head_of(config, family, **changes)}).double().eval()
    scramble(model)
    return model


def features_of(lengths: list[int], segments: bool = False, seed: int = 0) -> EncodedExamples:
    """Sequences of random tokens; with segments each is a pair."""
    random = np.random.default_rng(seed)
    sizes = np.array(lengths, dtype=np.int64)
    total = int(sizes.sum())
    second = np.concatenate([np.arange(length) >= length // 2 for length in lengths])
    return EncodedExamples(
        input_ids=random.integers(5, 50, size=total).astype(np.uint32),
        lengths=sizes,
        segment_ids=second.astype(np.uint8) if segments else None,
        example=np.arange(len(sizes)),
        rows=np.zeros(len(sizes), dtype=np.int64),
        row_counts=np.ones(len(sizes), dtype=np.int64),
        labels=np.empty(0, dtype=np.int64),
        label_counts=np.zeros(len(sizes), dtype=np.int64),
    )


def logits(model: TaskModel, batch: Batch) -> Tensor:
    with torch.inference_mode():
        out: Tensor = model.head("task").output(model(batch, layout_of(batch)))
        return out


# A packed batch gives each example what it gives alone


@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15)
@given(data=st.data())
def test_an_example_has_the_logits_packed_that_it_has_alone(family: str, pooling: Pooling, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 24), min_size=1, max_size=9))
    order = np.array(data.draw(st.permutations(range(len(lengths)))), dtype=np.int64)
    segments = family == "bert" and data.draw(st.booleans())
    model = build(HeadConfig(pooling=pooling, norm=data.draw(st.sampled_from(get_args(HeadNorm)))), family)
    features = features_of(lengths, segments)
    packed = logits(model, features.batch(order, "task"))
    for place, number in enumerate(order.tolist()):
        alone = logits(model, features.batch(np.array([number]), "task"))
        torch.testing.assert_close(packed[place], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_segments_and_every_token_reach_the_logits(pooling: Pooling) -> None:
    """What the property above compares would be equal too if nothing were read."""
    model = build(HeadConfig(pooling=pooling))
    pair, single = features_of([9], segments=True), features_of([9])
    everything = np.arange(1)
    before = logits(model, single.batch(everything, "task"))
    assert not torch.allclose(before, logits(model, pair.batch(everything, "task")))
    for place in range(9):
        single.input_ids[place] = 49 if single.input_ids[place] != 49 else 48
        after = logits(model, single.batch(everything, "task"))
        assert not torch.allclose(before, after)
        before = after


# Pooling


def test_pooling_is_the_first_the_mean_and_the_largest_of_each_sequence() -> None:
    features = features_of([4, 1, 7])
    batch = features.batch(np.arange(3), "task")
    hidden = torch.randn(12, 16) - 5  # all negative: a zero that slips in would be the largest
    parts = hidden.split([4, 1, 7])
    expected: dict[Pooling, Tensor] = {
        "mean": torch.stack([part.mean(0) for part in parts]),
        "max": torch.stack([part.amax(0) for part in parts]),
    }
    for pooling, vectors in expected.items():
        torch.testing.assert_close(head_of(HeadConfig(pooling=pooling)).pool(hidden, batch), vectors)
    cls = head_of(HeadConfig(pooling="cls"))
    assert cls.reads_rows
    assert batch.label_rows.tolist() == [0, 4, 5]
    torch.testing.assert_close(cls.pool(hidden[batch.label_rows], batch), torch.stack([part[0] for part in parts]))


# Layers


@pytest.mark.parametrize("activation", get_args(HeadActivation))
@pytest.mark.parametrize("norm", get_args(HeadNorm))
def test_hidden_layers_compute_what_their_options_say(activation: HeadActivation, norm: HeadNorm) -> None:
    head = head_of(HeadConfig(hidden_sizes=(12, 5), activation=activation, norm=norm, dropout=0.0)).double().eval()
    scramble(head)
    x = torch.randn(6, 16, dtype=torch.float64)
    expected = x
    for layer in head.layers:
        expected = F.linear(expected, layer.dense.weight, layer.dense.bias)  # type: ignore[arg-type, union-attr]
        if norm == "batch":
            expected = expected / (1 + 1e-5) ** 0.5 * layer.batch_norm.weight + layer.batch_norm.bias  # type: ignore[union-attr]
        expected = ACTIVATIONS[activation](expected)
        if norm == "layer":
            expected = F.layer_norm(expected, (expected.shape[1],), layer.layer_norm.weight, layer.layer_norm.bias,  # type: ignore[arg-type, union-attr]
                                    eps=1e-12)  # fmt: skip
    torch.testing.assert_close(head(x), expected)


def test_activations_are_torchs() -> None:
    x = torch.linspace(-3, 3, 50)
    expected = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "gelu": nn.GELU(),
                "gelu_tanh": nn.GELU("tanh"), "silu": nn.SiLU()}  # fmt: skip
    assert set(expected) == set(ACTIVATIONS) == set(get_args(HeadActivation))
    for name, layer in expected.items():
        torch.testing.assert_close(ACTIVATIONS[name](x), layer(x))  # type: ignore[index]


def test_dropout_stands_between_hidden_layers_and_before_the_output_and_only_in_training() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 16)
    for hidden, between in (((), False), ((400,), False), ((400, 400), True)):
        head = head_of(HeadConfig(hidden_sizes=hidden, activation="sigmoid", dropout=0.5))
        with torch.no_grad():
            dropped, kept = head.train()(x), head.eval()(x)
        expected = x
        for layer in head.layers:
            expected = layer(expected)
        torch.testing.assert_close(kept, expected)
        left = dropped != 0
        assert 0.45 < left.float().mean() < 0.55
        assert torch.allclose(dropped[left], 2 * kept[left]) is not between


# Batch normalization


def test_batch_normalization_is_torchs_for_batches_of_two_and_more() -> None:
    ours, theirs = BatchNorm(7), nn.BatchNorm1d(7)
    for seed in range(3):
        x = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    x = torch.randn(1, 7)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_batch_of_one_is_normalized_as_in_evaluation() -> None:
    norm = BatchNorm(7)
    for _ in range(5):
        norm(torch.randn(8, 7) * 3 + 1)
    x = torch.randn(1, 7, requires_grad=True)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    in_training = norm(x)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    torch.testing.assert_close(in_training, norm.eval()(x))
    in_training.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad != 0).all()


# Configuration


@pytest.mark.parametrize(
    ("config", "family", "expected"),
    [
        (HeadConfig(), "bert", ("cls", (16,), "tanh", "off", True)),
        (HeadConfig(), "modernbert", ("mean", (16,), "gelu", "layer", False)),
        (HeadConfig(pooling="cls"), "modernbert", ("cls", (16,), "gelu", "layer", False)),
        (HeadConfig(hidden_sizes=()), "bert", ("cls", (), "relu", "off", True)),
        (HeadConfig(hidden_sizes=(8, 4)), "modernbert", ("mean", (8, 4), "relu", "off", True)),
        (HeadConfig(hidden_sizes=(8,), norm="batch", activation="tanh"), "bert", ("cls", (8,), "tanh", "batch", True)),
        (HeadConfig(norm="batch"), "bert", ("cls", (16,), "tanh", "batch", True)),
    ],
)
def test_what_a_head_leaves_open_is_the_familys(config: HeadConfig, family: str, expected: tuple[Any, ...]) -> None:
    found = config.resolved(own_head(model_config(family), "SequenceClassification"))
    assert (found.pooling, found.hidden_sizes, found.activation, found.norm, found.bias) == expected


def test_the_dropout_asked_for_is_kept() -> None:
    assert HeadConfig(dropout=0.3).resolved(own_head(model_config(), "SequenceClassification")).dropout == 0.3


@pytest.mark.parametrize(
    ("config", "family", "expected"),
    [
        (HeadConfig(), "bert", True),
        (HeadConfig(hidden_sizes=(16,), activation="tanh"), "bert", True),
        (HeadConfig(pooling="mean"), "bert", False),
        (HeadConfig(hidden_sizes=()), "bert", False),
        (HeadConfig(hidden_sizes=(16,)), "bert", False),
        (HeadConfig(norm="batch"), "bert", False),
        (HeadConfig(), "modernbert", True),
        (HeadConfig(pooling="mean"), "modernbert", True),
        (HeadConfig(pooling="max"), "modernbert", False),
        (HeadConfig(bias=True), "modernbert", False),
        (HeadConfig(), "llama", True),
        (HeadConfig(pooling="mean"), "llama", False),
    ],
)
def test_which_heads_transformers_has(config: HeadConfig, family: str, expected: bool) -> None:
    body = model_config(family)
    resolved = config.resolved(own_head(body, "SequenceClassification"))
    assert expressible(body, "SequenceClassification", resolved) is expected


@pytest.mark.parametrize(
    "values", [{"hidden_sizes": (0,)}, {"hidden_sizes": (8, -1)}, {"dropout": 1.0}, {"dropout": -0.1}]
)
def test_a_head_that_cannot_be_is_an_error(values: dict[str, Any]) -> None:
    with pytest.raises(PalavraError, match=r"^head\.(hidden_sizes|dropout) .*$"):
        HeadConfig(**values)


@given(widths=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_the_parameter_count_is_that_of_linear_layers(widths: list[int]) -> None:
    width, *hidden = widths
    head = head_of(HeadConfig(hidden_sizes=tuple(hidden)), hidden_size=2 * width, num_heads=1, intermediate_size=4)
    expected = sum(inputs * outputs + outputs for inputs, outputs in pairwise((2 * width, *hidden, CLASSES)))
    assert sum(parameter.numel() for parameter in head.parameters()) == expected


# The body


def test_a_body_that_does_not_move_stays_in_evaluation() -> None:
    model = build(HeadConfig())
    model.transformer.requires_grad_(False)
    model.train()
    assert not any(module.training for module in model.transformer.modules())
    assert all(module.training for module in model.heads.modules())
    model.transformer.layers[1].requires_grad_(True)
    model.train()
    assert all(module.training for module in model.transformer.modules())
    model.eval()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_known_vectors_stand_in_for_the_body(pooling: Pooling) -> None:
    model = build(HeadConfig(pooling=pooling))
    features = features_of([5, 3, 8])
    order = np.array([2, 0, 1])
    batch = features.batch(order, "task")
    with torch.inference_mode():
        vectors = model.pooled(features.batch(np.arange(3), "task"), layout_of(features.batch(np.arange(3), "task")))
    known = features.batch(order, "task", vectors.float().numpy())
    assert known.features is not None
    model = model.float()
    found, expected = model(known, layout_of(known)), model(batch, layout_of(batch))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["hidden", "output"])
def test_new_layers_begin_as_the_body_did(kind: Literal["hidden", "output"]) -> None:
    head = head_of(HeadConfig(hidden_sizes=(300,)), hidden_size=200)
    linear = head.layers[0].dense if kind == "hidden" else head.output
    assert isinstance(linear, nn.Linear)
    assert 0.015 < float(linear.weight.detach().std()) < 0.021
    assert float(linear.weight.detach().abs().max()) <= 0.04
    assert not linear.bias.detach().any()


# The dropout of heads from elsewhere


def foreign(family: str, kind: Any, directory: Path, **values: Any) -> nn.Module:
    """A tiny model that `transformers` made and saved."""
    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    config = AutoConfig.for_model(family, intermediate_size=24, max_position_embeddings=64, **shape, **ids, **values)
    model: nn.Module = kind.from_config(config)
    model.save_pretrained(directory)  # type: ignore[operator]
    return model


def dropout_of(model: nn.Module, family: str) -> float:
    """What precedes the output layer of a model of `transformers`."""
    layer = model.dropout if family == "bert" else model.drop
    assert isinstance(layer, nn.Dropout)
    return layer.p


@pytest.mark.parametrize("kind", [AutoModelForSequenceClassification, AutoModelForTokenClassification])
@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("bert", {"hidden_dropout_prob": 0.2}),
        ("bert", {"hidden_dropout_prob": 0.2, "classifier_dropout": 0.35}),
        ("bert", {"hidden_dropout_prob": 0.2, "classifier_dropout": 0.0}),
        ("modernbert", {}),
        ("modernbert", {"classifier_dropout": 0.35}),
    ],
)
def test_the_dropout_of_a_foreign_head_comes_along_and_goes_back(
    tmp_path: Path, kind: Any, family: str, values: dict[str, float]
) -> None:
    expected = dropout_of(foreign(family, kind, tmp_path / "theirs", **values), family)
    loaded = load_task_model(tmp_path / "theirs")
    (name,) = loaded.tasks
    assert loaded.model.head(name).dropout.p == expected
    assert save_task_model(loaded.model, loaded.tasks, tmp_path / "ours", {})
    again = kind.from_pretrained(tmp_path / "ours")
    assert again.config.classifier_dropout == expected
    assert dropout_of(again, family) == expected


@pytest.mark.parametrize("value", ["much", 1.5, -0.1])
def test_a_dropout_that_is_none_is_one_line(tmp_path: Path, value: object) -> None:
    foreign("bert", AutoModelForSequenceClassification, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "classifier_dropout": value}), encoding="utf-8")
    with pytest.raises(PalavraError, match=r"config\.json: .*dropout is [^\n]*$"):
        load_task_model(tmp_path)
