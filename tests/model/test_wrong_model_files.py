"""Model directories that are damaged, foreign or hostile: one line each, and never a byte of code run."""

import json
import math
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.families import CAUSAL
from builders.models import build_causal_model, build_model, model_config
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from palavra.errors import PalavraError
from palavra.model.directory import load_causal_model, load_masked_model, save_model
from palavra.model.families import FAMILIES


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A sound model directory, for the tests to spoil."""
    save_model(build_model(model_config()), tmp_path)
    return tmp_path


def change(directory: Path, **values: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refusal(directory: Path, load: Callable[[Path], Any] = load_masked_model) -> str:
    with pytest.raises(PalavraError) as caught:
        load(directory)
    message = str(caught.value)
    assert "\n" not in message
    assert str(directory) in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize(
    "tensor", [torch.zeros(50, 15), torch.zeros(()), torch.zeros(50 * 16), torch.zeros(50, 16, dtype=torch.int8)]
)
def test_weights_that_do_not_fit_are_refused(directory: Path, tensor: Tensor) -> None:
    weights = directory / "model.safetensors"
    save_file({**load_file(weights), "model.embeddings.tok_embeddings.weight": tensor}, weights)
    assert "model.embeddings.tok_embeddings.weight" in refusal(directory)


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was loaded",)


def test_missing_body_weights_are_named(directory: Path) -> None:
    weights = directory / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.Wi.weight"]
    save_file(tensors, weights)
    assert "lack model.layers.1.mlp.Wi.weight" in refusal(directory)


def test_pickled_weights_are_not_read(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    assert "pickled" in refusal(directory)


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "../outside.safetensors"},
        {"a": "/etc/passwd"},
        {"a": ".."},
        {"a": "sub/model.safetensors"},
        {"a": "absent.safetensors"},
        {"a": "nul\0.safetensors"},
        {"a": 3},
        {"a": ["list"]},
        {},
        [],
        None,
    ],
)
def test_an_index_names_only_files_of_its_folder(directory: Path, weight_map: Any) -> None:
    inside = directory / "inside"
    inside.mkdir()
    (directory / "model.safetensors").rename(directory / "outside.safetensors")
    (directory / "config.json").rename(inside / "config.json")
    (inside / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "index.json" in refusal(inside)


WEIGHTS, CONFIG = "model.safetensors", "config.json"
DAMAGED = "model.safetensors is damaged"


def first(part: float) -> Callable[[bytes], bytes]:
    """The first `part` of a file."""
    return lambda content: content[: int(part * len(content))]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (WEIGHTS, None, "no model.safetensors"),
        (WEIGHTS, b"", DAMAGED),
        (WEIGHTS, lambda content: content[:4], DAMAGED),
        (WEIGHTS, lambda content: content[:100], DAMAGED),
        (WEIGHTS, first(0.5), DAMAGED),
        (WEIGHTS, first(0.999), DAMAGED),
        (WEIGHTS, (2**62).to_bytes(8, "little") + b"{}" + bytes(64), "damaged"),  # a lying header
        (WEIGHTS, pickle.dumps(Bomb()), "damaged"),
        (CONFIG, None, "config.json"),
        (CONFIG, b"", "config.json"),
        (CONFIG, b"{", "config.json"),
        (CONFIG, b"[]", "config.json"),
        (CONFIG, b"3", "config.json"),
        (CONFIG, b"\xff\xfe", "config.json"),
        (CONFIG, b"[" * 100_000, "config.json"),
        (CONFIG, b'{"a": 1' + b"0" * 5000 + b"}", "config.json"),
    ],
)
def test_a_file_that_is_missing_or_damaged_is_refused(
    directory: Path, name: str, content: bytes | Callable[[bytes], bytes] | None, said: str
) -> None:
    path = directory / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)
    assert said in refusal(directory)


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    assert "config.json" in refusal(tmp_path)


WRONG_CONFIGS: dict[str, list[dict[str, Any]]] = {
    "modernbert": [
        {"model_type": "gpt2"},
        {"model_type": "t5"},
        {"model_type": None},
        {"model_type": ["bert"]},
        {"hidden_size": None},
        {"hidden_size": "16"},
        {"hidden_size": 16.5},
        {"hidden_size": True},
        {"hidden_size": 15},
        {"hidden_size": 6},
        {"hidden_size": 32},
        {"hidden_size": 2**40},
        {"hidden_size": -16},
        {"vocab_size": 0},
        {"vocab_size": 10**12},
        {"vocab_size": 51},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 3},
        {"num_attention_heads": 0},
        {"num_attention_heads": -2},
        {"intermediate_size": 10**9},
        {"max_position_embeddings": 10**15},
        {"local_attention": 0},
        {"local_attention": 10**30},
        {"local_attention": -8},
        {"layer_types": "full_attention"},
        {"layer_types": ["full_attention"]},
        {"layer_types": ["full_attention", "chunked_attention"]},
        {"layer_types": [["full_attention"], {}]},
        {"hidden_activation": "mish"},
        {"hidden_activation": ["gelu"]},
        {"norm_eps": 0},
        {"norm_eps": math.inf},
        {"norm_eps": math.nan},
        {"norm_eps": 10**400},
        {"attention_bias": "false"},
        {"mlp_dropout": 1.0},
        {"attention_dropout": -0.1},
        {"initializer_range": 0.0},
        {"rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 1e4}}},
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 0}}},
    ],
    "bert": [
        {"is_decoder": True},
        {"position_embedding_type": "relative_key"},
        {"type_vocab_size": -1},
        {"type_vocab_size": 10**12},
    ],
    "llama": [
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}},
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 0}},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 10**300}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 1.0, "beta_slow": 2.0}},
        {"rope_parameters": ["default"]},
        {"head_dim": 4},
        {"head_dim": "8"},
        {"num_key_value_heads": 3},
        {"num_key_value_heads": 0},
        {"num_key_value_heads": -1},
        {"num_key_value_heads": 1},
        {"intermediate_size": 25},
    ],
    "gpt2": [
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"add_cross_attention": True},
        {"activation_function": "tanh"},
        {"n_inner": 23},
        {"n_positions": 63},
    ],
    "roberta": [{"pad_token_id": None}, {"pad_token_id": -1}, {"pad_token_id": 10**6}, {"type_vocab_size": 2}],
    "mpnet": [{"relative_attention_num_buckets": 16}, {"max_position_embeddings": 2}],
    "deberta-v2": [
        {"pos_att_type": ["p2p"]},
        {"pos_att_type": 3},
        {"pos_att_type": []},
        {"norm_rel_ebd": "batch_norm"},
        {"position_buckets": 10**9},
        {"position_buckets": 6},
        {"max_relative_positions": 10**9},
        {"share_att_key": "true"},
        {"legacy": False},
        {"embedding_size": 8},
        {"conv_kernel_size": 10**9},
        {"conv_kernel_size": 3},
        {"relative_attention": False},
    ],
    "electra": [{"embedding_size": 8}, {"embedding_size": 0}, {"embedding_size": 10**12}],
    "nomic_bert": [{"head_dim": 3}, {"head_dim": {}}, {"prenorm": True}, {"activation_function": "gelu"}],
    "mistral": [{"sliding_window": 0}, {"sliding_window": 1}, {"sliding_window": "4096"}, {"head_dim": 10**9}],
    "qwen2": [{"layer_types": ["sliding_attention"] * 2}, {"use_sliding_window": 1}],
    "qwen3": [{"head_dim": 16}, {"head_dim": 0}],
    "smollm3": [
        {"no_rope_layers": [1]},
        {"no_rope_layers": "10"},
        {"no_rope_layers": [1, 2]},
        {"use_sliding_window": True, "sliding_window": 8},
    ],
    "gemma3_text": [
        {"final_logit_softcapping": 30.0},
        {"attn_logit_softcapping": 50.0},
        {"query_pre_attn_scalar": 0},
        {"query_pre_attn_scalar": -4},
        {"query_pre_attn_scalar": "256"},
        {"rope_parameters": {"full_attention": 3}},
        {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
    ],
    "gpt_neox": [
        {"rope_parameters": {"partial_rotary_factor": 0}},
        {"rope_parameters": {"partial_rotary_factor": 1.5}},
        {"use_parallel_residual": None},
        {"attention_bias": False},
    ],
    "modernbert-decoder": [{"local_attention": 0, "layer_types": ["sliding_attention"] * 2}],
}


@pytest.mark.parametrize(
    ("family", "values"), [(family, values) for family, rows in WRONG_CONFIGS.items() for values in rows]
)
def test_a_config_with_wrong_or_insane_values_is_refused(tmp_path: Path, family: str, values: dict[str, Any]) -> None:
    causal = family in CAUSAL
    build, load = (build_causal_model, load_causal_model) if causal else (build_model, load_masked_model)
    save_model(build(model_config(family)), tmp_path)
    load(tmp_path)  # sound before
    change(tmp_path, **values)
    refusal(tmp_path, load)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60)
@given(data=st.data())
def test_any_json_is_read_or_refused(family: str, data: st.DataObject) -> None:
    values = FAMILIES[family].write(model_config(family))
    for key in data.draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=3)):
        values[key] = data.draw(JSON)
    with suppress(PalavraError):
        config = FAMILIES[family].read(values)
        assert FAMILIES[family].read(FAMILIES[family].write(config)).hidden_size == config.hidden_size


def test_each_kind_of_model_is_told_from_the_other(tmp_path: Path) -> None:
    save_model(build_causal_model(model_config("llama")), tmp_path / "causal")
    save_model(build_model(model_config("bert")), tmp_path / "masked")
    assert "it can generate" in refusal(tmp_path / "causal")
    assert "it can fill" in refusal(tmp_path / "masked", load_causal_model)


def test_a_claimed_context_costs_no_memory(directory: Path) -> None:
    """The largest one allowed: a table of its rotary angles would take gigabytes."""
    change(directory, max_position_embeddings=2**22)
    model, _ = load_masked_model(directory)
    assert sum(tensor.numel() for tensor in model.buffers()) < 100
