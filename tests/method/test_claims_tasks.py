"""What the method claims of adapting a model (C): the rows marked exact, one test a row, each named by the row's id.

The numbers are those of the method's worked examples, recomputed by the library. Where an example rounds or errs,
the test holds what is true and says so.
"""

import json
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders.claims import PLAIN, example, identity, job_of, sentiments
from builders.models import build_model, layout_of, model_config, scramble
from builders.tasks import (
    batch_of,
    build,
    classification_of,
    fit,
    inferred,
    loss_of,
    predict,
    read,
    regression_of,
    trained,
    words_of,
)
from torch import nn

from palavra import config as configuration
from palavra.data.packing import Cursor
from palavra.inference.masked import vocabulary_of
from palavra.metrics.tag_schemes import Span, decode_tags
from palavra.model.config import HeadConfig, HeadNorm, OutputConfig, Pooling
from palavra.model.lora import LoRALinear
from palavra.model.task_outputs.build import build_output
from palavra.model.task_outputs.layers import Softmax
from palavra.objectives.config import MaskingConfig
from palavra.objectives.masked import MaskedObjective
from palavra.recipe import FinetuneRecipe
from palavra.tasks.saved_model import load_task_model, save_task_model
from palavra.tasks.spec import Columns, KindName, TaskSpec
from palavra.tokenizer import Tokenizer
from palavra.training.config import OptimizerConfig, StrategyConfig, StrategyName
from palavra.training.optimizers import build_optimizers
from palavra.training.strategies import finish_model, prepare_model

