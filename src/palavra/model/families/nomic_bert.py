"""Nomic BERT (Nussbaum et al. 2024, arXiv:2402.01613): BERT with rotary positions and gated feed-forward parts."""

from typing import Any

from palavra.errors import PalavraError
from palavra.model.families.bert import BERT, check_encoder
from palavra.model.families.encoder_heads import encoder_task_format
from palavra.model.families.family import Family, Values
from palavra.model.families.parsing import number
from palavra.model.families.rope import read_rope, write_rope

THETA = 1_000.0
# Entries of the older layout that describe other models.
_KNOWN = {
    "activation_function": "swiglu", "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False,
    "prenorm": False, "use_rms_norm": False, "causal": False, "parallel_block": False, "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False, "rotary_emb_scale_base": None,
}  # fmt: skip


def _read_rest(values: Values) -> dict[str, Any]:
    check_encoder(values)
    width, heads = number(values, "hidden_size", int), number(values, "num_attention_heads", int)
    if values.get("head_dim") is not None and number(values, "head_dim", int) * heads != width:
        raise PalavraError("head_dim times num_attention_heads is not hidden_size")
    for name, known in _KNOWN.items():
        if values.get(name, known) != known:
            raise PalavraError(f"{name} is {str(values[name])[:40]}: only {known} is supported for Nomic BERT")
    return read_rope(values, THETA)


NOMIC_BERT = Family(
    name="nomic_bert",
    architecture="NomicBertForMaskedLM",
    body="nomic_bert",
    fixed={
        "norm": "post", "positions": "rotary", "gated": True, "norm_bias": True, "head_bias": True,
        "activation": "silu", "head_activation": "silu",
    },
    config={
        **BERT.config,
        "context": BERT.config["context"]._replace(default=2048),
        "activation": BERT.config["activation"]._replace(default="silu"),
        "head_activation": BERT.config["activation"]._replace(default="silu"),
        "dropout": BERT.config["dropout"]._replace(default=0.0),
        "attention_dropout": BERT.config["attention_dropout"]._replace(default=0.0),
    },
    older_names={
        "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
        "n_inner": "intermediate_size", "max_trained_positions": "max_position_embeddings",
        "layer_norm_epsilon": "layer_norm_eps", "rotary_emb_base": "rope_theta", "resid_pdrop": "hidden_dropout_prob",
        "attn_pdrop": "attention_probs_dropout_prob",
    },
    read_rest=_read_rest,
    write_rest=lambda config: {"head_dim": config.head_width, **write_rope(config)},
    weights={
        "transformer.embeddings.token": "nomic_bert.embeddings.word_embeddings",
        "transformer.embeddings.segment": "nomic_bert.embeddings.token_type_embeddings",
        "transformer.embeddings.norm": "nomic_bert.emb_ln",
        "head.dense": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.layer_norm",
        "head": "cls.predictions.decoder",
    },
    tied_head_bias="cls.predictions.bias",
    layers="nomic_bert.encoder.layers",
    layer_weights={
        "attention.qkv": ("attn.Wqkv",),
        "attention.out": ("attn.out_proj",),
        "attention_norm": ("norm1",),
        "mlp.up": ("mlp.fc12", "mlp.fc11"),
        "mlp.down": ("mlp.fc2",),
        "mlp_norm": ("norm2",),
    },
    proportions=lambda values: {
        "segments": 2, "norm_eps": 1e-12, "rope_theta_global": THETA, "pad_id": values["pad_id"] or 0
    },
    task_format=encoder_task_format(
        "NomicBert", hidden="nomic_bert.pooler.dense", forms=("SequenceClassification", "TokenClassification")
    ),
)  # fmt: skip
