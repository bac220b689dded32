"""What a pretrained directory holds of the head is taken, and the rest begins anew."""

from pathlib import Path

import pytest
import torch
from builders.task_directories import SINGLE, build, pretrained, several_tasks, with_head
from builders.tasks import trained
from safetensors.torch import save_file

from palavra.errors import PalavraError
from palavra.model.config import HeadConfig
from palavra.tasks.saved_model import load_pretrained
from palavra.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


def test_berts_pooler_is_taken_from_the_pretrained(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tensors = pretrained("bert", tmp_path)
    for head in (HeadConfig(), HeadConfig(pooling="mean"), HeadConfig(hidden_sizes=(16,), activation="tanh")):
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
    "head",
    [HeadConfig(hidden_sizes=(16,)), HeadConfig(hidden_sizes=(16, 16), activation="tanh"), HeadConfig(norm="batch")],
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
