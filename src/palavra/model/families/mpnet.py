"""MPNet (Song et al. 2020, arXiv:2004.09297): BERT without segments, with a relative bias on attention scores."""

from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import ModelConfig, RelativeAttention
from palavra.model.families.bert import BERT, check_encoder
from palavra.model.families.family import SIZES, Family, Values
from palavra.model.families.parsing import number
from palavra.model.families.roberta import read_positions, task_format, write_positions

# Constants of the class: the row of its first position, and the buckets of distances.
OFFSET, BUCKETS = 2, 32
RELATIVE = RelativeAttention(kind="bias", buckets=BUCKETS, max_distance=128)


def _read_rest(values: Values) -> dict[str, Any]:
    check_encoder(values)
    if (buckets := number(values, "relative_attention_num_buckets", int, BUCKETS)) != BUCKETS:
        raise PalavraError(f"relative_attention_num_buckets is {buckets}: MPNet has {BUCKETS}")
    return read_positions(values, OFFSET)


def _write_rest(config: ModelConfig) -> dict[str, Any]:
    return {"relative_attention_num_buckets": BUCKETS, **write_positions(config)}


MPNET = Family(
    name="mpnet",
    architecture="MPNetForMaskedLM",
    body="mpnet",
    fixed={**BERT.fixed, "head_activation": "gelu", "position_offset": OFFSET, "relative": RELATIVE},
    config={
        **SIZES,
        **{name: BERT.config[name] for name in (
            "activation", "norm_eps", "tied_embeddings", "dropout", "attention_dropout"
        )},
    },
    read_rest=_read_rest,
    write_rest=_write_rest,
    weights={
        "transformer.embeddings.token": "mpnet.embeddings.word_embeddings",
        "transformer.embeddings.position": "mpnet.embeddings.position_embeddings",
        "transformer.embeddings.norm": "mpnet.embeddings.LayerNorm",
        "transformer.distances.embedding": "mpnet.encoder.relative_attention_bias",
        "head.dense": "lm_head.dense",
        "head.norm": "lm_head.layer_norm",
        "head": "lm_head.decoder",
    },
    tied_head_bias="lm_head.bias",
    layers="mpnet.encoder.layer",
    layer_weights={
        "attention.qkv": ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        "attention.out": ("attention.attn.o",),
        "attention_norm": ("attention.LayerNorm",),
        "mlp.up": ("intermediate.dense",),
        "mlp.down": ("output.dense",),
        "mlp_norm": ("output.LayerNorm",),
    },
    proportions=lambda values: {"norm_eps": 1e-5, "pad_id": 1 if values["pad_id"] is None else values["pad_id"]},
    task_format=task_format("MPNet", "mpnet"),
)  # fmt: skip
