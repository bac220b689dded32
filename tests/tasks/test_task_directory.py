"""Directories of fine-tuned models: transformers reads ours and we read theirs, with the same logits."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.task_directories import (
    PAIR,
    REGRESSION,
    SEVERAL,
    SINGLE,
    TARGETS,
    TASKS,
    TEXTS,
    build,
    comparable,
    inputs_of,
    logits_of,
    save,
    save_theirs,
    several_tasks,
    their_config,
    theirs,
    with_head,
)
from builders.tasks import classification_of, trained
from transformers import AutoConfig, AutoModel

from palavra.errors import PalavraError
from palavra.inference import finetuned
from palavra.inference.finetuned import FineTunedModel
from palavra.model.config import HeadConfig, OutputConfig
from palavra.tasks.saved_model import (
    TASK_FILE,
    Tasks,
    describe_head,
    is_task_directory,
    load_task_model,
    save_task_model,
)
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import AnyTask
from palavra.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


# Ours in transformers


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
@pytest.mark.parametrize(("family", "pooling"), [("bert", "cls"), ("modernbert", "cls"), ("modernbert", "mean")])
def test_transformers_gives_our_logits(
    tokenizer: Tokenizer, tmp_path: Path, task: AnyTask, family: str, pooling: Any
) -> None:
    task = with_head(task, HeadConfig(pooling=pooling, dropout=0.25))
    model = build(tokenizer, {"task": task}, family)
    assert save(model, {"task": task}, tokenizer, tmp_path)
    found, logits = theirs(tmp_path, task)
    ours = logits_of(model, "task", task, tokenizer)
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(comparable(logits, task), comparable(ours, task), atol=1e-4)
    assert found.config.classifier_dropout == 0.25
    values = task.output.config_values()
    assert found.config.id2label == {int(number): label for number, label in values["id2label"].items()}
    assert found.config.problem_type == values["problem_type"]


@pytest.mark.parametrize(
    ("task", "labels", "problem"),
    [
        (SINGLE, ["muito bom", "mau", "não"], "single_label_classification"),
        (SEVERAL, ["a", "b", "c"], "multi_label_classification"),
        (TARGETS, ["x", "y"], "regression"),
    ],
)
def test_config_says_what_the_numbers_mean(task: AnyTask, labels: list[str], problem: str) -> None:
    values = task.output.config_values()
    assert [values["id2label"][str(number)] for number in range(len(labels))] == labels
    assert [values["label2id"][label] for label in labels] == list(range(len(labels)))
    assert values["problem_type"] == problem


def test_a_sampled_output_is_a_plain_one_when_saved(tokenizer: Tokenizer, tmp_path: Path) -> None:
    task = with_head(SINGLE, HeadConfig(), OutputConfig(name="sampled", samples=2))
    model = build(tokenizer, {"task": task})
    assert save(model, {"task": task}, tokenizer, tmp_path)
    ours = logits_of(model, "task", task, tokenizer)
    np.testing.assert_allclose(comparable(theirs(tmp_path, task)[1], task), comparable(ours, task), atol=1e-4)


LABELLED: list[tuple[list[str], str | None]] = [
    (["x", "y", "z"], "single_label_classification"),
    (["x", "y"], None),
    (["x", "y", "z"], "multi_label_classification"),
    (["score"], "regression"),
    (["one", "two"], "regression"),
]
VARIANTS: list[dict[str, Any]] = [
    {"classifier_pooling": "mean", "classifier_activation": "relu"},
    {"classifier_activation": "silu", "classifier_bias": True, "norm_bias": True},
    {"classifier_activation": "gelu_pytorch_tanh"},
    {"classifier_pooling": "mean"},
]


@pytest.mark.parametrize(
    ("family", "changes", "labels", "problem"),
    [(family, {}, *of) for family in ("bert", "modernbert") for of in LABELLED]
    + [("modernbert", changes, *LABELLED[0]) for changes in VARIANTS],
)
def test_we_give_the_logits_of_transformers(
    tokenizer: Tokenizer,
    tmp_path: Path,
    family: str,
    changes: Mapping[str, Any],
    labels: list[str],
    problem: str | None,
) -> None:
    save_theirs(their_config(family, labels, problem, **changes), tokenizer, tmp_path)
    assert is_task_directory(tmp_path)
    loaded = FineTunedModel.load(tmp_path, device="cpu")
    name, task = loaded.task()
    assert task.spec.kind == ("regression" if problem == "regression" else "classification")
    ours = logits_of(loaded.model, name, task, loaded.tokenizer)
    np.testing.assert_allclose(comparable(theirs(tmp_path, task)[1], task), comparable(ours, task), atol=1e-4)
    assert np.ptp(ours) > 0.05
    prediction = loaded.predict(TEXTS[0]).to_json()
    assert ("value" in prediction) is (problem == "regression")
    # And back: what we save of it, transformers reads again.
    again = tmp_path / "again"
    assert save(loaded.model, loaded.tasks, loaded.tokenizer, again)
    np.testing.assert_allclose(comparable(theirs(again, task)[1], task), comparable(ours, task), atol=1e-4)


def test_their_pairs_have_our_logits(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A foreign model does not say that it reads pairs; its weights as a task of pairs give its logits."""
    save_theirs(their_config("bert", ["no", "yes"], "single_label_classification"), tokenizer, tmp_path)
    model = load_task_model(tmp_path).model
    ours = logits_of(model, "task", PAIR, tokenizer)
    np.testing.assert_allclose(comparable(theirs(tmp_path, PAIR)[1], PAIR), comparable(ours, PAIR), atol=1e-4)


