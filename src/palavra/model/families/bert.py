"""BERT (Devlin et al. 2019, arXiv:1810.04805): learned positions, segments, post-norm, GELU."""

from typing import Any

from palavra.errors import PalavraError
from palavra.model.families.encoder_heads import encoder_task_format
from palavra.model.families.family import SIZES, Family, Key, Values


def _read_rest(values: Values) -> dict[str, Any]:
    check_encoder(values)
    return {}


def check_encoder(values: Values) -> None:
    """Raise PalavraError for what a family of BERT's kind can be, and Palavra cannot."""
    if values.get("is_decoder") or values.get("add_cross_attention"):
        raise PalavraError("a decoder of this family is not supported; use an encoder")
    kind = values.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise PalavraError(f"position_embedding_type {str(kind)[:40]!r} is not supported, only 'absolute'")


BERT = Family(
    name="bert",
    architecture="BertForMaskedLM",
    body="bert",
    fixed={
        "norm": "post", "positions": "learned", "gated": False, "norm_bias": True, "attention_bias": True,
        "mlp_bias": True, "head_bias": True,
    },
    config={
        **SIZES,
        "context": Key("max_position_embeddings", 512),
        "segments": Key("type_vocab_size", 2),
        "head_activation": Key("hidden_act", "gelu"),
        "activation": Key("hidden_act", "gelu"),
        "norm_eps": Key("layer_norm_eps", 1e-12),
        "tied_embeddings": Key("tie_word_embeddings", True),
        "dropout": Key("hidden_dropout_prob", 0.1),
        "attention_dropout": Key("attention_probs_dropout_prob", 0.1),
    },
    read_rest=_read_rest,
    weights={
        "transformer.embeddings.token": "bert.embeddings.word_embeddings",
        "transformer.embeddings.position": "bert.embeddings.position_embeddings",
        "transformer.embeddings.segment": "bert.embeddings.token_type_embeddings",
        "transformer.embeddings.norm": "bert.embeddings.LayerNorm",
        "head.dense": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.LayerNorm",
        "head": "cls.predictions.decoder",
    },
    tied_head_bias="cls.predictions.bias",
    layers="bert.encoder.layer",
    layer_weights={
        "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.out": ("attention.output.dense",),
        "attention_norm": ("attention.output.LayerNorm",),
        "mlp.up": ("intermediate.dense",),
        "mlp.down": ("output.dense",),
        "mlp_norm": ("output.LayerNorm",),
    },
    proportions=lambda values: {"segments": 2, "norm_eps": 1e-12},
    task_format=encoder_task_format("Bert", hidden="bert.pooler.dense"),
)  # fmt: skip
