"""Directories of fine-tuned models: transformers reads ours and we read theirs, with the same logits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import CPU, model_config, scramble
from tiny_tasks import trained
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    ModernBertConfig,
)

from palavra.errors import PalavraError
from palavra.inference.tasks import FineTunedModel, infer
from palavra.model.outputs import OutputConfig
from palavra.model.task_heads import HeadConfig, TaskModel
from palavra.tasks.directory import (
    TASK_FILE,
    Tasks,
    build_task_model,
    describe_head,
    is_task_directory,
    load_pretrained,
    load_task_model,
    save_task_model,
)
from palavra.tasks.kinds.classification import Classification
from palavra.tasks.kinds.regression import Regression
from palavra.tasks.spec import Columns, TaskSpec
from palavra.tasks.task import Task
from palavra.tokenizer import Tokenizer

TEXTS = ["the old harbour", "um gato correu pela rua, e a menina", "peter kept the blue one", "a"]
PAIRS = list(zip(TEXTS, TEXTS[::-1], strict=True))
SINGLE = Classification(TaskSpec(kind="classification", multilabel=False), ("muito bom", "mau", "não"), [3, 2, 1])
SEVERAL = Classification(TaskSpec(kind="classification", multilabel=True), ("a", "b", "c"), [3, 2, 1])
PAIR = Classification(TaskSpec(kind="pairs", multilabel=False), ("no", "yes"), [1, 1])
REGRESSION = Regression(TaskSpec(kind="regression"), ("label",), [2.0])
TARGETS = Regression(TaskSpec(kind="regression", columns=Columns(label=("x", "y"))), ("x", "y"), [2.0, 1.0])
TASKS: dict[str, Task[Any]] = {
    "single": SINGLE, "several": SEVERAL, "pairs": PAIR, "regression": REGRESSION, "targets": TARGETS
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


def with_head(task: Task[Any], head: HeadConfig, output: OutputConfig | None = None) -> Task[Any]:
    spec = replace(task.spec, head=head, output=output or task.spec.output)
    return type(task).from_json(spec, task.labels_to_json())


def build(tokenizer: Tokenizer, tasks: Tasks, family: str = "bert", **changes: Any) -> TaskModel:
    torch.manual_seed(0)
    model = build_task_model(model_config(family, vocab_size=tokenizer.vocab_size, **changes), tasks).eval()
    scramble(model)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model


def save(model: TaskModel, tasks: Tasks, tokenizer: Tokenizer, directory: Path) -> bool:
    native = save_task_model(
        model, tasks, directory, {"cls_token_id": tokenizer.cls_id, "sep_token_id": tokenizer.sep_id}
    )
    tokenizer.save(directory, context=model.config.context, segments=bool(model.config.segments))
    return native


def inputs_of(task: Task[Any]) -> list[Any]:
    return list(PAIRS) if task.spec.kind == "pairs" else list(TEXTS)


def logits_of(model: TaskModel, name: str, task: Task[Any], tokenizer: Tokenizer) -> npt.NDArray[np.float32]:
    """What the head of a task gives for the texts, as `infer` has it."""
    features = task.encode(task.inputs(inputs_of(task)), tokenizer, 64, model.config.segments > 1)
    found: npt.NDArray[np.float32] = infer(model, name, task, features, CPU)[0]
    return found


def comparable(logits: Any, task: Task[Any]) -> npt.NDArray[np.float32]:
    """Logits of one class an example are known up to a constant: log-probabilities have none."""
    values: npt.NDArray[np.float32] = np.asarray(logits, dtype=np.float32)
    single = isinstance(task, Classification) and not task.multilabel
    return torch.log_softmax(torch.from_numpy(values), -1).numpy() if single else values


def theirs(directory: Path, task: Task[Any]) -> tuple[Any, Tensor]:
    """The model as transformers loads it, and its logits of the texts tokenized by its own tokenizer, padded."""
    model, report = AutoModelForSequenceClassification.from_pretrained(
        directory, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    wanted = inputs_of(task)
    columns = zip(*wanted, strict=True) if isinstance(wanted[0], tuple) else [wanted]
    encoded = tokenizer(*(list(column) for column in columns), padding=True, return_tensors="pt")
    with torch.inference_mode():
        return model.eval(), model.eval()(**encoded).logits


# Ours in transformers


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
@pytest.mark.parametrize(("family", "pooling"), [("bert", "cls"), ("modernbert", "cls"), ("modernbert", "mean")])
def test_transformers_gives_our_logits(
    tokenizer: Tokenizer, tmp_path: Path, task: Task[Any], family: str, pooling: Any
) -> None:
    task = with_head(task, HeadConfig(pooling=pooling, dropout=0.25))
    model = build(tokenizer, {"task": task}, family)
    assert save(model, {"task": task}, tokenizer, tmp_path)
    found, logits = theirs(tmp_path, task)
    ours = logits_of(model, "task", task, tokenizer)
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(comparable(logits, task), comparable(ours, task), atol=1e-4)
    assert found.config.classifier_dropout == 0.25
    values = task.config_values()
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
def test_config_says_what_the_numbers_mean(task: Task[Any], labels: list[str], problem: str) -> None:
    values = task.config_values()
    assert [values["id2label"][str(number)] for number in range(len(labels))] == labels
    assert [values["label2id"][label] for label in labels] == list(range(len(labels)))
    assert values["problem_type"] == problem


def test_a_sampled_output_is_a_plain_one_when_saved(tokenizer: Tokenizer, tmp_path: Path) -> None:
    task = with_head(SINGLE, HeadConfig(), OutputConfig(name="sampled", samples=2))
    model = build(tokenizer, {"task": task})
    assert save(model, {"task": task}, tokenizer, tmp_path)
    ours = logits_of(model, "task", task, tokenizer)
    np.testing.assert_allclose(comparable(theirs(tmp_path, task)[1], task), comparable(ours, task), atol=1e-4)


# Theirs in ours


def their_config(family: str, labels: Sequence[str], problem: str | None, **changes: Any) -> Any:
    shape: dict[str, Any] = {"vocab_size": 150, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 24, "max_position_embeddings": 64, "pad_token_id": 0}  # fmt: skip
    shape |= {"id2label": dict(enumerate(labels)), "problem_type": problem, **changes}
    if family == "bert":
        return BertConfig(**shape)
    ids = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    return ModernBertConfig(**{**ids, "local_attention": 8, "global_attn_every_n_layers": 2, **shape})


def save_theirs(config: Any, tokenizer: Tokenizer, directory: Path) -> Any:
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    scramble(model)
    model.save_pretrained(directory)
    tokenizer.save(directory, context=64, segments=config.model_type == "bert")
    return model


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
    prediction = loaded.predict(TEXTS[0])[0]
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


# Heads that transformers has not


def several_tasks() -> dict[str, Task[Any]]:
    def named(name: str, task: Task[Any], head: HeadConfig) -> Task[Any]:
        found = with_head(task, head)
        return type(task).from_json(replace(found.spec, name=name), found.labels_to_json())

    return {
        "mood": named("mood", SINGLE, HeadConfig()),
        "stars": named("stars", TARGETS, HeadConfig(hidden=(7,), norm="batch")),
        "topics": named("topics", SEVERAL, HeadConfig(pooling="max", hidden=())),
        "same": named("same", PAIR, HeadConfig(pooling="mean")),
    }


MANY = Classification(
    TaskSpec(kind="classification", multilabel=False), tuple(f"k{n:03}" for n in range(120)), range(1, 121)
)
OURS: dict[str, Tasks] = {
    "batch-norm": {"task": with_head(SINGLE, HeadConfig(hidden=(12, 6), activation="gelu", norm="batch"))},
    "hidden": {"task": with_head(SINGLE, HeadConfig(hidden=(12, 6), activation="sigmoid"))},
    "layer-norm": {"task": with_head(REGRESSION, HeadConfig(hidden=(12,), norm="layer", bias=False))},
    "plain": {"task": with_head(PAIR, HeadConfig(hidden=()))},
    "max": {"task": with_head(SEVERAL, HeadConfig(pooling="max"))},
    "huffman": {"task": with_head(MANY, HeadConfig(), OutputConfig(name="hierarchical", tree="huffman"))},
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
        assert (read.spec, read.labels_to_json()) == (task.spec, task.labels_to_json())
        ours = logits_of(model, name, task, tokenizer)
        np.testing.assert_array_equal(logits_of(loaded.model, name, read, tokenizer), ours)
        assert describe_head(loaded.model, name) == describe_head(model, name)
        assert len(loaded.predict(inputs_of(task), task=name)) == len(TEXTS)
    body, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not [key for key in report["missing_keys"] if "pooler" not in key]
    assert AutoConfig.from_pretrained(tmp_path).architectures == [type(body).__name__]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_what_is_saved_is_what_is_loaded(tokenizer: Tokenizer, tmp_path: Path, task: Task[Any]) -> None:
    model = build(tokenizer, {"task": task})
    save(model, {"task": task}, tokenizer, tmp_path)
    loaded = load_task_model(tmp_path)
    state = loaded.model.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value), name
    assert (loaded.tasks["task"].spec, loaded.tasks["task"].labels_to_json()) == (task.spec, task.labels_to_json())


def test_a_family_without_heads_in_transformers_is_saved_too(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for family in ("llama", "gpt2"):
        model = build(tokenizer, {"task": SINGLE}, family)
        assert save_task_model(model, {"task": SINGLE}, tmp_path / family, {}) is False
        loaded = load_task_model(tmp_path / family)
        ours = logits_of(model, "task", SINGLE, tokenizer)
        np.testing.assert_array_equal(logits_of(loaded.model.eval(), "task", SINGLE, tokenizer), ours)


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
    monkeypatch.setattr("palavra.inference.tasks.BATCH_TOKENS", batch_tokens)
    wanted = [" ".join(TEXTS[: 1 + n % 4]) for n in range(9)]
    together = loaded.predict(wanted)
    for text, prediction in zip(wanted, together, strict=True):
        assert loaded.predict(text)[0]["probability"] == pytest.approx(prediction["probability"], abs=1e-5)


# What a pretrained directory holds of the head


def pretrained(kind: str, directory: Path) -> dict[str, Tensor]:
    """A directory as transformers writes one after pretraining; returns its tensors."""
    torch.manual_seed(2)
    config = their_config("bert" if kind == "bert" else "modernbert", ["x"], None)
    kinds: Any = AutoModel if kind == "bert" else AutoModelForMaskedLM
    model = kinds.from_config(config)
    scramble(model)
    model.save_pretrained(directory)
    return load_file(directory / "model.safetensors")


def test_berts_pooler_is_taken_from_the_pretrained(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tensors = pretrained("bert", tmp_path)
    for head in (HeadConfig(), HeadConfig(pooling="mean"), HeadConfig(hidden=(16,), activation="tanh")):
        model = build(tokenizer, {"task": with_head(SINGLE, head)})
        before = model.head("task").output.linear.weight.clone()  # type: ignore[union-attr, operator]
        load_pretrained(model, tmp_path)
        state = model.head("task").state_dict()
        assert torch.equal(state["layers.0.dense.weight"], tensors["pooler.dense.weight"])
        assert torch.equal(state["layers.0.dense.bias"], tensors["pooler.dense.bias"])
        assert torch.equal(state["output.linear.weight"], before)
        token = model.transformer.embeddings.token.weight
        assert torch.equal(token, tensors["embeddings.word_embeddings.weight"])


def test_modernberts_head_is_taken_from_the_pretrained(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tensors = pretrained("modernbert", tmp_path)
    model = build(tokenizer, several_tasks() | {"task": SINGLE}, "modernbert")
    load_pretrained(model, tmp_path)
    for name in ("task", "mood", "same"):
        state = model.head(name).state_dict()
        assert torch.equal(state["layers.0.dense.weight"], tensors["head.dense.weight"])
        assert torch.equal(state["layers.0.layer_norm.weight"], tensors["head.norm.weight"])


@pytest.mark.parametrize(
    "head", [HeadConfig(hidden=(16,)), HeadConfig(hidden=(16, 16), activation="tanh"), HeadConfig(norm="batch")]
)
def test_another_head_begins_anew(tokenizer: Tokenizer, tmp_path: Path, head: HeadConfig) -> None:
    tensors = pretrained("bert", tmp_path)
    model = build(tokenizer, {"task": with_head(SINGLE, head)})
    load_pretrained(model, tmp_path)
    state = model.head("task").state_dict()
    assert not torch.equal(state["layers.0.dense.weight"], tensors["pooler.dense.weight"])


def test_a_body_that_is_not_whole_is_an_error(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tensors = pretrained("bert", tmp_path)
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PalavraError, match=r"^[^\n]*the weights lack [^\n]*encoder\.layer\.1[^\n]*$"):
        load_pretrained(build(tokenizer, {"task": SINGLE}), tmp_path)


# Damage


@pytest.fixture
def saved(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    save(build(tokenizer, {"task": SINGLE}), {"task": SINGLE}, tokenizer, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "mend",
    [
        lambda v: v.update(version=2),
        lambda v: v.update(tasks=None),
        lambda v: v.update(tasks=[{}]),
        lambda v: v["tasks"][0]["spec"].update(kind="poetry"),
        lambda v: v["tasks"][0]["spec"].update(nonsense=1),
        lambda v: v["tasks"][0].update(labels=[]),
        lambda v: v["tasks"][0]["labels"].pop("counts"),
        lambda v: v["tasks"][0]["labels"].update(counts=[1]),
        lambda v: v["tasks"][0]["labels"].update(counts=["a", "b", "c"]),
        lambda v: v["tasks"][0]["labels"].update(temperature="hot"),
        lambda v: v["tasks"][0]["labels"].update(temperature=0),
        lambda v: v["tasks"][0]["labels"].update(labels=["a", "b", "c", "d"], counts=[1, 1, 1, 1]),
        lambda v: v["tasks"][0]["labels"].update(labels=["a", "a", "c"]),
        lambda v: v.pop("transformers"),
    ],
)
def test_a_damaged_task_file_is_one_line(saved: Path, mend: Any) -> None:
    values = json.loads((saved / TASK_FILE).read_text())
    mend(values)
    (saved / TASK_FILE).write_text(json.dumps(values))
    with pytest.raises(PalavraError, match=r"^[^\n]+$"):
        load_task_model(saved)


@pytest.mark.parametrize(
    "key", ["classifier.weight", "bert.pooler.dense.bias", "bert.encoder.layer.0.output.dense.bias"]
)
def test_weights_that_lack_a_part_are_one_line(saved: Path, key: str) -> None:
    tensors = load_file(saved / "model.safetensors")
    del tensors[key]
    save_file(tensors, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PalavraError, match=r"^[^\n]*the weights lack [^\n]+ \(1 tensors in all\)[^\n]*$"):
        load_task_model(saved)


@pytest.mark.parametrize("names", [{"0": "a", "1": "a", "2": "c"}, {"1": "a", "2": "b", "3": "c"}, ["a", "b", "c"]])
def test_foreign_labels_that_do_not_number_classes_are_one_line(
    tokenizer: Tokenizer, tmp_path: Path, names: Any
) -> None:
    save_theirs(their_config("bert", ["x", "y", "z"], None), tokenizer, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"id2label": names}))
    with pytest.raises(PalavraError, match=r"^[^\n]*config\.json: id2label [^\n]*: mend it$"):
        load_task_model(tmp_path)


def test_a_bare_encoder_is_no_task_directory(tmp_path: Path) -> None:
    pretrained("bert", tmp_path)
    assert not is_task_directory(tmp_path)
    assert not is_task_directory(tmp_path / "nowhere")
    with pytest.raises(PalavraError, match=r"^[^\n]*has no head for a task: fine-tune it first[^\n]*$"):
        load_task_model(tmp_path)


def test_only_what_is_learned_is_stored(saved: Path) -> None:
    with safe_open(saved / "model.safetensors", framework="pt") as file:
        keys = set(file.keys())
    assert {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight"} <= keys
    assert not [key for key in keys if "counts" in key or "palavra" in key]


@pytest.mark.parametrize("name", ["values", "train", "type", "keys", "a.b", "1a", ""])
def test_a_name_that_would_clash_is_an_error(name: str) -> None:
    with pytest.raises(PalavraError, match=r"^task name [^\n]*$"):
        TaskSpec(kind="classification", name=name)