MANY = classification_of(
    TaskSpec(kind="classification", multilabel=False), tuple(f"k{n:03}" for n in range(120)), range(1, 121)
)
OURS: dict[str, Tasks] = {
    "batch-norm": {"task": with_head(SINGLE, HeadConfig(hidden_sizes=(12, 6), activation="gelu", norm="batch"))},
    "hidden": {"task": with_head(SINGLE, HeadConfig(hidden_sizes=(12, 6), activation="sigmoid"))},
    "layer-norm": {"task": with_head(REGRESSION, HeadConfig(hidden_sizes=(12,), norm="layer", bias=False))},
    "plain": {"task": with_head(PAIR, HeadConfig(hidden_sizes=()))},
    "max": {"task": with_head(SEVERAL, HeadConfig(pooling="max"))},
    "huffman": {"task": with_head(MANY, HeadConfig(), OutputConfig(name="hierarchical", tree="huffman"))},
    "prefix": {"task": with_head(MANY, HeadConfig(), OutputConfig(name="hierarchical", tree="prefix"))},
    "balanced": {"task": with_head(MANY, HeadConfig(), OutputConfig(name="hierarchical", tree="balanced"))},
    "adaptive": {"task": with_head(MANY, HeadConfig(), OutputConfig(name="adaptive"))},
    "several": several_tasks(),
}


@pytest.mark.parametrize("tasks", OURS.values(), ids=OURS.keys())
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_what_transformers_has_not_is_said_and_survives(
    tokenizer: Tokenizer, tmp_path: Path, family: str, tasks: Tasks
) -> None:
    model = build(tokenizer, tasks, family)
    assert save(model, tasks, tokenizer, tmp_path) is False
    assert json.loads((tmp_path / TASK_FILE).read_text())["transformers"] is False
    loaded = FineTunedModel.load(tmp_path, device="cpu")
    assert list(loaded.tasks) == list(tasks)
    for name, task in tasks.items():
        read = loaded.tasks[name]
        assert (read.spec, read.output.to_json()) == (task.spec, task.output.to_json())
        ours = logits_of(model, name, task, tokenizer)
        np.testing.assert_array_equal(logits_of(loaded.model, name, read, tokenizer), ours)
        assert describe_head(loaded.model, name) == describe_head(model, name)
        assert len(loaded.predict(inputs_of(task), task=name)) == len(TEXTS)
    body, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not [key for key in report["missing_keys"] if "pooler" not in key]
    assert AutoConfig.from_pretrained(tmp_path).architectures == [type(body).__name__]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_what_is_saved_is_what_is_loaded(tokenizer: Tokenizer, tmp_path: Path, task: AnyTask) -> None:
    model = build(tokenizer, {"task": task})
    save(model, {"task": task}, tokenizer, tmp_path)
    loaded = load_task_model(tmp_path)
    state = loaded.model.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value), name
    assert (loaded.tasks["task"].spec, loaded.tasks["task"].output.to_json()) == (task.spec, task.output.to_json())


def test_a_head_that_the_family_lacks_in_transformers_is_saved_too(tokenizer: Tokenizer, tmp_path: Path) -> None:
    mean = with_head(SINGLE, HeadConfig(pooling="mean"))
    for family in ("llama", "gpt2"):
        model = build(tokenizer, {"task": mean}, family)
        assert save_task_model(model, {"task": mean}, tmp_path / family, {}) is False
        loaded = load_task_model(tmp_path / family)
        ours = logits_of(model, "task", mean, tokenizer)
        np.testing.assert_array_equal(logits_of(loaded.model.eval(), "task", mean, tokenizer), ours)


def test_a_causal_model_saved_when_heads_took_the_mean_still_takes_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    mean = with_head(SINGLE, HeadConfig(pooling="mean"))
    model = build(tokenizer, {"task": mean}, "llama")
    save_task_model(model, {"task": mean}, tmp_path, {})
    values = json.loads((tmp_path / "task.json").read_text("utf-8"))
    values["version"], values["tasks"][0]["spec"]["head"] = 1, {}
    (tmp_path / "task.json").write_text(json.dumps(values), "utf-8")
    loaded = load_task_model(tmp_path)
    ours = logits_of(model, "task", mean, tokenizer)
    np.testing.assert_array_equal(logits_of(loaded.model.eval(), "task", mean, tokenizer), ours)


def test_the_task_must_be_named_where_there_are_several(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tasks = several_tasks()
    save(build(tokenizer, tasks), tasks, tokenizer, tmp_path)
    loaded = FineTunedModel.load(tmp_path, device="cpu")
    for asked in (None, "nothing"):
        with pytest.raises(PalavraError, match=r"^[^\n]*mood, stars, topics, same[^\n]*$"):
            loaded.predict(["a"], task=asked)
    assert loaded.predict([], task="mood") == []


@pytest.mark.parametrize("batch_tokens", [1, 16, 8192])
def test_predictions_keep_the_order_of_their_inputs(
    tokenizer: Tokenizer, tmp_path: Path, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(build(tokenizer, {"task": SINGLE}), {"task": SINGLE}, tokenizer, tmp_path)
    loaded = FineTunedModel.load(tmp_path, device="cpu")
    monkeypatch.setattr(finetuned, "BATCH_TOKENS", batch_tokens)
    wanted = [" ".join(TEXTS[: 1 + n % 4]) for n in range(9)]
    together = loaded.predict(wanted)
    for text, prediction in zip(wanted, together, strict=True):
        assert loaded.predict(text)["probability"] == pytest.approx(prediction["probability"], abs=1e-5)
