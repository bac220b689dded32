"""Next-sentence prediction: pairs, sentences, the loss of BertForPreTraining, directories it reads."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from builders.models import CLS, CPU, SEP, Shelf, layout_of, model_config, scramble, vocabulary
from builders.tasks import trained
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import palavra
from palavra.cli import app
from palavra.data.loader import Packed, assemble
from palavra.data.packing import Cursor, Pieces, one_pass
from palavra.errors import PalavraError
from palavra.inference.evaluation import EvalSet
from palavra.inference.next_sentence import evaluate_next_sentence
from palavra.model import directory
from palavra.model.directory import save_model
from palavra.model.next_sentence import NextSentenceModel, load_next_sentence_model, save_next_sentence_model
from palavra.objectives.config import MaskingConfig
from palavra.objectives.next_sentence import RANDOM, NextSentenceObjective, PairBatch, Sentences, pair_up
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

CONTEXT = 24
END = 5  # the token that ends a sentence


def sentences(size: int = 50) -> Sentences:
    """Every token a word, one of them ending a sentence."""
    marks = np.zeros(size, dtype=bool)
    marks[END] = True
    nothing = np.zeros(size, dtype=bool)
    return Sentences(ends=marks, ends_always=nothing, closes=nothing, starts_word=~nothing)


def pack_pieces(pieces: list[list[int]], documents: list[int]) -> Packed:
    """[CLS] piece [SEP] for every piece, end to end."""
    ids = np.concatenate([np.array([CLS, *piece, SEP]) for piece in pieces])
    table = np.array([[document, 0, len(piece)] for document, piece in zip(documents, pieces, strict=True)])
    lengths = np.array([len(piece) + 2 for piece in pieces])
    text = Shelf([np.array(piece) for piece in pieces])
    return Packed(input_ids=ids, lengths=lengths, pieces=Pieces.from_table(table), cursor=Cursor(), text=text)


def parts(packed: Packed, seed: int) -> list[tuple[list[int], list[int], list[int], bool, int]]:
    """Of each pair: first part, second part, segments, whether it has two parts, its label."""
    pairs = pair_up(packed, sentences(), CONTEXT, np.random.default_rng(seed))
    found = []
    for ids, segments, labelled, label in zip(
        np.split(pairs.input_ids, np.cumsum(pairs.lengths)[:-1]),
        np.split(pairs.segment_ids, np.cumsum(pairs.lengths)[:-1]),
        pairs.labelled, pairs.label, strict=True,
    ):  # fmt: skip
        row = ids.tolist()
        assert row[0] == CLS
        assert row[-1] == SEP
        assert len(row) <= CONTEXT
        middle = row.index(SEP)
        found.append((row[1:middle], row[middle + 1 : -1], segments.tolist(), bool(labelled), int(label)))
    return found


corpora = st.lists(
    st.lists(st.integers(END, 49), min_size=1, max_size=CONTEXT - 3),
    min_size=1,
    max_size=30,
)


@given(corpora, st.integers(0, 99))
def test_pairs_hold_the_text_and_say_where_it_comes_from(corpus: list[list[int]], seed: int) -> None:
    documents, pieces = list(range(len(corpus))), corpus
    found = parts(pack_pieces(pieces, documents), seed)
    for piece, document, (first, second, segments, labelled, label) in zip(pieces, documents, found, strict=True):
        assert labelled == (len(piece) > 1 and len(corpus) > 1)
        assert piece[: len(first)] == first
        assert segments == [0] * (len(first) + 2) + [1] * (len(second) + 1 if second else 0)
        assert bool(second) == (len(piece) > 1)
        if label == RANDOM:
            assert labelled
            others = [other for other, own in zip(pieces, documents, strict=True) if own != document]
            ends = [other[cut:] for other in others for cut in range(0 if len(other) == 1 else 1, len(other))]
            assert any(end[: len(second)] == second for end in ends)
        else:
            assert piece[len(first) : len(first) + len(second)] == second
            assert labelled or first + second == piece


def test_half_of_the_pairs_are_exchanged_and_none_is_drawn_twice() -> None:
    pieces = [[10 + i, END, 30 + i % 20, 20 + i % 7] for i in range(20)]
    found = parts(pack_pieces(pieces, list(range(20))), 3)
    assert sum(label for *_, label in found) == 10
    before, after = (Counter(tuple(one) for one in some) for some in ([p[2:] for p in pieces], [f[1] for f in found]))
    assert before == after
    assert all(first[-1] == END for first, *_ in found)


def in_batches(shelf: Shelf, budget: int, seed: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(lengths of both parts, label) of each labelled pair of some passes over documents."""
    lengths, labels = [], []
    for number, pieces in enumerate(list(one_pass(shelf.lengths, CONTEXT, budget, special=3)) * 10):
        packed = assemble(shelf, pieces, CLS, SEP, Cursor())
        pairs = pair_up(packed, sentences(), CONTEXT, np.random.default_rng([seed, number]))
        seconds = np.add.reduceat(pairs.segment_ids, np.cumsum(pairs.lengths) - pairs.lengths)
        lengths.append(np.stack([pairs.lengths - seconds, seconds], axis=1)[pairs.labelled])
        labels.append(pairs.label[pairs.labelled])
    return np.concatenate(lengths), np.concatenate(labels)


