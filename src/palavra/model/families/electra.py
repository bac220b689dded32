"""ELECTRA (Clark et al. 2020, arXiv:2003.10555): BERT whose embeddings may be narrower than its layers.

Two models share the format: the generator predicts hidden tokens, the discriminator says which tokens were replaced.
"""

from typing import Any

from palavra.model.families.bert import BERT, check_encoder
from palavra.model.families.encoder_heads import encoder_task_format
from palavra.model.families.family import Family, Values
from palavra.model.families.parsing import number


def _read_rest(values: Values) -> dict[str, Any]:
    check_encoder(values)
    width, inner = number(values, "embedding_size", int, 128), number(values, "hidden_size", int)
    return {"embedding_size": None if width == inner else width}


ELECTRA = Family(
    name="electra",
    architecture="ElectraForMaskedLM",
    body="electra",
    fixed={**BERT.fixed, "head_activation": "gelu"},
    config={name: key for name, key in BERT.config.items() if name != "head_activation"},
    read_rest=_read_rest,
    write_rest=lambda config: {"embedding_size": config.embedding_width},
    weights={
        **{ours: theirs.replace("bert.", "electra.") for ours, theirs in BERT.weights.items() if ".emb" in ours},
        "transformer.embeddings.project": "electra.embeddings_project",
        "head.dense": "generator_predictions.dense",
        "head.norm": "generator_predictions.LayerNorm",
        "head": "generator_lm_head",
    },
    layers="electra.encoder.layer",
    layer_weights=BERT.layer_weights,
    proportions=BERT.proportions,
    task_format=encoder_task_format(
        "Electra", hidden="sequence_summary.summary", activation="gelu",
        of_texts=("classifier.dense", "classifier.out_proj"),
    ),
)  # fmt: skip
