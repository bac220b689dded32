"""Directories of fine-tuned models that are damaged or foreign: one line that says so."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders.task_directories import SINGLE, build, pretrained, save, save_theirs, their_config
from builders.tasks import trained
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from palavra.errors import PalavraError
from palavra.model.task_heads import check_head_name
from palavra.tasks.saved_model import TASK_FILE, is_task_directory, load_task_model
from palavra.tasks.spec import TaskSpec
from palavra.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


@pytest.fixture
def saved(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    save(build(tokenizer, {"task": SINGLE}), {"task": SINGLE}, tokenizer, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "mend",
    [
        lambda v: v.update(version=3),
        lambda v: v.update(tasks=None),
        lambda v: v.update(tasks=[]),
        lambda v: v.update(tasks=[{}]),
        lambda v: v["tasks"][0].update(name="other"),
        lambda v: v["tasks"][0].update(name=-0.5),
        lambda v: v["tasks"].append(v["tasks"][0]),
        lambda v: (v["tasks"][0].update(name="items"), v["tasks"][0]["spec"].update(name="items")),
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
    with pytest.raises(PalavraError, match=r"^[^\n]*config\.json: id2label [^\n]*: correct it$"):
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
        check_head_name(TaskSpec(kind="classification", name=name).name)