@pytest.mark.parametrize("budget", [CONTEXT, 3 * CONTEXT, 1000])
def test_the_lengths_of_a_pair_say_nothing_of_its_label(budget: int) -> None:
    """Long documents, short ones, one sentence in three tokens: the best rule on lengths alone only guesses."""
    shelf = Shelf.random([200, 7, 150, 12, 3, 90, 22, 5, 40, 300, 9, 2] * 3, vocab_size=8)
    lengths, labels = in_batches(shelf, budget)
    assert len(labels) > 600
    assert labels.mean() == pytest.approx(0.5, abs=0.03)
    rules = {"pair": lengths.sum(axis=1), "first": lengths[:, 0], "second": lengths[:, 1]}
    for name, values in rules.items():
        told = max(abs(((values >= bound) == labels).mean() - 0.5) for bound in np.unique(values))
        assert told < 0.06, name
    full = lengths.sum(axis=1) == lengths.sum(axis=1).max()
    assert labels[full].mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("budget", [CONTEXT, 500])
@pytest.mark.parametrize("lengths", [[2000, 30], [400, 500], [60] * 8])
def test_half_are_exchanged_whatever_a_micro_batch_holds(lengths: list[int], budget: int) -> None:
    _, labels = in_batches(Shelf.random(lengths, vocab_size=8), budget)
    assert labels.mean() == pytest.approx(0.5, abs=0.06)


def test_an_exchanged_part_is_of_another_document() -> None:
    """Two documents in micro-batches of one of them: no token of the one is in the other."""
    shelf = Shelf([np.full(500, 7), np.full(300, 9)])
    for number, pieces in enumerate(one_pass(shelf.lengths, CONTEXT, CONTEXT, special=3)):
        packed = assemble(shelf, pieces, CLS, SEP, Cursor())
        pairs = pair_up(packed, sentences(), CONTEXT, np.random.default_rng(number))
        for ids, label in zip(np.split(pairs.input_ids, np.cumsum(pairs.lengths)[:-1]), pairs.label, strict=True):
            assert ({7, 9} <= set(ids.tolist())) == (label == RANDOM)


def test_one_document_alone_has_nothing_to_exchange() -> None:
    packed = assemble(Shelf.random([90]), Pieces.from_table(np.array([[0, 0, 20], [0, 20, 40]])), CLS, SEP, Cursor())
    pairs = pair_up(packed, sentences(), CONTEXT, np.random.default_rng(0))
    assert not pairs.labelled.any()
    text = [token for token in pairs.input_ids.tolist() if token not in (CLS, SEP)]
    assert text == packed.text.gather(np.array([0]), np.array([0]), np.array([40])).tolist()
    held_out = EvalSet(documents=packed.text, lengths=packed.text.lengths, cls_id=CLS, sep_id=SEP)
    found = evaluate_next_sentence(build(), held_out, objective(), CPU)
    assert (found.pairs, found.accuracy, found.baseline) == (0, None, None)
    assert "one document" in found.brief()


