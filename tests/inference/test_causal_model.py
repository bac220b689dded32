"""A causal model in use: generated texts, streams, scores, and directories that cannot generate."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from builders.models import CPU, build_causal_model, layout_of, model_config
from builders.scoring import SENTENCES, causal_model, masked_model

import palavra
from palavra.batch import Sample, pack
from palavra.errors import PalavraError
from palavra.inference import causal
from palavra.inference.causal import CausalModel
from palavra.inference.mixed import MixedModel
from palavra.inference.scoring import score_masked
from palavra.inference.streaming import generate_all, score_all
from palavra.model.cache import Decoder
from palavra.model.directory import save_model
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module", params=["wordpiece", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.train(SENTENCES * 5, TokenizerConfig(algorithm=request.param, vocab_size=300))


def test_a_directory_generates_streams_and_scores(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_model(causal_model(tokenizer).model, tmp_path)
    tokenizer.save(tmp_path)
    model = CausalModel.load(tmp_path)
    ((one, two), (three, _)) = model.generate(["O rato", ""], max_tokens=12, samples=2, seed=1)
    assert one.text != two.text
    assert model.generate("O rato", max_tokens=12, samples=2, seed=1)[1] == two
    assert "".join(model.stream("", max_tokens=12, seed=1)) == three.text
    never = {tokenizer.cls_id, tokenizer.pad_id, tokenizer.mask_id}
    assert never.isdisjoint({t for row in model.generate([""] * 40, seed=2, max_tokens=30) for t in row.tokens})
    assert model.generate("漢字 never seen ☃", max_tokens=3, temperature=0).tokens
    with pytest.raises(PalavraError, match="context of 64"):
        model.generate("rato " * 100, max_tokens=3)
    with pytest.raises(PalavraError, match="context of 64"):
        model.stream("rato " * 100, max_tokens=3)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_samples_do_not_depend_on_how_many_are_made_at_once(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.train(SENTENCES * 5, TokenizerConfig(vocab_size=300))
    model = causal_model(tokenizer)
    options: dict[str, Any] = {"max_tokens": 6, "samples": 5, "seed": 1}
    expected = model.generate(["O rato", "", "A"], **options)
    assert len({one.tokens for one in expected[0]}) == 5
    made: list[int] = []
    keep = Decoder.__init__

    def counted(decoder: Decoder, steps: Any, count: int, capacity: int) -> None:
        made.append(count)
        keep(decoder, steps, count, capacity)

    monkeypatch.setattr(causal, "ROWS_AT_ONCE", rows)
    monkeypatch.setattr(Decoder, "__init__", counted)
    assert model.generate(["O rato", "", "A"], **options) == expected
    assert max(made) <= rows
    assert sum(made) == 15


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_a_model_of_both_kinds_is_used_as_either(tokenizer: Tokenizer, family: str, tmp_path: Path) -> None:
    network = masked_model(tokenizer, family)
    save_model(network, tmp_path, {"pretraining_objective": "causal+masked"})
    tokenizer.save(tmp_path)
    model = palavra.load(tmp_path, device="cpu")
    assert isinstance(model, MixedModel)
    text = "O rato roeu"
    ids = tokenizer.encode(text)
    whole = pack([Sample(input_ids=np.array([tokenizer.cls_id, *ids]))])
    with torch.inference_mode():
        logits = torch.log_softmax(network.logits(network(whole, layout_of(whole), causal=True)), -1)
    expected = [float(logits[row, id]) for row, id in enumerate(ids)]
    (score,) = score_all(model, [text], per_token=True, masking="none")
    assert [one.log_probability for one in score.per_token] == pytest.approx(expected, abs=1e-4)
    assert [model.score(text)] == score_masked(network, tokenizer, CPU, [text])
    ((prompt, (one,)),) = generate_all(model, [text], {"max_tokens": 5, "temperature": 0})
    special = sorted(tokenizer.special_ids - {tokenizer.sep_id, tokenizer.unk_id})
    allowed = logits[-1].index_fill(0, torch.tensor(special), -math.inf)
    assert (prompt, one.tokens[0]) == (text, int(allowed.argmax()))
    assert "".join(model.stream(text, max_tokens=5, temperature=0)) == one.text
    assert model.embed(text)
    model.check_offers("generate")
    save_model(network, tmp_path)
    with pytest.raises(PalavraError, match='for models trained with objective="causal'):
        list(score_all(palavra.load(tmp_path, kind="masked", device="cpu"), [text], masking="none"))


def test_nothing_gives_nothing(tokenizer: Tokenizer) -> None:
    model = causal_model(tokenizer)
    assert model.generate([]) == []
    assert model.score([]) == []
    assert score_masked(masked_model(tokenizer), tokenizer, CPU, []) == []


def test_a_vocabulary_padded_by_the_model_is_never_left(tokenizer: Tokenizer) -> None:
    """Some models have more rows than their tokenizer has entries."""
    config = model_config("llama", vocab_size=tokenizer.vocab_size + 200)
    model = CausalModel(build_causal_model(config), tokenizer, CPU)
    for found in model.generate(["", "O rato"], max_tokens=40):
        assert max(found.tokens) < tokenizer.vocab_size


def test_one_stop_string_is_one(tokenizer: Tokenizer) -> None:
    model = causal_model(tokenizer)
    free = model.generate("O rato", max_tokens=30).text
    stop = free[2:5]
    found = model.generate("O rato", max_tokens=30, stop=stop)
    assert found.text == free.split(stop)[0]
    assert found.reason == "stop"


def test_directories_that_cannot_generate_say_what_they_can(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_model(masked_model(tokenizer), tmp_path / "masked")
    tokenizer.save(tmp_path / "masked")
    with pytest.raises(PalavraError, match="it can fill blanks"):
        CausalModel.load(tmp_path / "masked")
    with pytest.raises(PalavraError, match="not a folder"):
        CausalModel.load(tmp_path / "nowhere")
    body = transformers.LlamaModel(
        transformers.LlamaConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1,
                                 num_attention_heads=2, intermediate_size=8)
    )  # fmt: skip
    body.save_pretrained(tmp_path / "body")
    tokenizer.save(tmp_path / "body")
    loaded = CausalModel.load(tmp_path / "body")
    assert loaded.encode("o gato").shape == (16,)
    (tmp_path / "texts.txt").write_text("o gato\n")
    asked: tuple[Callable[[], object], ...] = (
        lambda: loaded.generate("o"), lambda: loaded.stream("o"), lambda: loaded.score("o"),
        lambda: loaded.evaluate(["o"]), lambda: palavra.evaluate(tmp_path / "body", tmp_path / "texts.txt"),
    )  # fmt: skip
    for ask in asked:
        with pytest.raises(PalavraError, match="bare body"):
            ask()
