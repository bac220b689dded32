"""Likelihoods equal a plain loop over `transformers`; pairs, windows and units of measure."""

import bz2
import gzip
import io
import json
import lzma
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from builders.models import CPU, Shelf, build_causal_model, build_model, layout_of, model_config
from hypothesis import given
from hypothesis import strategies as st

import palavra
from palavra.batch import Sample, pack
from palavra.errors import PalavraError
from palavra.inference import causal, scoring
from palavra.inference.causal import CausalModel, context_windows, evaluate_causal, next_token_losses
from palavra.inference.evaluation import EvalSet
from palavra.inference.minimal_pairs import MinimalPair, compare_pairs, read_pairs
from palavra.inference.mixed import MixedModel
from palavra.inference.scoring import Score, masked_copies, score_masked
from palavra.inference.streaming import generate_all, score_all
from palavra.model.cache import Decoder
from palavra.model.directory import save_model
from palavra.model.heads import MaskedLanguageModel
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SENTENCES = ["O rato roeu a roupa do rei de Roma.", "A águia voa alto no céu azul.", "O gato preto correu pela casa."]
TEXTS = [*SENTENCES, "rato", "", "desconhecido de 漢字", "O rato roeu a roupa. " * 2]


@pytest.fixture(scope="module", params=["wordpiece", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.train(SENTENCES * 5, TokenizerConfig(algorithm=request.param, vocab_size=300))


def masked_model(tokenizer: Tokenizer, family: str = "modernbert") -> MaskedLanguageModel:
    return build_model(model_config(family, vocab_size=tokenizer.vocab_size))


def causal_model(tokenizer: Tokenizer, family: str = "llama", context: int = 64) -> CausalModel:
    config = model_config(family, vocab_size=tokenizer.vocab_size, context=context)
    return CausalModel(build_causal_model(config), tokenizer, CPU)


# Pseudo-log-likelihood


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("masking", ["token", "word"])
def test_pseudo_log_likelihoods_equal_a_plain_loop(
    tokenizer: Tokenizer, family: str, masking: Any, tmp_path: Path
) -> None:
    model = masked_model(tokenizer, family)
    save_model(model, tmp_path)
    reference = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    found = score_masked(model, tokenizer, CPU, TEXTS, masking=masking, per_token=True)
    for text, score in zip(TEXTS, found, strict=True):
        ids = tokenizer.encode(text)
        expected = []
        for i, id in enumerate(ids):
            whole = torch.tensor([tokenizer.cls_id, *ids, tokenizer.sep_id])
            stop = i + 1
            while masking == "word" and stop < len(ids) and not tokenizer.starts_word[ids[stop]]:
                stop += 1
            whole[i + 1 : stop + 1] = tokenizer.mask_id
            with torch.inference_mode():
                expected.append(float(torch.log_softmax(reference(whole[None]).logits[0, i + 1], -1)[id]))
        assert score.tokens == len(ids)
        assert [one.log_probability for one in score.per_token] == pytest.approx(expected, abs=1e-3)
        assert score.log_likelihood == pytest.approx(sum(expected), abs=1e-3)


def test_the_rest_of_the_word_is_hidden_and_nothing_else() -> None:
    tokenizer = Tokenizer.train(SENTENCES * 5, TokenizerConfig(algorithm="wordpiece", vocab_size=60))
    ids = tokenizer.encode("ratoeu rato roeroma")
    words = np.cumsum(tokenizer.starts_word[ids])
    assert words.max() < len(ids)
    for i, sample in enumerate(masked_copies(ids, tokenizer, "word")):
        hidden = sample.input_ids[1:-1] == tokenizer.mask_id
        assert hidden.tolist() == [j >= i and words[j] == words[i] for j in range(len(ids))]
        assert sample.labels is not None
        assert sample.labels.tolist() == [ids[i]]
    for i, sample in enumerate(masked_copies(ids, tokenizer, "token")):
        assert np.flatnonzero(sample.input_ids == tokenizer.mask_id).tolist() == [i + 1]


def test_per_token_detail_points_into_the_text(tokenizer: Tokenizer) -> None:
    text = "O rato roeu."
    (score,) = score_masked(masked_model(tokenizer), tokenizer, CPU, [text], per_token=True)
    assert sum(one.log_probability for one in score.per_token) == pytest.approx(score.log_likelihood)
    assert "".join(text[one.start : one.stop] for one in score.per_token) == text.replace(" ", "")
    assert score_masked(masked_model(tokenizer), tokenizer, CPU, [text])[0].per_token == ()


def test_a_text_longer_than_the_context_of_a_masked_model_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(PalavraError, match="reads at most 64"):
        score_masked(masked_model(tokenizer), tokenizer, CPU, ["rato " * 70])


def test_many_texts_are_scored_as_each_alone(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 16)
    model = masked_model(tokenizer)
    together = score_masked(model, tokenizer, CPU, TEXTS)
    for text, score in zip(TEXTS, together, strict=True):
        (alone,) = score_masked(model, tokenizer, CPU, [text])
        assert score.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-4)


# Log-likelihood


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_log_likelihoods_equal_those_of_transformers(tokenizer: Tokenizer, family: str, tmp_path: Path) -> None:
    model = causal_model(tokenizer, family)
    save_model(model.model, tmp_path, {"bos_token_id": tokenizer.cls_id, "eos_token_id": tokenizer.sep_id})
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    for text, score in zip(TEXTS, model.score(TEXTS, per_token=True), strict=True):
        whole = torch.tensor([[tokenizer.cls_id, *tokenizer.encode(text)]])
        with torch.inference_mode():
            expected = torch.log_softmax(reference(whole).logits[0, :-1], -1).gather(1, whole[0, 1:, None])[:, 0]
        assert [one.log_probability for one in score.per_token] == pytest.approx(expected.tolist(), abs=1e-4)
        assert score.log_likelihood == pytest.approx(float(expected.sum()), abs=1e-3)


def test_units_of_measure(tokenizer: Tokenizer) -> None:
    text = "A ação é boa"
    score = causal_model(tokenizer).score(text)
    assert (score.words, score.bytes) == (4, 15)
    nats = -score.log_likelihood
    assert score.perplexity == pytest.approx(math.exp(nats / len(tokenizer.encode(text))))
    assert score.perplexity_per_word == pytest.approx(math.exp(nats / 4))
    assert score.bits_per_byte == pytest.approx(nats / 15 / math.log(2))
    empty = causal_model(tokenizer).score("")
    assert empty.log_likelihood == 0
    assert math.isnan(empty.perplexity)
    assert math.isnan(empty.bits_per_byte)


@given(st.integers(0, 200), st.integers(1, 40), st.booleans())
def test_windows_predict_each_token_once(length: int, context: int, sliding: bool) -> None:
    found = context_windows(length, context, sliding)
    assert [i for _, scored, stop in found for i in range(scored, stop)] == list(range(length))
    assert all(0 < stop - start <= context for start, _, stop in found)
    if sliding:
        assert all(scored - start >= context // 2 for start, scored, _ in found[1:])
    else:
        assert all(start == scored for start, scored, _ in found)


@pytest.mark.parametrize("sliding", [False, True])
def test_long_texts_are_read_in_windows(tokenizer: Tokenizer, sliding: bool) -> None:
    model = causal_model(tokenizer, context=16)
    ids = np.random.default_rng(0).integers(5, tokenizer.vocab_size, size=53)
    (found,) = next_token_losses(model.model, [ids], CPU, 2, sliding=sliding)
    for start, scored, stop in context_windows(53, 16, sliding):
        before = int(ids[start - 1]) if start else 2
        (alone,) = next_token_losses(model.model, [ids[start:stop]], CPU, before, sliding=False)
        assert found[scored:stop] == pytest.approx(alone[scored - start :], abs=1e-4)


def held_out(lengths: Sequence[int], size: int) -> EvalSet:
    shelf = Shelf.random(lengths, vocab_size=size)
    return EvalSet(documents=shelf, lengths=shelf.lengths, cls_id=2, sep_id=3)


def test_evaluation_is_the_mean_over_all_tokens_and_ends(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal, "TOKENS_AT_ONCE", 30)
    model = causal_model(tokenizer)
    text = held_out([9, 30, 2, 70, 1, 12], tokenizer.vocab_size)
    shelf = text.documents
    assert isinstance(shelf, Shelf)
    documents = [np.append(document, 3) for document in shelf.documents]
    losses = np.concatenate(next_token_losses(model.model, documents, CPU, 2, sliding=False))
    found = evaluate_causal(model.model, text, CPU, decode=tokenizer.decode)
    assert found.tokens == 124 + 6
    assert found.loss == pytest.approx(losses.mean(), rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(losses.mean()), rel=1e-6)
    size = sum(len(tokenizer.decode(document.tolist()).encode()) for document in shelf.documents)
    assert found.bits_per_byte == pytest.approx(losses.sum() / size / math.log(2), rel=1e-6)
    assert json.loads(json.dumps(found.to_json()))["tokens"] == 130
    bare = evaluate_causal(model.model, text, CPU, limit=20)
    assert bare.tokens < 130
    assert bare.bits_per_byte is None


def test_evaluation_of_texts_counts_their_own_bytes() -> None:
    tokenizer = Tokenizer.train(SENTENCES * 5, TokenizerConfig(algorithm="bpe", vocab_size=300))
    model = causal_model(tokenizer)
    found = model.evaluate(SENTENCES)
    ids = tokenizer.encode_many(SENTENCES)
    shelf = Shelf([np.array(one) for one in ids])
    same = evaluate_causal(
        model.model, EvalSet(documents=shelf, lengths=shelf.lengths, cls_id=2, sep_id=3), CPU, sliding=True,
        decode=tokenizer.decode,
    )  # fmt: skip
    assert found.loss == pytest.approx(same.loss)
    assert found.tokens == same.tokens
    assert found.bits_per_byte == pytest.approx(same.bits_per_byte)
    assert found.perplexity_per_word == pytest.approx(same.perplexity_per_word)


def test_no_text_to_evaluate_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(PalavraError, match="no text"):
        evaluate_causal(causal_model(tokenizer).model, held_out([], 50), CPU)


# Using a causal model


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
    with pytest.raises(PalavraError, match="bare body"):
        CausalModel.load(tmp_path / "body")


# Minimal pairs


def scores(texts: Sequence[str]) -> list[Score]:
    """Shorter is likelier."""
    return [Score(text, -float(len(text)), 1, 1, len(text)) for text in texts]


def test_accuracy_by_phenomenon(tmp_path: Path) -> None:
    lines: list[dict[str, str]] = [
        {"sentence_good": "a", "sentence_bad": "bb", "UID": "one", "field": "syntax"},
        {"sentence_good": "aaa", "sentence_bad": "bb", "UID": "one"},
        {"sentence_good": "a", "sentence_bad": "bb", "UID": "one"},
        {"sentence_good": "aa", "sentence_bad": "bb", "linguistics_term": "tie"},
        {"sentence_good": "a", "sentence_bad": "bb"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)))
    pairs = read_pairs(path)
    assert pairs[0] == MinimalPair("a", "bb", "one")
    found = compare_pairs(pairs, scores)
    assert {one.phenomenon: (one.pairs, one.accuracy) for one in found.phenomena} == {
        "one": (3, pytest.approx(2 / 3)),
        "tie": (1, 0.5),
        "all": (1, 1.0),
    }
    assert found.pairs == 5
    assert found.accuracy == pytest.approx(3.5 / 5)


def test_both_kinds_of_model_compare_pairs(tokenizer: Tokenizer) -> None:
    pairs = [MinimalPair("O rato roeu.", "O roeu rato.", "order"), MinimalPair("A águia voa.", "A voa águia.", "order")]
    causal, masked = causal_model(tokenizer), masked_model(tokenizer)
    for score in (causal.score, lambda texts: score_masked(masked, tokenizer, CPU, texts)):
        right = [score([p.good])[0].log_likelihood > score([p.bad])[0].log_likelihood for p in pairs]
        assert compare_pairs(pairs, score).accuracy == np.mean(right)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"sentence_good": "a"}', ":1: sentence_bad"),
        (b'{"sentence_good": "a", "sentence_bad": "b"}\n[1]', ":2: a JSON list, not an object"),
        (b'\n{"sentence_good": 3, "sentence_bad": "b"}', ":2: sentence_good"),
        (b"{", ":1: not valid JSON"),
        (b"", "holds no records"),
        (b"\xff\xfe\x00", ":1: byte 0xff is not valid utf-8"),
    ],
)
def test_broken_pairs_are_refused_with_their_line(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(PalavraError, match=what) as caught:
        read_pairs(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_of_pairs_is_refused(tmp_path: Path) -> None:
    for name in ("pairs.jsonl", "pairs"):
        with pytest.raises(PalavraError, match=rf"{name}: [^\n]*(no such file|cannot be opened)[^\n]*$"):
            read_pairs(tmp_path / name)


def test_pairs_are_read_from_whatever_holds_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [MinimalPair("a", "b", "one"), MinimalPair("é", "d", "two")]
    columns = {"sentence_good": ["a", "é"], "sentence_bad": ["b", "d"], "UID": ["one", "two"]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()
    for name, content in (
        ("pairs", lines),
        ("pairs.bz2", bz2.compress(lines)),
        ("pairs.jsonl.gz", gzip.compress(lines)),
        ("pairs.jsonl.xz", lzma.compress(lines)),
        ("pairs.jsonl.zst", pa.compress(lines, "zstd", asbytes=True)),
        ("pairs.json", json.dumps(rows).encode()),
        ("pairs.csv", "sentence_good,sentence_bad,UID\na,b,one\né,d,two\n".encode()),
    ):
        (tmp_path / name).write_bytes(content)
        assert read_pairs(tmp_path / name) == expected, name
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    assert read_pairs(tmp_path / "pairs.parquet") == expected
    (tmp_path / "latin.jsonl").write_bytes(lines.decode().encode("latin-1"))
    assert read_pairs(tmp_path / "latin.jsonl", encoding="latin-1") == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert read_pairs("-") == expected
