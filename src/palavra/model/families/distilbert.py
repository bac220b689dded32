"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108): BERT without segments, in half of the layers."""

from dataclasses import replace

from palavra.model.config import HeadConfig
from palavra.model.families.bert import BERT
from palavra.model.families.encoder_heads import encoder_task_format
from palavra.model.families.family import Family, Key, Values
from palavra.model.families.parsing import number


def _read_head(values: Values) -> HeadConfig:
    return HeadConfig(dropout=number(values, "seq_classif_dropout", float, 0.2))


DISTILBERT = Family(
    name="distilbert",
    architecture="DistilBertForMaskedLM",
    body="distilbert",
    # The norms' epsilon is a constant of the class.
    fixed={**BERT.fixed, "norm_eps": 1e-12},
    config={
        "hidden_size": Key("dim"),
        "num_layers": Key("n_layers"),
        "num_heads": Key("n_heads"),
        "intermediate_size": Key("hidden_dim"),
        "context": Key("max_position_embeddings", 512),
        "activation": Key("activation", "gelu"),
        "head_activation": Key("activation", "gelu"),
        "tied_embeddings": Key("tie_word_embeddings", True),
        "dropout": Key("dropout", 0.1),
        "attention_dropout": Key("attention_dropout", 0.1),
    },
    weights={
        "transformer.embeddings.token": "distilbert.embeddings.word_embeddings",
        "transformer.embeddings.position": "distilbert.embeddings.position_embeddings",
        "transformer.embeddings.norm": "distilbert.embeddings.LayerNorm",
        "head.dense": "vocab_transform",
        "head.norm": "vocab_layer_norm",
        "head": "vocab_projector",
    },
    layers="distilbert.transformer.layer",
    layer_weights={
        "attention.qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention.out": ("attention.out_lin",),
        "attention_norm": ("sa_layer_norm",),
        "mlp.up": ("ffn.lin1",),
        "mlp.down": ("ffn.lin2",),
        "mlp_norm": ("output_layer_norm",),
    },
    # The class has a default of its own, whatever the body's dropout is.
    task_format=replace(
        encoder_task_format("DistilBert", hidden="pre_classifier", activation="relu", dropout="seq_classif_dropout"),
        read=_read_head,
    ),
)