WORDS = "A Apple foi fundada por Steve Jobs na Califórnia"
# The words' labels as the method prints them below its code; the vector inside the code does not match its own list.
TAGS = ["O", "B-ORG", "O", "O", "O", "B-PER", "I-PER", "O", "B-LOC"]
TEXTS = ["o gato correu pela rua", "a menina viu o mar", "maria sold her boat", "peter kept it"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_sequence_classification_is_a_linear_layer_and_a_softmax__C_seq(tokenizer: Tokenizer, pooling: Pooling) -> None:
    """z = h W + b on [CLS], or on the mean; y = softmax(z)."""
    head = HeadConfig(pooling=pooling, hidden_sizes=(), dropout=0.0)
    task = sentiments(TaskSpec(kind="classification", multilabel=False, head=head))
    model = build(task, tokenizer.vocab_size)
    scramble(model)
    batch = batch_of(task.encoder.encode(task.reader.inputs(TEXTS), tokenizer, 64, True))
    (log_p,) = inferred(model, task, batch)
    with torch.inference_mode():
        whole = model.transformer(batch.input_ids, batch.position_ids, layout_of(batch), batch.segment_ids)
    parts = whole.split(batch.cu_seqlens.diff().tolist())
    h = torch.stack([part[0] if pooling == "cls" else part.mean(0) for part in parts])
    output = model.head("task").output
    assert isinstance(output, Softmax)
    assert (batch.input_ids[batch.label_rows] == tokenizer.cls_id).all()
    z = h @ output.linear.weight.T + output.linear.bias
    np.testing.assert_allclose(np.exp(log_p), torch.softmax(z, 1).detach().numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1, rtol=1e-5)


def test_cls_vector_depends_on_the_whole_sequence_and_on_no_other__C_T4(tokenizer: Tokenizer) -> None:
    """Every token of the text has a part in the vector of [CLS], and none of another text in the batch."""
    task = sentiments()
    model = build(task, tokenizer.vocab_size)
    scramble(model)
    features = task.encoder.encode(task.reader.inputs(TEXTS), tokenizer, 64, True)
    (before,) = inferred(model, task, batch_of(features))
    for place in range(int(features.lengths[0])):
        kept = features.input_ids[place]
        features.input_ids[place] = 7 if kept != 7 else 8
        (after,) = inferred(model, task, batch_of(features))
        features.input_ids[place] = kept
        assert np.abs(after[0] - before[0]).max() > 1e-6
        np.testing.assert_allclose(after[1:], before[1:], rtol=1e-5, atol=1e-6)


def test_masking_puts_no_loss_on_the_vector_of_cls_and_classification_all_of_it__C_T4(tokenizer: Tokenizer) -> None:
    """What [CLS] holds is up to attention while only masked words are predicted: the loss does not read its vector.
    Sentence pairs and a classifier do, and nothing else."""
    lengths = np.array([9, 12])
    ids = np.random.default_rng(0).integers(10, 60, lengths.sum())
    ids[[0, 9]] = tokenizer.cls_id
    batch = MaskedObjective(MaskingConfig(mask_rate=0.99), vocabulary_of(tokenizer)).corrupt(
        ids, lengths, np.random.default_rng(0)
    )
    model = build_model(model_config("bert", vocab_size=tokenizer.vocab_size))
    hidden = model(batch, layout_of(batch)).detach().requires_grad_()
    objective = MaskedObjective(MaskingConfig(), vocabulary_of(tokenizer))
    objective.loss_of(model, hidden[batch.label_rows], batch.labels).total.backward()
    assert hidden.grad is not None
    reached = hidden.grad.abs().sum(1)
    assert reached[[0, 9]].tolist() == [0, 0]
    assert (reached[batch.label_rows] > 0).all()
    task = sentiments()
    labelled = task.encoder.encode([example(0, ("positivo",)), example(1, ("neutro",))], tokenizer, 64, True)
    read = batch_of(labelled)
    assert (read.input_ids[read.label_rows] == tokenizer.cls_id).all()
    assert len(read.label_rows) == len(read.labels) == 2


def test_text_pairs_are_joined_by_a_separator_and_classified_at_cls__C_pair(tokenizer: Tokenizer) -> None:
    spec = TaskSpec(
        kind="classification", multilabel=False, head=PLAIN, columns=Columns(text_a="text_a", text_b="text_b")
    )
    task = classification_of(spec, ("no", "yes"), [1, 1])
    features = task.encoder.encode(task.reader.inputs([(TEXTS[0], TEXTS[1])]), tokenizer, 64, True)
    first, second = tokenizer.encode(TEXTS[0]), tokenizer.encode(TEXTS[1])
    expected = [tokenizer.cls_id, *first, tokenizer.sep_id, *second, tokenizer.sep_id]
    assert features.input_ids.tolist() == expected
    assert features.segment_ids is not None
    assert features.segment_ids.tolist() == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    assert features.rows.tolist() == [0]
    # One vector for the pair, which knows both texts and which is which.
    model = build(task, tokenizer.vocab_size)
    scramble(model)
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[0]), (TEXTS[0], TEXTS[2])]
    (found,) = inferred(model, task, batch_of(task.encoder.encode(task.reader.inputs(pairs), tokenizer, 64, True)))
    assert found.shape == (3, 2)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_token_classification_is_a_linear_layer_on_every_token__C_tag(tokenizer: Tokenizer) -> None:
    """z_i = h_i W + b for each of the nine words; the example's code numbers other labels than it prints."""
    names = ("B-ORG", "I-ORG", "B-PER", "I-PER", "B-LOC", "O")
    task = words_of(TaskSpec(kind="token-classification", head=PLAIN), names, [1] * 6, "bio")
    features = task.encoder.encode(task.reader.inputs([WORDS]), tokenizer, 64, True)
    assert features.row_counts.tolist() == [9]
    model = build(task, tokenizer.vocab_size)
    scramble(model)
    batch = batch_of(features)
    log_p = inferred(model, task, batch)[0]
    assert log_p.shape == (9, 6)
    with torch.no_grad():
        whole = model.transformer(batch.input_ids, batch.position_ids, layout_of(batch), batch.segment_ids)
        output = model.head("task").output
        assert isinstance(output, Softmax)
        z = whole[batch.label_rows] @ output.linear.weight.T + output.linear.bias
    np.testing.assert_allclose(np.exp(log_p), torch.softmax(z, 1).numpy(), rtol=1e-4, atol=1e-6)
    truth = torch.tensor([names.index(tag) for tag in TAGS])
    loss = identity(build_output(OutputConfig(), 6, np.ones(6, dtype=np.int64))).total_loss(z, truth) / 9
    torch.testing.assert_close(loss, nn.CrossEntropyLoss()(z, truth))
    found = {(span.start, span.end, span.label) for span in decode_tags(TAGS, "bio")}
    assert found == {(1, 2, "ORG"), (5, 7, "PER"), (8, 9, "LOC")}
    assert isinstance(decode_tags(TAGS, "bio")[0], Span)


