"""Each family computes what `transformers` computes, and its directories go both ways."""

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from builders.families import CASES, CAUSAL, CAUSAL_ROLES, LENGTHS, ROLES, assert_same, auto_class, their_logits, theirs
from builders.models import build_causal_model, build_model, model_config, random_batch, run, unpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from palavra.batch import Batch
from palavra.model.config import ModelConfig, RelativeAttention, RopeScaling
from palavra.model.directory import (
    load_causal_model,
    load_masked_model,
    load_weights_into,
    read_config,
    save_model,
    write_weights,
)
from palavra.model.families import FAMILIES, family_named
from palavra.model.families.storage import Keys, Stored
from palavra.model.heads import MaskedLanguageModel, VocabularyModel
from palavra.recipe import FamilyName
from palavra.report.parts import FAMILIES as NAMES

PAIRS = [(family, case) for family, cases in CASES.items() for case in cases]


def our_logits(model: VocabularyModel, batch: Batch, backend: str = "rows", width: int = 0) -> Tensor:
    """(N, V), all documents packed."""
    with torch.inference_mode():
        return model.logits(run(model.eval(), batch, backend, width))


def build(config: ModelConfig, seed: int = 0) -> VocabularyModel:
    """A model of the kind that the family is for, scrambled."""
    return build_causal_model(config, seed=seed) if config.causal else build_model(config, seed=seed)


def load(directory: Path, family: str) -> tuple[VocabularyModel, tuple[str, ...]]:
    """The model of a directory, and what was missing."""
    return load_causal_model(directory) if family in CAUSAL else load_masked_model(directory)


@pytest.mark.parametrize(("family", "changes"), PAIRS)
def test_directories_of_transformers_give_their_logits(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    reference = theirs(family, changes)
    reference.save_pretrained(tmp_path)
    model, missing = load(tmp_path, family)
    assert missing == ()
    assert model.config.family == family
    batch = random_batch(LENGTHS)
    expected = their_logits(reference, batch)
    for backend, width in (("rows", 0), ("rows", 64), ("reference", 0)):
        assert_same(our_logits(model, batch, backend, width), expected)


@pytest.mark.parametrize(("family", "changes"), PAIRS)
def test_our_directories_load_in_transformers(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """No missing, unexpected or mismatched keys; the same logits."""
    theirs(family, changes).save_pretrained(tmp_path / "theirs")
    model = build(read_config(tmp_path / "theirs"), seed=2)
    save_model(model, tmp_path / "ours", CAUSAL_ROLES if family in CAUSAL else ROLES)
    loaded, report = auto_class(family).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert {key: value for key, value in report.items() if value} == {}
    assert type(loaded).__name__ == FAMILIES[family].architecture
    batch = random_batch(LENGTHS)
    assert_same(our_logits(model, batch), their_logits(loaded.eval(), batch))


def test_new_models_load_in_transformers(tmp_path: Path) -> None:
    """With proportions of their own, and in a context where local layers begin to matter."""
    for family, context in (("modernbert", 200), ("gemma3_text", 600), *((family, 64) for family in FAMILIES)):
        config = family_named(family, "test").new(
            vocab_size=60, hidden_size=32, num_layers=4, num_heads=4, context=context, pad_id=0, dropout=0.1
        )
        model = build(config)
        save_model(model, tmp_path, CAUSAL_ROLES if family in CAUSAL else ROLES)
        loaded, report = auto_class(family).from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report.values())
        batch = random_batch([context, 5], vocab_size=60)
        assert_same(our_logits(model, batch), their_logits(loaded.eval(), batch))


def test_local_layers_follow_the_context() -> None:
    new = FAMILIES["modernbert"].new
    short = new(vocab_size=50, hidden_size=32, num_layers=4, num_heads=2, context=128)
    long = new(vocab_size=50, hidden_size=32, num_layers=4, num_heads=2, context=512)
    assert short.layer_kinds == ("global",) * 4
    assert long.layer_kinds == ("global", "local", "local", "global")
    assert long.window == 64


# Fields that a family may have in its table, and values for them.
FIELDS = {
    "norm_eps": st.sampled_from([1e-5, 1e-12]),
    "tied_embeddings": st.booleans(),
    "activation": st.sampled_from(["gelu", "gelu_tanh", "relu", "silu"]),
    "head_activation": st.sampled_from(["gelu", "gelu_tanh", "relu", "silu"]),
    "dropout": st.sampled_from([0.0, 0.25]),
    "attention_dropout": st.sampled_from([0.0, 0.25]),
    "segments": st.integers(1, 3),
    **{name: st.booleans() for name in ("norm_bias", "attention_bias", "mlp_bias", "head_bias", "decoder_bias")},
}
# What a family has besides its table.
KINDS = {"layer_kinds": st.tuples(*[st.sampled_from(["global", "local"])] * 2), "window": st.integers(1, 9)}
THETAS = {"rope_theta_global": st.sampled_from([1e4, 123.5])}
SCALING = st.one_of(
    st.none(),
    st.builds(RopeScaling, kind=st.just("linear"), factor=st.sampled_from([2.0, 0.5])),
    st.builds(
        RopeScaling, kind=st.sampled_from(["llama3", "yarn"]), factor=st.just(4.0), original_context=st.integers(1, 99)
    ),
)
DISENTANGLED = st.builds(
    RelativeAttention, kind=st.just("disentangled"), buckets=st.sampled_from([0, 8]), max_distance=st.just(12),
    shared_projections=st.booleans(), norm=st.booleans(), content_to_position=st.booleans(),
)  # fmt: skip
FURTHER: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "modernbert": KINDS | THETAS,
    "modernbert-decoder": KINDS | THETAS,
    "electra": {"embedding_size": st.sampled_from([None, 6])},
    "deberta-v2": {"positions": st.sampled_from(["learned", "none"]), "convolution": st.sampled_from([0, 3])},
    "llama": THETAS | {"rope_scaling": SCALING, "head_dim": st.sampled_from([None, 6])},
    "qwen3": THETAS | {"head_dim": st.sampled_from([None, 6])},
    "smollm3": {"layer_kinds": st.tuples(*[st.sampled_from(["global", "nope"])] * 2)},
    "gemma3_text": KINDS | THETAS | {"causal": st.booleans()},
    "gpt_neox": {"norm": st.sampled_from(["parallel", "pre"]), "rotary_fraction": st.sampled_from([0.25, 0.5, 1.0])},
}


