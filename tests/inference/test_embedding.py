"""Vectors of texts: those of sentence-transformers, of every kind of model, and what is saved for it."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import transformers
from builders.scoring import SENTENCES
from builders.sentence_models import WIDTH, layers_after, plain, save_sentence_model, theirs
from safetensors.torch import load_file, save_file

import palavra
from palavra.errors import PalavraError
from palavra.model.pooling import PoolingMode
from palavra.model.sentence_modules import modules_to_keep, read_sentence_modules, write_sentence_modules
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TEXTS = [*SENTENCES, "", "  O Gato  ", "o rato " * 60, "É Σ İ 🙂"]
PROMPTS = {"query": "o gato: ", "document": "", "title": "a "}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(SENTENCES * 5, TokenizerConfig(algorithm="wordpiece", vocab_size=300))


@pytest.fixture(scope="module")
def bert(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain(tokenizer, tmp_path_factory.mktemp("bert"))


def assert_same(directory: Path, ours: dict[str, Any] | None = None, **options: Any) -> None:
    """Vectors of texts in a packed batch equal theirs."""
    found = palavra.load(directory).encode(TEXTS, **ours or {})
    np.testing.assert_allclose(found, theirs(directory).encode(TEXTS, **options), atol=1e-5)


@pytest.mark.parametrize("mode", get_args(PoolingMode))
@pytest.mark.parametrize("include_prompt", [True, False])
def test_every_pooling_gives_their_vectors_with_and_without_prompt(
    bert: Path, tmp_path: Path, mode: str, include_prompt: bool
) -> None:
    model = save_sentence_model(bert, tmp_path, [mode], include_prompt=include_prompt, prompts=PROMPTS)
    assert_same(model)
    assert_same(model, {"prompt": "query"}, prompt_name="query")
    assert_same(model, {"prompt": "um: "}, prompt="um: ")


def test_modules_follow_each_other_as_theirs(bert: Path, tmp_path: Path) -> None:
    modes = ["max", "cls", "mean"]
    model = save_sentence_model(
        bert, tmp_path / "theirs", modes, layers_after(len(modes) * WIDTH), length=20, lowercase=True,
        prompts=PROMPTS, default_prompt_name="title", similarity_fn_name="manhattan",
    )  # fmt: skip
    assert_same(model)
    assert_same(model, {"prompt": ""}, prompt="")
    assert_same(model, {"normalize": True, "truncate_dim": 5}, normalize_embeddings=True, truncate_dim=5)
    loaded = palavra.load(model)
    assert [one.truncated for one in loaded.embed(TEXTS)] == [len(text) > 300 for text in TEXTS]
    # What is written from it is the same model again, in both programs.
    modules = read_sentence_modules(model)
    assert modules is not None
    copied = plain(loaded.tokenizer, tmp_path / "ours")
    write_sentence_modules(modules, copied, loaded.model.config)
    np.testing.assert_allclose(palavra.load(copied).encode(TEXTS), loaded.encode(TEXTS), atol=1e-6)
    assert_same(copied)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_vectors_are_compared_as_theirs(bert: Path, tmp_path: Path, name: Any) -> None:
    model = save_sentence_model(bert, tmp_path, similarity_fn_name=name)
    loaded, other = palavra.load(model), theirs(model)
    vectors = loaded.encode(TEXTS)
    expected = other.similarity(vectors, vectors[:3]).numpy()
    np.testing.assert_allclose(loaded.similarity(vectors, vectors[:3]), expected, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama", "gpt2"])
def test_a_model_without_modules_has_their_default_pooling(tokenizer: Tokenizer, tmp_path: Path, family: str) -> None:
    directory = plain(tokenizer, tmp_path, family)
    if family != "gpt2":  # whose class they do not know as a causal one
        assert_same(directory)
    config = palavra.load(directory).model.config
    write_sentence_modules(modules_to_keep(None, config.causal, pytest.fail), directory, config)
    assert_same(directory)
    token = palavra.load(directory).embed("o gato dorme", "token")
    assert len(token.vectors) == len(token.offsets) > 0


def test_earlier_files_of_theirs_are_read(bert: Path, tmp_path: Path) -> None:
    model = save_sentence_model(bert, tmp_path, ["mean"])
    flags = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    (model / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": WIDTH, **flags}))
    assert palavra.load(model).encode("o gato").shape == (2 * WIDTH,)
    assert_same(model)


def change(file: Path, values: dict[str, Any]) -> None:
    """Change the object in a file, or the second one of its list."""
    content = json.loads(file.read_text())
    (content[1] if isinstance(content, list) else content).update(values)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("modules.json", {"path": "1_Pooling", "type": "sentence_transformers.models.CNN"}, "models.CNN"),
        ("modules.json", {"path": "1_Pooling", "type": "os.system"}, "os.system"),
        ("modules.json", {"path": "../1_Pooling"}, "not a folder beside it"),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "pooling_mode"),
        ("2_Dense/config.json", {"activation_function": "os.system"}, "os.system"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.modules.linear.Linear"}, "Linear is not supported"),
        ("2_Dense/config.json", {"out_features": 2**30}, "out_features"),
        ("2_Dense/config.json", {"out_features": 2**10}, "of shape"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "module_input_name"),
        ("2_Dense/config.json", {"in_features": 15}, "of shape"),
        ("sentence_bert_config.json", {"query_template": "x"}, "query_template"),
        ("config_sentence_transformers.json", {"default_prompt_name": "no"}, "default_prompt_name"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "SparseEncoder"),
    ],
)
def test_what_is_not_supported_is_refused_by_name_and_hinders_nothing_else(
    bert: Path, tmp_path: Path, file: str, values: dict[str, Any], said: str
) -> None:
    model = save_sentence_model(bert, tmp_path, ["mean"], layers_after(WIDTH)[:1])
    change(model / file, values)
    loaded = palavra.load(model)
    with pytest.raises(PalavraError, match=said) as caught:
        loaded.encode("o gato")
    assert "\n" not in str(caught.value)


def test_layers_that_do_not_fit_the_pooling_are_one_line(bert: Path, tmp_path: Path) -> None:
    model = save_sentence_model(bert, tmp_path, ["mean", "max"], layers_after(2 * WIDTH)[:1])
    with pytest.raises(PalavraError, match="reads vectors of 32 numbers, and the pooling mean gives 16"):
        palavra.load(model).encode("o gato", "mean")
    weights = model / "2_Dense" / "model.safetensors"
    save_file({"linear.weight": load_file(weights)["linear.weight"]}, weights)
    with pytest.raises(PalavraError, match=r"lack linear\.bias"):
        palavra.load(model).encode("o gato")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompt": "querry"}, "its prompts are query, document, title"),
        ({"truncate_dim": 17}, "it must be 1 to 16"),
        ({"truncate_dim": 0}, "it must be 1 to 16"),
        ({"pooling": "token"}, "no single array"),
    ],
)
def test_wrong_options_are_one_line(bert: Path, tmp_path: Path, options: Any, said: str) -> None:
    model = palavra.load(save_sentence_model(bert, tmp_path, prompts=PROMPTS))
    with pytest.raises(PalavraError, match=said):
        model.encode("o gato", **options)


def test_tokens_of_a_prompt_are_not_tokens_of_the_text(bert: Path, tmp_path: Path) -> None:
    model = palavra.load(save_sentence_model(bert, tmp_path, prompts=PROMPTS))
    text = "O rato dorme"
    alone, prompted = model.embed(text, "token"), model.embed(text, "token", prompt="query")
    assert prompted.offsets == alone.offsets
    assert prompted.vectors.shape == alone.vectors.shape
    assert not np.allclose(prompted.vectors, alone.vectors)


def test_a_text_that_spells_a_special_token_is_ordinary_text(bert: Path) -> None:
    model = palavra.load(bert)
    assert len(model.embed("[SEP]", "token").offsets) > 1