def test_regression_is_a_linear_layer_without_softmax__C_reg(tokenizer: Tokenizer) -> None:
    task = regression_of(TaskSpec(kind="regression", head=PLAIN), ("estrelas",), [3.0])
    model = build(task, tokenizer.vocab_size)
    scramble(model)
    examples = [example(0, (4.0,)), example(1, (-2.5,))]
    batch = batch_of(task.encoder.encode(examples, tokenizer, 64, True))
    (values,) = inferred(model, task, batch)
    with torch.inference_mode():
        h = model.transformer(batch.input_ids, batch.position_ids, layout_of(batch), None)[batch.label_rows]
        output = model.head("task").output
        assert isinstance(output, nn.Linear)
        torch.testing.assert_close(torch.from_numpy(values), h @ output.weight.T + output.bias)
    expected = F.mse_loss(torch.from_numpy(values), torch.tensor([[4.0], [-2.5]]))
    torch.testing.assert_close(loss_of(model, task, batch).mean.detach(), expected)


@pytest.mark.parametrize(
    ("strategy", "moving"),
    [
        (StrategyConfig(name="full"), ("transformer.", "heads.")),
        (StrategyConfig(name="frozen"), ("heads.",)),
        (StrategyConfig(name="last-n", last_n=1), ("transformer.layers.1.", "transformer.final_norm", "heads.")),
        (StrategyConfig(name="last-n", last_n=2), ("transformer.layers.", "transformer.final_norm", "heads.")),
    ],
)
def test_each_strategy_trains_exactly_its_parameters__C_strat(
    tokenizer: Tokenizer, strategy: StrategyConfig, moving: tuple[str, ...]
) -> None:
    job = job_of(tokenizer, strategy, "modernbert")
    before = {name: value.detach().clone() for name, value in job.model.named_parameters()}
    optimizers = job.optimizers()
    objective = job.objective
    (chosen,) = next(iter(job.micro_batches(Cursor())))
    batch = objective.prepare(chosen, np.random.default_rng(0), 0.0)
    objective.loss(job.model.train(), batch, layout_of(batch)).mean.backward()
    optimizers.step()
    moved = {name for name, value in job.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith(moving)}


