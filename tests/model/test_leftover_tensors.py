"""Every tensor of a file is used, known to be safe to leave, or named; numbers are those of `transformers`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from builders.families import CAUSAL
from builders.models import build_causal_model, build_model, model_config, random_batch, run
from safetensors.torch import load_file, save_file
from torch import Tensor

from palavra.errors import PalavraError
from palavra.model.directory import load_causal_model, load_masked_model, read_config, save_model
from palavra.model.families import FAMILIES
from palavra.model.heads import VocabularyModel
from palavra.tasks.saved_model import build_task_model, load_pretrained

MATRIX = {name: f"{family.weights['head']}.weight" for name, family in FAMILIES.items()}


def saved(family: str, folder: Path, **changes: Any) -> Path:
    """A directory of a random model."""
    config = model_config(family, **changes)
    save_model(build_causal_model(config) if family in CAUSAL else build_model(config), folder)
    return folder


def change(folder: Path, values: dict[str, Any], tensors: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Change the configuration (None removes a key) and the weights of a directory."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if values.get(key, key) is not None}))
    weights = load_file(folder / "model.safetensors")
    save_file(tensors(weights), folder / "model.safetensors", {"format": "pt"})


def load(family: str, folder: Path) -> VocabularyModel:
    """The model of a directory; nothing of it is missing."""
    found = load_causal_model(folder) if family in CAUSAL else load_masked_model(folder)
    assert not found.missing
    return found.model.eval()


def ours(family: str, folder: Path, ids: list[int]) -> Tensor:
    """The logits of one sequence, (tokens, V)."""
    model = load(family, folder)
    batch = random_batch([len(ids)], labelled=False)
    batch.input_ids.copy_(torch.tensor(ids))
    with torch.no_grad():
        return model.logits(run(model, batch))


def theirs(family: str, folder: Path, ids: list[int]) -> Tensor:
    """The same from `transformers`."""
    kind = transformers.AutoModelForCausalLM if family in CAUSAL else transformers.AutoModelForMaskedLM
    model = kind.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        found: Tensor = model(torch.tensor([ids])).logits[0]
    return found


IDS = [7, 9, 11, 30, 8, 45]


@pytest.mark.parametrize("said", [True, None])
@pytest.mark.parametrize("family", MATRIX)
def test_a_matrix_of_the_heads_own_is_used_though_the_configuration_ties_it(
    family: str, said: bool | None, tmp_path: Path
) -> None:
    folder = saved(family, tmp_path / "m", tied_embeddings=False)
    untied = ours(family, folder, IDS)
    if said is None and not FAMILIES[family].config["tied_embeddings"].default:
        said = True  # such a family is not tied if nothing is said
    change(folder, {"tie_word_embeddings": said}, lambda weights: weights)
    assert torch.equal(ours(family, folder, IDS), untied)
    torch.testing.assert_close(ours(family, folder, IDS), theirs(family, folder, IDS), atol=1e-4, rtol=1e-4)
    assert not load(family, folder).config.tied_embeddings


@pytest.mark.parametrize("family", MATRIX)
def test_a_second_copy_of_the_matrix_is_no_matrix_of_its_own(family: str, tmp_path: Path) -> None:
    folder = saved(family, tmp_path / "m", tied_embeddings=True)
    tied = ours(family, folder, IDS)
    tokens = f"{FAMILIES[family].weights['transformer.embeddings.token']}.weight"
    change(folder, {}, lambda weights: {**weights, MATRIX[family]: weights[tokens].clone()})
    assert torch.equal(ours(family, folder, IDS), tied)
    assert load(family, folder).config.tied_embeddings
    if family in CAUSAL:  # the embedding may be the one that is not there
        change(folder, {}, lambda weights: {key: value for key, value in weights.items() if key != tokens})
        assert torch.equal(ours(family, folder, IDS), tied)


@pytest.mark.parametrize("kept", [("bias", "decoder.bias"), ("decoder.bias",)], ids=str)
def test_the_bias_of_a_tied_bert_is_the_decoders(kept: tuple[str, ...], tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "m", tied_embeddings=True)

    def with_biases(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        bias = weights.pop("cls.predictions.bias")
        both = {"bias": bias + 1, "decoder.bias": bias.flip(0)}
        return {**weights, **{f"cls.predictions.{name}": both[name].clone() for name in kept}}

    change(folder, {}, with_biases)
    torch.testing.assert_close(ours("bert", folder, IDS), theirs("bert", folder, IDS), atol=1e-4, rtol=1e-4)


LEFT: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "layers": ("bert", {"num_hidden_layers": 1}, {}),
    "layers of llama": ("llama", {"num_hidden_layers": 1}, {}),
    "layers of gpt2": ("gpt2", {"n_layer": 1}, {}),
    "attention biases": ("llama", {}, {"model.layers.0.self_attn.q_proj.bias": "model.norm.weight"}),
    "biases of modernbert": ("modernbert", {}, {"model.layers.0.attn.Wqkv.bias": "model.final_norm.weight"}),
    "an adapter": ("bert", {}, {"bert.encoder.layer.0.attention.self.query.lora_A.weight": "cls.predictions.bias"}),
    "the head's bias": ("llama", {}, {"lm_head.bias": "model.norm.weight"}),
    "the dense layer's bias": ("modernbert", {}, {"head.dense.bias": "head.norm.weight"}),
    "without a prefix": ("gpt2", {}, {"h.5.ln_1.weight": "transformer.ln_f.weight"}),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_would_be_computed_without_is_named(name: str, tmp_path: Path) -> None:
    family, values, added = LEFT[name]
    folder = saved(family, tmp_path / "m")
    if family == "modernbert":
        values = {**values, "layer_types": None}
    change(folder, values, lambda weights: {**weights, **{new: weights[old].clone() for new, old in added.items()}})
    with pytest.raises(PalavraError, match=r"the weights hold \S+, for which config\.json has no place") as caught:
        load(family, folder)
    assert "\n" not in str(caught.value)
    if family not in CAUSAL and "head" not in name and "dense" not in name:
        with pytest.raises(PalavraError, match=r"for which config\.json has no place"):
            load_pretrained(build_task_model(read_config(folder), {}), folder)


SAFE = {
    "bert": ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "cls.seq_relationship.weight",
             "bert.embeddings.position_ids", "classifier.weight"),
    "modernbert": ("classifier.weight",),
    "llama": ("model.layers.0.self_attn.rotary_emb.inv_freq", "score.weight"),
    "gpt2": ("transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias", "h.0.attn.bias"),
}  # fmt: skip


@pytest.mark.parametrize("family", SAFE)
def test_other_heads_and_constants_are_left(family: str, tmp_path: Path) -> None:
    folder = saved(family, tmp_path / "m")
    before = ours(family, folder, IDS)
    change(folder, {}, lambda weights: {**weights, **{name: torch.ones(2, 2) for name in SAFE[family]}})
    assert torch.equal(ours(family, folder, IDS), before)


def test_a_head_without_its_matrix_is_no_bare_encoder(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "m", tied_embeddings=False)
    change(folder, {}, lambda weights: {k: v for k, v in weights.items() if k != MATRIX["bert"]})
    with pytest.raises(PalavraError, match=r"the weights lack cls\.predictions\.decoder\.weight"):
        load_masked_model(folder)