def test_an_evaluation_says_what_was_exchanged_and_what_the_same_answer_scores() -> None:
    shelf = Shelf.random([30, 9, 200, 12, 40])
    held_out = EvalSet(documents=shelf, lengths=shelf.lengths, cls_id=CLS, sep_id=SEP)
    found = evaluate_next_sentence(build(), held_out, objective(), CPU)
    assert found.exchanged is not None
    assert found.baseline == max(found.exchanged, 1 - found.exchanged)
    assert 0.3 < found.exchanged < 0.7
    assert f"always the same answer: {found.baseline:.1%}" in found.brief()
    assert f"exchanged         {found.exchanged:.1%}" in found.lines()


def train_tokenizer(**changes: Any) -> Tokenizer:
    text = 'Ele disse: "Não!" E saiu. Custa 3.5 reais. Será? (Sim.) Talvez\nnão 。 他来了。她走了。' * 30
    return Tokenizer.train([text], TokenizerConfig(vocab_size=400, **changes))


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_sentences_begin_after_their_ends_in_any_language(algorithm: Any) -> None:
    tokenizer = train_tokenizer(algorithm=algorithm)
    marks = Sentences.of(tokenizer)

    def split(text: str) -> list[str]:
        ids: npt.NDArray[np.int64] = np.array(tokenizer.encode(text))
        cuts = np.flatnonzero(marks.begin(ids))
        return [tokenizer.decode(part).strip().replace(" ", "") for part in np.split(ids, cuts)]

    assert split('Ele disse: "Não!" E saiu.') == ['Eledisse:"Não!"', "Esaiu."]
    assert split("Será? (Sim.) Talvez") == ["Será?", "(Sim.)", "Talvez"]
    if algorithm == "bpe":
        assert split("Custa 3.5 reais. Sim") == ["Custa3.5reais.", "Sim"]
        assert split("他来了。她走了。") == ["他来了。", "她走了。"]
        assert split("Talvez\nnão") == ["Talvez", "não"]


def build(seed: int = 0) -> NextSentenceModel:
    torch.manual_seed(seed)
    model = NextSentenceModel(model_config("bert", context=CONTEXT, dropout=0.0, attention_dropout=0.0)).eval()
    scramble(model)
    return model


def objective(tokens: float = 10.0) -> NextSentenceObjective:
    return NextSentenceObjective(
        MaskingConfig(mask_rate=0.3), vocabulary(), sentences(), context=CONTEXT, tokens=tokens
    )


def prepared(count: int = 12) -> PairBatch:
    random = np.random.default_rng(5)
    pieces = [random.integers(END, 50, size=length).tolist() for length in random.integers(1, CONTEXT - 3, size=count)]
    return objective().prepare(pack_pieces(pieces, list(range(count))), np.random.default_rng(1))


def some_of(batch: PairBatch, first: int, last: int) -> PairBatch:
    """The sequences `first` to `last` of a batch."""
    start, stop = int(batch.cu_seqlens[first]), int(batch.cu_seqlens[last])
    labelled = (batch.label_rows >= start) & (batch.label_rows < stop)
    paired = (batch.pair_rows >= start) & (batch.pair_rows < stop)
    assert batch.segment_ids is not None
    return replace(
        batch, input_ids=batch.input_ids[start:stop], position_ids=batch.position_ids[start:stop],
        cu_seqlens=batch.cu_seqlens[first : last + 1] - start, segment_ids=batch.segment_ids[start:stop],
        label_rows=batch.label_rows[labelled] - start, labels=batch.labels[labelled],
        pair_rows=batch.pair_rows[paired] - start, pair_labels=batch.pair_labels[paired],
    )  # fmt: skip