def test_a_frozen_body_is_bit_for_bit_the_pretrained_one__C_S2(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Of all strategies the frozen one alone keeps it: also after saving and loading."""
    kept = {}
    for strategy in get_args(StrategyName):
        job = job_of(tokenizer, StrategyConfig(name=strategy, last_n=1, rank=2), "bert")
        before = {name: value.clone() for name, value in job.model.transformer.state_dict().items()}
        optimizers = job.optimizers()
        for _ in range(3):
            for batches in islice(job.micro_batches(Cursor()), 1):
                batch = job.objective.prepare(batches[0], np.random.default_rng(0), 0.0)
                job.objective.loss(job.model, batch, layout_of(batch)).total.backward()
            optimizers.step()
        finish_model(job.model)
        save_task_model(job.model, job.tasks, tmp_path / strategy, {})
        after = load_task_model(tmp_path / strategy).model.transformer.state_dict()
        kept[strategy] = all(torch.equal(after[name], value) for name, value in before.items())
    assert kept == {strategy: strategy == "frozen" for strategy in kept}


ASKED = [
    {"id": str(n), "question": "quem correu?", "context": "o gato correu", "answers": [{"text": text, "start": start}]}
    for n, (text, start) in enumerate((("o gato", 0), ("gato", 2)))
]
APPLICATIONS: dict[str, tuple[KindName, str, str, str]] = {  # its kind, its file as people have it, what is predicted
    "sentiment": ("classification", "a.csv", "text,label\nadorei,good\ndetestei,bad\n", "label"),
    "topics": (
        "classification",
        "a.jsonl",
        '{"text": "a", "label": ["x"]}\n{"text": "b", "label": ["x", "y"]}\n',
        "label",
    ),
    "inference": ("classification", "a.tsv", "text_a\ttext_b\tlabel\na\tb\tyes\nb\ta\tno\n", "label"),
    "named entities": ("token-classification", "a.conll", "o O\nPorto B-LOC\n\nMaria B-PER\n", "spans"),
    "dates and prices": (
        "token-classification",
        "a.conll",
        "em O\n1834 B-DATE\n\n300 B-PRICE\nmoedas I-PRICE\n",
        "spans",
    ),
    "questions": ("question-answering", "a.json", json.dumps(ASKED), "answer"),
}


@pytest.mark.parametrize("application", APPLICATIONS)
def test_each_application_is_a_kind_of_task__C_apps(tokenizer: Tokenizer, tmp_path: Path, application: str) -> None:
    """What commands do with real data is measured elsewhere; none needs a kind, or a loop, of its own."""
    kind, name, content, predicted = APPLICATIONS[application]
    (tmp_path / name).write_text(content)
    columns = Columns(text_a="text_a", text_b="text_b") if application == "inference" else Columns()
    spec = TaskSpec(kind=kind, columns=columns)
    examples = read(spec, str(tmp_path / name))
    task = fit(spec, examples)
    model = build(task, tokenizer.vocab_size)
    features = task.encoder.encode(examples, tokenizer, 64, model.config.segments > 1)
    batch = batch_of(features)
    assert float(loss_of(model, task, batch).mean.detach()) > 0
    predictions = predict(task, examples, features, inferred(model, task, batch))
    assert len(predictions) == 2
    assert all(predicted in one for one in predictions)


# A third of all: every pair of a strategy, a norm and a pooling.
COMBINED = [
    (strategy, norm, pooling)
    for i, strategy in enumerate(get_args(StrategyName))
    for j, norm in enumerate(get_args(HeadNorm))
    for k, pooling in enumerate(get_args(Pooling))
    if (i + j + k) % 3 == 0
]


@pytest.mark.parametrize(("strategy", "norm", "pooling"), COMBINED)
def test_heads_and_strategies_combine_freely__C_C6_1(
    tokenizer: Tokenizer, tmp_path: Path, strategy: StrategyName, norm: HeadNorm, pooling: Pooling
) -> None:
    head = HeadConfig(pooling=pooling, hidden_sizes=(8, 4), activation="gelu", norm=norm, dropout=0.2)
    task = sentiments(TaskSpec(kind="classification", multilabel=False, head=head))
    recipe = FinetuneRecipe(tasks=(task.spec,), strategy=StrategyConfig(name=strategy, last_n=1, rank=2))
    (tmp_path / "r.toml").write_text(configuration.to_toml(recipe))
    assert configuration.from_toml(FinetuneRecipe, tmp_path / "r.toml") == recipe
    model = build(task, tokenizer.vocab_size)
    examples = [example(0, ("positivo",)), example(1, ("neutro",))]
    features = task.encoder.encode(examples, tokenizer, 64, True)
    prepare_model(model, recipe.strategy, features.input_ids)
    assert any(isinstance(module, LoRALinear) for module in model.modules()) is (strategy == "lora")
    # It trains: the loss of the two falls, and with it what each is taken for.
    optimizers = build_optimizers(model.named_parameters(), OptimizerConfig(name="adamw", learning_rate=0.02))
    losses = []
    for _ in range(12):
        torch.manual_seed(0)  # the same dropout in every step
        optimizers.zero_grad()
        loss = loss_of(model.train(), task, batch_of(features)).mean
        loss.backward()
        optimizers.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    # And what it learned is saved with its own head, and read back.
    finish_model(model.eval())
    save_task_model(model, {"task": task}, tmp_path, {})
    again = load_task_model(tmp_path)
    (before,), (after,) = (inferred(one.eval(), task, batch_of(features)) for one in (model, again.model))
    np.testing.assert_allclose(after, before, atol=1e-5)
    assert again.tasks["task"].spec.head == head
