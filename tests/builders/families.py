"""Small random models of `transformers`, of every family that Palavra has."""

from typing import Any

import torch
import transformers
from torch import Tensor

from builders.models import scramble, unpack
from palavra.batch import Batch

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

LENGTHS = [40, 1, 23, 8]
SIZES: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
ROLES = {"bos_token_id": None, "eos_token_id": None, "cls_token_id": 2, "sep_token_id": 3}
CAUSAL_ROLES = {"bos_token_id": 2, "eos_token_id": 3}
_GROUPS = {"num_key_value_heads": 2, "num_attention_heads": 4}
_DEBERTA: dict[str, Any] = {
    "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
}  # fmt: skip
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
_YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
_TWO_THETAS = {
    "full_attention": {"rope_type": "default", "rope_theta": 500.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
}
_KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
# What differs from the defaults of the family's configuration, case by case.
CASES: dict[str, list[dict[str, Any]]] = {
    "bert": [
        {},
        {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5},
        {"hidden_act": "relu", "type_vocab_size": 3},
        {"tie_word_embeddings": False},
    ],
    "roberta": [{}, {"pad_token_id": 1, "type_vocab_size": 1, "hidden_act": "relu"}, {"tie_word_embeddings": False}],
    "xlm-roberta": [{"pad_token_id": 1, "type_vocab_size": 1}, {"pad_token_id": 4, "tie_word_embeddings": False}],
    "camembert": [{"pad_token_id": 1}],
    "distilbert": [{}, {"activation": "relu"}, {"tie_word_embeddings": False}],
    "mpnet": [{}, {"pad_token_id": 1, "hidden_act": "relu"}, {"tie_word_embeddings": False}],
    "deberta-v2": [
        _DEBERTA,
        _DEBERTA | {"share_att_key": False, "norm_rel_ebd": "none", "position_buckets": -1},
        _DEBERTA | {"pos_att_type": "c2p", "max_relative_positions": 20, "type_vocab_size": 2},
        _DEBERTA | {"pos_att_type": "p2c", "share_att_key": False, "position_biased_input": True},
        _DEBERTA | {"conv_kernel_size": 3, "conv_act": "gelu", "tie_word_embeddings": False},
        _DEBERTA | {"conv_kernel_size": 5, "num_hidden_layers": 1},
        {"type_vocab_size": 2},
    ],
    "electra": [{"embedding_size": 12}, {"embedding_size": 16}, {"embedding_size": 20, "tie_word_embeddings": False}],
    "modernbert": [
        {"local_attention": 8},
        {"local_attention": 8, "attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True},
        {"local_attention": 6, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
        {"local_attention": 9, "decoder_bias": False, "norm_eps": 1e-6, "hidden_activation": "silu"},
        {"local_attention": 8, "tie_word_embeddings": False, "classifier_activation": "gelu_new"},
        {"local_attention": 8, "rope_parameters": _TWO_THETAS},
    ],
    "eurobert": [
        {},
        _GROUPS | {"mlp_bias": True, "attention_bias": True, "tie_word_embeddings": True},
        {"head_dim": 12, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ],
    "nomic_bert": [{}, {"hidden_act": "gelu", "tie_word_embeddings": False, "type_vocab_size": 3}],
    "llama": [
        {},
        _GROUPS,
        {"num_key_value_heads": 1, "num_attention_heads": 4, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
        {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "head_dim": 12},
        {"rope_parameters": _LLAMA3},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 100.0}},
        {"rope_parameters": _YARN, "hidden_size": 32},
        {"rope_parameters": _YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "truncate": False, "attention_factor": 1.3},
         "hidden_size": 32},
        {"rope_parameters": _YARN | {"mscale": 1.5, "mscale_all_dim": 0.7}, "hidden_size": 32},
    ],
    "mistral": [
        _GROUPS | {"sliding_window": 5},
        {"sliding_window": None, "head_dim": 12},
        {"sliding_window": 5, "rope_parameters": _LLAMA3},
    ],
    "qwen2": [
        _GROUPS,
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
        {"use_sliding_window": True, "sliding_window": 5, "layer_types": _KINDS, "rope_parameters": _YARN,
         "hidden_size": 32},
        {"tie_word_embeddings": True},
    ],
    "qwen3": [_GROUPS | {"head_dim": 12}, {"attention_bias": True, "head_dim": 8}, {"tie_word_embeddings": True}],
    "smollm3": [_GROUPS, {"no_rope_layers": [0, 1, 0]}, {"no_rope_layer_interval": 2, "attention_bias": True}],
    "gemma3_text": [
        _GROUPS | {"head_dim": 12, "layer_types": _KINDS, "sliding_window": 5},
        {"query_pre_attn_scalar": 24, "num_key_value_heads": 1, "tie_word_embeddings": False, "head_dim": 8},
        {"sliding_window": 5, "sliding_window_pattern": 3, "num_key_value_heads": 1, "head_dim": 8, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
        }},
    ],
    "gpt2": [
        {"n_inner": 24},
        {"n_inner": None, "tie_word_embeddings": False},
        {"n_inner": 24, "activation_function": "relu", "layer_norm_epsilon": 1e-3},
    ],
    "gpt_neox": [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}},
        {"use_parallel_residual": False, "hidden_act": "gelu_new", "hidden_size": 32},
        {"attention_bias": False, "tie_word_embeddings": True, "hidden_size": 32},
    ],
    "modernbert-decoder": [
        {"local_attention": 8},
        {"local_attention": 8, "attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True,
         "layer_types": _KINDS, "decoder_bias": False},
        {"local_attention": 8, "tie_word_embeddings": False, "rope_parameters": _TWO_THETAS},
    ],
}  # fmt: skip
CAUSAL = (
    "llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma3_text", "gpt2", "gpt_neox", "modernbert-decoder"
)  # fmt: skip


def their_config(family: str, changes: dict[str, Any], **more: Any) -> Any:
    """The configuration of a small model."""
    roles = CAUSAL_ROLES if family in CAUSAL else ROLES
    groups = {"num_key_value_heads": 2} if family in ("mistral", "qwen2", "qwen3", "smollm3") else {}
    return transformers.AutoConfig.for_model(family, **SIZES | roles | groups | changes | more)


def auto_class(family: str) -> Any:
    return transformers.AutoModelForCausalLM if family in CAUSAL else transformers.AutoModelForMaskedLM


def theirs(family: str, changes: dict[str, Any] | None = None, auto: Any = None, **more: Any) -> Any:
    """A random model in evaluation mode: a language model, or of another `auto` class."""
    config = their_config(family, CASES[family][0] if changes is None else changes, **more)
    model = (auto or auto_class(family)).from_config(config, attn_implementation="eager")
    torch.manual_seed(1)
    scramble(model)
    return model.eval()


def their_logits(model: Any, batch: Batch) -> Tensor:
    """(N, V), each document alone."""
    with torch.inference_mode():
        return torch.cat([model(torch.from_numpy(sample.input_ids)[None]).logits[0] for sample in unpack(batch)])


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal within 1e-4, and not because all are nearly equal."""
    assert float(expected.std()) > 0.02
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