def gradients(model: NextSentenceModel, batches: list[PairBatch]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    losses = [objective().loss(model, batch, layout_of(batch)) for batch in batches]
    torch.autograd.backward([loss.total for loss in losses])
    count = sum(loss.count for loss in losses)
    return {name: p.grad / count for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("cuts", [(1,), (6,), (3, 4, 9)])
def test_any_split_of_a_batch_gives_the_same_gradient(cuts: tuple[int, ...]) -> None:
    model, batch = build().double(), prepared()
    whole = gradients(model, [batch])
    bounds = [0, *cuts, 12]
    split = gradients(model, [some_of(batch, a, b) for a, b in pairwise(bounds)])
    assert set(whole) == set(split)
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, atol=1e-9, rtol=1e-6)
    assert whole["pooler.weight"].abs().max() > 0


def test_what_the_parts_say_is_learned() -> None:
    """Documents of one word each, twenty words: whether both parts have it is nearly all there is to know."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    config = model_config(
        "bert", hidden_size=32, intermediate_size=64, context=CONTEXT, dropout=0.0, attention_dropout=0.0
    )
    model = NextSentenceModel(config)
    optimizer, right = torch.optim.AdamW(model.parameters(), lr=0.002), []
    for _ in range(270):
        pieces = [[int(random.integers(6, 26))] * int(length) for length in random.integers(8, 20, size=64)]
        batch = objective().uncorrupted(pack_pieces(pieces, list(range(64))), random)
        told = model.follows(model(batch, layout_of(batch), batch.pair_rows))
        optimizer.zero_grad()
        torch.autograd.backward([torch.nn.functional.cross_entropy(told, batch.pair_labels)])
        optimizer.step()
        right.append(float((told.argmax(-1) == batch.pair_labels).float().mean()))
    assert np.mean(right[-20:]) > 0.85


def padded(batch: PairBatch) -> dict[str, torch.Tensor]:
    """The batch as transformers takes it: rows of one length, -100 where there is no label."""
    bounds = batch.cu_seqlens.tolist()
    shape = (batch.sequences, batch.max_seqlen)
    inputs = {name: torch.zeros(shape, dtype=torch.long) for name in ("input_ids", "token_type_ids", "attention_mask")}
    labels, flat = torch.full(shape, -100), torch.full((batch.tokens,), -100)
    flat[batch.label_rows] = batch.labels
    assert batch.segment_ids is not None
    for row, (start, stop) in enumerate(pairwise(bounds)):
        inputs["input_ids"][row, : stop - start] = batch.input_ids[start:stop]
        inputs["token_type_ids"][row, : stop - start] = batch.segment_ids[start:stop]
        inputs["attention_mask"][row, : stop - start] = 1
        labels[row, : stop - start] = flat[start:stop]
    pairs = torch.full((batch.sequences,), -100)
    pairs[torch.searchsorted(batch.cu_seqlens, batch.pair_rows, right=True) - 1] = batch.pair_labels
    return {**inputs, "labels": labels, "next_sentence_label": pairs}


def test_both_losses_are_those_of_bert_and_its_directory_reads_back__C_T4_1(tmp_path: Path) -> None:
    """[CLS] first [SEP] second [SEP], classified on [CLS], beside masking, as BERT was trained."""
    from transformers import BertForNextSentencePrediction, BertForPreTraining

    model, batch = build(), prepared()
    assert batch.pair_labels.unique().tolist() == [0, 1]
    save_next_sentence_model(model, tmp_path, {})
    theirs = BertForPreTraining.from_pretrained(tmp_path, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = theirs(**padded(batch))
        weight = len(batch.label_rows) / len(batch.pair_rows)
        found = objective().loss(model, replace(batch, pair_weight=weight), layout_of(batch))
        torch.testing.assert_close(found.mean, expected.loss, atol=1e-4, rtol=1e-4)
        told = model.follows(model(batch, layout_of(batch), batch.cu_seqlens[:-1].long()))
        torch.testing.assert_close(told, expected.seq_relationship_logits, atol=1e-4, rtol=1e-4)
        classifier = BertForNextSentencePrediction.from_pretrained(tmp_path, attn_implementation="eager").eval()
        inputs = {name: value for name, value in padded(batch).items() if "label" not in name}
        torch.testing.assert_close(told, classifier(**inputs).logits, atol=1e-4, rtol=1e-4)
    again = load_next_sentence_model(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of BERT with both heads, and a tokenizer."""
    folder = tmp_path_factory.mktemp("asked")
    tokenizer = trained()
    model = NextSentenceModel(model_config("bert", vocab_size=tokenizer.vocab_size)).eval()
    scramble(model)
    save_next_sentence_model(model, folder, {})
    tokenizer.save(folder)
    return folder


@pytest.mark.parametrize(("first", "second"), [(1, 1), (3, 2), (200, 1), (1, 200), (200, 200)])
def test_follows_is_what_transformers_predicts__C_T4_1(asked: Path, first: int, second: int) -> None:
    """Of pairs that fit and of those that are cut, alone and among others."""
    from transformers import BertForNextSentencePrediction

    model = palavra.load(asked, kind="masked")
    texts = " ".join(["good fine"] * first), " ".join(["bad nice"] * second)
    parts = [model.tokenizer.encode(text) for text in texts]
    room = model.model.config.context - 3
    while len(parts[0]) + len(parts[1]) > room:  # the longest-first rule of transformers
        longer = 0 if len(parts[0]) > len(parts[1]) else 1
        parts[longer] = parts[longer][:-1]
    cls_id, sep_id = model.tokenizer.cls_id, model.tokenizer.sep_id
    ids = torch.tensor([[cls_id, *parts[0], sep_id, *parts[1], sep_id]])
    kinds = torch.tensor([[0] * (len(parts[0]) + 2) + [1] * (len(parts[1]) + 1)])
    theirs = BertForNextSentencePrediction.from_pretrained(asked, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = torch.softmax(theirs(input_ids=ids, token_type_ids=kinds).logits, 1)[0, 0].item()
    found = model.follows(*texts)
    assert found.probability == pytest.approx(expected, abs=1e-5)
    assert found.truncated == (first + second > 10)
    several = model.follows(["um", texts[0]], ["dois", texts[1]])
    assert several[1].probability == pytest.approx(expected, abs=1e-5)


def test_follows_from_the_command_line_and_its_refusals(asked: Path, tmp_path: Path) -> None:
    told = json.loads(CliRunner().invoke(app, ["follows", str(asked), "good", "bad", "--json"]).stdout)
    assert told["probability"] == palavra.load(asked, kind="masked").follows("good", "bad").probability
    assert CliRunner().invoke(app, ["follows", str(asked), "good", "bad"]).stdout.endswith("follows\n")
    model = palavra.load(asked, kind="masked")
    with pytest.raises(PalavraError, match="two lists of equally many"):
        model.follows(["a", "b"], ["c"])
    save_model(model.model, tmp_path, {})
    model.tokenizer.save(tmp_path)
    with pytest.raises(PalavraError, match="no head for next sentences"):
        palavra.load(tmp_path, kind="masked").follows("a", "b")


def test_the_weight_of_a_pair_is_the_tokens_masked_in_it_on_average() -> None:
    assert prepared().pair_weight == pytest.approx(0.3 * 10.0)
    assert prepared().to(CPU.device).pair_weight == prepared().pair_weight


def test_an_evaluation_reads_every_weight_of_the_body_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["O rato roeu a roupa. A águia voa alto.", "O gato correu pela casa. O sol nasceu."]
    tokenizer = Tokenizer.train(texts * 5, TokenizerConfig(algorithm="wordpiece", vocab_size=100))
    model = NextSentenceModel(model_config("bert", vocab_size=tokenizer.vocab_size))
    save_next_sentence_model(model, tmp_path, {})
    tokenizer.save(tmp_path)
    (tmp_path / "text.txt").write_text("\n".join(texts * 4), encoding="utf-8")
    read: Counter[str] = Counter()
    tensors = directory._tensors

    def counted(folder: Path, wanted: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
        for key, tensor in tensors(folder, wanted):
            read[key] += 1
            yield key, tensor

    monkeypatch.setattr(directory, "_tensors", counted)
    found = palavra.evaluate(tmp_path, tmp_path / "text.txt", documents="line", device="cpu")
    assert found.to_json()["next_sentence"]["pairs"] > 0
    body = {key: times for key, times in read.items() if key.startswith("bert.encoder.")}
    assert body
    assert set(body.values()) == {1}