@st.composite
def configs(draw: st.DrawFn, family: str) -> ModelConfig:
    known = FAMILIES[family]
    fields = {name: strategy for name, strategy in FIELDS.items() if name in known.config}
    values = draw(st.fixed_dictionaries(fields | FURTHER.get(family, {})))
    if "head_activation" in values and known.config["head_activation"].name == known.config["activation"].name:
        values["head_activation"] = values["activation"]
    if family == "eurobert":
        values["decoder_bias"] = values["mlp_bias"]
    heads, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    if known.fixed.get("norm_kind"):
        values["num_kv_heads"] = heads
    if family == "deberta-v2":
        values["relative"] = draw(st.none() | DISENTANGLED)
        terms = 0 if values["relative"] is None else 1 + values["relative"].content_to_position
        values["attention_scale"] = (8 * (1 + terms)) ** -0.5 if terms else None
    if values.get("causal") is False:
        values["head_transform"] = False
    return known.new(
        vocab_size=draw(st.integers(1, 40)),
        num_heads=heads * groups,
        hidden_size=8 * heads * groups,
        num_layers=2,
        context=draw(st.integers(1, 20)),
        intermediate_size=draw(st.integers(1, 20)),
        pad_id=draw(st.sampled_from([None, 0])),
        initializer_range=draw(st.sampled_from([0.02, 0.5])),
        **values,
    )


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_saving_and_loading_is_identity(tmp_path: Path, family: str, data: st.DataObject) -> None:
    config = data.draw(configs(family))
    model = build(config)
    save_model(model, tmp_path)
    loaded, missing = load_causal_model(tmp_path) if config.causal else load_masked_model(tmp_path)
    assert loaded.config == config
    assert missing == ()
    assert set(loaded.state_dict()) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_body_lacks_only_its_head(family: str, tmp_path: Path) -> None:
    whole = theirs(family, tie_word_embeddings=False)
    body = getattr(whole, whole.base_model_prefix)
    body.save_pretrained(tmp_path)
    model, missing = load(tmp_path, family)
    assert missing
    assert all(name.startswith("head.") for name in missing)
    batch = random_batch(LENGTHS)
    with torch.inference_mode():
        expected = [body(torch.from_numpy(s.input_ids)[None]).last_hidden_state[0] for s in unpack(batch)]
        assert_same(run(model.eval(), batch), torch.cat(expected))


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    reference = theirs("bert", {})
    reference.to(torch.bfloat16).save_pretrained(tmp_path)
    model, _ = load_masked_model(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    batch = random_batch(LENGTHS)
    assert_same(our_logits(model, batch), their_logits(reference.float(), batch))


def test_sharded_weights_load(tmp_path: Path) -> None:
    reference = theirs("modernbert", {})
    reference.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    batch = random_batch(LENGTHS)
    assert_same(our_logits(load_masked_model(tmp_path).model, batch), their_logits(reference, batch))


def test_names_of_tensorflow_checkpoints_load(tmp_path: Path) -> None:
    model = build_model(model_config("bert"))
    save_model(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for key, tensor in tensors.items()
    }
    assert old.keys() != tensors.keys()
    save_file(old, tmp_path / "model.safetensors")
    loaded, missing = load_masked_model(tmp_path)
    assert missing == ()
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_the_older_layout_of_llama_is_read() -> None:
    values = FAMILIES["llama"].write(model_config("llama"))
    for key in ("rope_parameters", "head_dim", "num_key_value_heads"):
        del values[key]
    values |= {"rope_theta": 321.0, "rope_scaling": None}
    config = FAMILIES["llama"].read(values)
    assert config.rope_theta_global == 321.0
    assert config.num_kv_heads == config.num_heads


def test_the_older_layout_of_modernbert_is_read() -> None:
    values = FAMILIES["modernbert"].write(model_config(num_layers=4, layer_kinds=("global",) * 4))
    for key in ("layer_types", "rope_parameters"):
        del values[key]
    values |= {"global_attn_every_n_layers": 2, "global_rope_theta": 500.0, "local_rope_theta": 30}
    config = FAMILIES["modernbert"].read(values)
    assert config.layer_kinds == ("global", "local") * 2
    assert (config.rope_theta_global, config.rope_theta_local) == (500.0, 30.0)


def test_fresh_weights_are_small_and_residual_outputs_smaller() -> None:
    torch.manual_seed(0)
    config = FAMILIES["modernbert"].new(vocab_size=500, hidden_size=64, num_layers=8, num_heads=2, context=64)
    model = MaskedLanguageModel(config)
    spread = {name: float(p.detach().std()) for name, p in model.named_parameters() if p.ndim == 2}
    trunc = 0.88 * config.initializer_range  # standard deviation of a normal cut at two of its own
    for name, value in spread.items():
        shrunk = name.endswith(("attention.out.weight", "mlp.down.weight"))
        assert value == pytest.approx(trunc / (4 if shrunk else 1), rel=0.06), name
    assert all(np.allclose(p.detach(), 0) for n, p in model.named_parameters() if n.endswith("bias"))


def test_weights_of_any_module_go_through_a_directory(tmp_path: Path) -> None:
    """Parts of unequal size, transposed ones, a second copy; what the directory lacks stays as it is."""
    module, other = (torch.nn.Linear(3, 5) for _ in range(2))
    keys: Keys = {"weight": Stored(("a", "b"), (1, 4), transposed=True), "bias": ("c",)}
    write_weights(module, keys, {"again": "c"}, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {"a": (3, 1), "b": (3, 4), "c": (5,), "again": (5,)}
    before = other.bias.detach().clone()
    assert load_weights_into(other, {"weight": keys["weight"]}, {}, tmp_path) == ("bias",)
    assert torch.equal(other.weight, module.weight)
    assert torch.equal(other.bias, before)
    del tensors["c"]
    save_file(tensors, tmp_path / "model.safetensors")
    assert load_weights_into(other, keys, {"again": "c"}, tmp_path) == ()
    assert torch.equal(other.bias, module.bias)


def test_the_page_lists_every_family_with_its_heads() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| .* \| (masked|next) tokens \| (.*) \|$", page, re.MULTILINE)
    words = {"SequenceClassification": "texts", "TokenClassification": "tokens", "QuestionAnswering": "answers",
             "MultipleChoice": "choices"}  # fmt: skip
    expected = []
    for name, family in FAMILIES.items():
        heads = ", ".join(words[form] for form in family.task_format.forms)
        expected.append((name, "next" if name in CAUSAL else "masked", heads))
    assert rows == expected
    assert set(get_args(FamilyName)) == set(FAMILIES) == set(NAMES)
    assert f"[{len(FAMILIES)} families]" in (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
