"""DeBERTa v2 and v3 (He et al. 2021, arXiv:2006.03654 and 2111.09543): BERT with disentangled attention."""

from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import HeadActivation, ModelConfig, RelativeAttention
from palavra.model.families.bert import BERT, check_encoder
from palavra.model.families.encoder_heads import encoder_task_format
from palavra.model.families.family import Family, Values
from palavra.model.families.parsing import activation, activation_name, flag, number


def _read_rest(values: Values) -> dict[str, Any]:
    check_encoder(values)
    width = number(values, "hidden_size", int)
    if number(values, "embedding_size", int, width) != width or number(values, "conv_groups", int, 1) != 1:
        raise PalavraError("an embedding_size of its own and conv_groups are not supported for DeBERTa")
    if values.get("legacy", True) is not True or values.get("pooler_hidden_act", "gelu") != "gelu":
        raise PalavraError("only legacy true and pooler_hidden_act 'gelu' are supported for DeBERTa")
    relative = _read_relative(values) if flag(values, "relative_attention", False) else None
    scores = 1 + (relative is not None and relative.content_to_position + relative.position_to_content)
    units = width // max(1, number(values, "num_attention_heads", int))
    return {
        "relative": relative,
        "positions": "learned" if flag(values, "position_biased_input", True) else "none",
        "attention_scale": (units * scores) ** -0.5 if scores > 1 and units else None,
        "convolution": max(0, number(values, "conv_kernel_size", int, 0)),
        "convolution_activation": _read_activation(values),
    }


def _read_relative(values: Values) -> RelativeAttention:
    kinds = values.get("pos_att_type") or []
    kinds = [kind.strip() for kind in kinds.lower().split("|")] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or not kinds or not set(map(str, kinds)) <= {"c2p", "p2c"}:
        raise PalavraError(f"pos_att_type is {str(kinds)[:40]}: only c2p and p2c are supported")
    farthest, buckets = number(values, "max_relative_positions", int, -1), number(values, "position_buckets", int, -1)
    norms = values.get("norm_rel_ebd", "none")
    if norms not in ("none", "layer_norm"):
        raise PalavraError(f"norm_rel_ebd {str(norms)[:40]!r} is not supported")
    return RelativeAttention(
        kind="disentangled",
        buckets=max(0, buckets),
        max_distance=farthest if farthest > 0 else number(values, "max_position_embeddings", int, 512),
        content_to_position="c2p" in kinds,
        position_to_content="p2c" in kinds,
        shared_projections=flag(values, "share_att_key", False),
        norm=norms == "layer_norm",
    )


def _read_activation(values: Values) -> HeadActivation:
    return "tanh" if values.get("conv_act", "tanh") == "tanh" else activation(values, "conv_act")


def _write_rest(config: ModelConfig) -> dict[str, Any]:
    act = config.convolution_activation
    name = act if act == "tanh" or act == "sigmoid" else activation_name(act)
    convolution = {"conv_kernel_size": config.convolution, "conv_act": name}
    values = {
        "relative_attention": config.relative is not None,
        "position_biased_input": config.positions == "learned",
        "pooler_hidden_act": "gelu",
        "pooler_hidden_size": config.hidden_size,
        **(convolution if config.convolution else {}),
    }
    relative = config.relative
    if relative is None:
        return values
    kinds = {"p2c": relative.position_to_content, "c2p": relative.content_to_position}
    return values | {
        "pos_att_type": [kind for kind, used in kinds.items() if used],
        "position_buckets": relative.buckets or -1,
        "max_relative_positions": relative.max_distance,
        "share_att_key": relative.shared_projections,
        "norm_rel_ebd": "layer_norm" if relative.norm else "none",
    }


def _proportions(values: Values) -> dict[str, Any]:
    """Return what version 3 has: no positions but relative ones, in 256 buckets, or half of the context."""
    units = values["hidden_size"] // values["num_heads"]
    buckets = max(4, min(256, values["context"] // 2 // 2 * 2))
    return {
        "positions": "none", "segments": 0, "norm_eps": 1e-7, "attention_scale": (3 * units) ** -0.5,
        "relative": RelativeAttention(
            kind="disentangled", buckets=buckets, max_distance=max(values["context"], buckets)
        ),
    }  # fmt: skip


DEBERTA_V2 = Family(
    name="deberta-v2",
    architecture="DebertaV2ForMaskedLM",
    body="deberta",
    fixed=BERT.fixed,
    config={
        **BERT.config,
        "segments": BERT.config["segments"]._replace(default=0),
        "norm_eps": BERT.config["norm_eps"]._replace(default=1e-7),
    },
    read_rest=_read_rest,
    write_rest=_write_rest,
    weights={
        **{ours: theirs.replace("bert.", "deberta.", 1) for ours, theirs in BERT.weights.items() if ".emb" in ours},
        "transformer.distances.embedding": "deberta.encoder.rel_embeddings",
        "transformer.distances.norm": "deberta.encoder.LayerNorm",
        "transformer.convolution.conv": "deberta.encoder.conv.conv",
        "transformer.convolution.norm": "deberta.encoder.conv.LayerNorm",
        **{ours: theirs for ours, theirs in BERT.weights.items() if ours.startswith("head")},
    },
    tied_head_bias=BERT.tied_head_bias,
    layers="deberta.encoder.layer",
    layer_weights={
        **BERT.layer_weights,
        "attention.qkv": ("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
        "attention.relative.key": ("attention.self.pos_key_proj",),
        "attention.relative.query": ("attention.self.pos_query_proj",),
    },
    proportions=_proportions,
    task_format=encoder_task_format("DebertaV2", hidden="pooler.dense", activation="gelu", dropout="cls_dropout"),
)  # fmt: skip
