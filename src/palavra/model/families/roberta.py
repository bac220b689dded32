"""RoBERTa (Liu et al. 2019, arXiv:1907.11692): BERT whose positions begin after the number of the padding token."""

from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import ModelConfig
from palavra.model.families.bert import BERT, check_encoder
from palavra.model.families.encoder_heads import encoder_task_format
from palavra.model.families.family import SIZES, Family, Key, TaskFormat, Values
from palavra.model.families.parsing import number

PAD = 1  # where none is given


def _read_rest(values: Values) -> dict[str, Any]:
    check_encoder(values)
    pad = number(values, "pad_token_id", int, PAD)
    return {"pad_id": pad, **read_positions(values, pad + 1)}


def read_positions(values: Values, offset: int) -> dict[str, Any]:
    """Return the fields for positions that begin at row `offset` of their matrix."""
    rows = number(values, "max_position_embeddings", int, 512)
    if not 0 < offset < rows:
        raise PalavraError(f"max_position_embeddings is {rows}, but positions begin at {offset}")
    return {"context": rows - offset, "position_offset": offset}


def write_positions(config: ModelConfig) -> dict[str, Any]:
    """Return the entry of `config.json`; undoes `read_positions`."""
    return {"max_position_embeddings": config.context + config.position_offset}


def _proportions(values: Values) -> dict[str, Any]:
    pad = PAD if values["pad_id"] is None else values["pad_id"]
    return {"segments": 1, "norm_eps": 1e-5, "pad_id": pad, "position_offset": pad + 1}


def task_format(prefix: str, body: str = "roberta") -> TaskFormat:
    """Return the format of a family whose classes start with `prefix` and call the body `body`."""
    of_texts = ("classifier.dense", "classifier.out_proj")
    return encoder_task_format(prefix, hidden=f"{body}.pooler.dense", of_texts=of_texts)


ROBERTA = Family(
    name="roberta",
    architecture="RobertaForMaskedLM",
    body="roberta",
    fixed={**BERT.fixed, "head_activation": "gelu"},
    config={
        **SIZES,
        "segments": Key("type_vocab_size", 2),
        **{name: BERT.config[name] for name in (
            "activation", "norm_eps", "tied_embeddings", "dropout", "attention_dropout"
        )},
    },
    read_rest=_read_rest,
    write_rest=write_positions,
    weights={
        **{ours: theirs.replace("bert.", "roberta.") for ours, theirs in BERT.weights.items() if ".emb" in ours},
        "head.dense": "lm_head.dense",
        "head.norm": "lm_head.layer_norm",
        "head": "lm_head.decoder",
    },
    tied_head_bias="lm_head.bias",
    layers="roberta.encoder.layer",
    layer_weights=BERT.layer_weights,
    proportions=_proportions,
    task_format=task_format("Roberta"),
)  # fmt: skip
