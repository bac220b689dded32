"""Filling all blanks: the surest first and the best ways to fill them equal plain loops and full enumeration."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from builders.models import CPU, build_model, model_config, run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palavra.batch import Sample, pack
from palavra.errors import PalavraError
from palavra.inference import batching
from palavra.inference.filling import Blank, Likeliest
from palavra.inference.infilling import Filling
from palavra.inference.masked import MaskedModel
from palavra.run_records.pretraining import Fill
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

SMALL = Tokenizer.train(["ab bc abc a b c ba"] * 9, TokenizerConfig(algorithm="wordpiece", vocab_size=14))
WORDS = ["O gato preto correu pela casa.", "A menina leu um livro à noite.", "Não há pão."]
TOKENIZERS = {
    name: Tokenizer.train(WORDS * 5, TokenizerConfig(algorithm=name, vocab_size=300)) for name in ("wordpiece", "bpe")
}
TEXTS = ["[MASK]", "a [MASK] b", "[MASK] [MASK] a", "ab [MASK] b [MASK] [MASK]", "ab[MASK] a a a a a b [MASK]"]


def model_of(tokenizer: Tokenizer, seed: int = 0, **changes: Any) -> MaskedModel:
    config = replace(model_config(vocab_size=tokenizer.vocab_size), **changes)
    return MaskedModel(build_model(config, seed=seed), tokenizer, CPU)


MODEL = model_of(SMALL)
ORDINARY = [i for i in range(SMALL.vocab_size) if i not in SMALL.special_ids]


def log_probabilities(model: MaskedModel, ids: list[int]) -> Tensor:
    """(L, V) of one text, read alone by the slow reference attention."""
    with torch.no_grad():
        hidden = run(model.model, pack([Sample(input_ids=np.array(ids))]), "reference")
        logs = torch.log_softmax(model.model.logits(hidden).double(), -1)
    if model.model.config.mntp:
        logs = torch.cat([logs[:1], logs[:-1]])
    logs[:, sorted(model.tokenizer.special_ids)] = -torch.inf
    return logs


def ids_of(text: str, tokenizer: Tokenizer = SMALL) -> list[int]:
    return [tokenizer.cls_id, *tokenizer.encode_prompt(text), tokenizer.sep_id]


def leaves(model: MaskedModel, ids: list[int], log_p: float = 0.0) -> Iterator[tuple[list[int], float]]:
    """Every way to fill a text, the surest mask first, with its probability."""
    masks = [i for i, id in enumerate(ids) if id == model.tokenizer.mask_id]
    if not masks:
        yield ids, log_p
        return
    logs = log_probabilities(model, ids)
    place = max(masks, key=lambda i: float(logs[i].max()))
    for token in ORDINARY:
        yield from leaves(model, [*ids[:place], token, *ids[place + 1 :]], log_p + float(logs[place, token]))


def tokens_of(filling: Filling) -> list[str]:
    return [fill.token for blank in filling.blanks for fill in blank.tokens]


def tokens_at_masks(text: str, ids: list[int]) -> list[str]:
    return [SMALL.token(id) for id, before in zip(ids, ids_of(text), strict=True) if before == SMALL.mask_id]


@pytest.mark.parametrize("text", TEXTS[:3])
@pytest.mark.parametrize("mntp", [False, True])
def test_a_wide_enough_beam_finds_what_enumeration_finds(text: str, mntp: bool) -> None:
    model = model_of(SMALL, mntp=mntp)
    expected = sorted(leaves(model, ids_of(text)), key=lambda leaf: -leaf[1])
    found = model.fillings(text, n_best=7, beam=len(ORDINARY) ** 2)
    assert [tokens_of(one) for one in found] == [tokens_at_masks(text, ids) for ids, _ in expected[:7]]
    assert [one.log_probability for one in found] == pytest.approx([log_p for _, log_p in expected[:7]], abs=1e-4)
    for one in found:
        conditional = [fill.probability for blank in one.blanks for fill in blank.tokens]
        assert one.probability == pytest.approx(math.prod(conditional))
        assert one.text == SMALL.decode(
            next(ids for ids, p in expected if math.isclose(p, one.log_probability, abs_tol=1e-4))[1:-1]
        )


def test_the_probabilities_of_all_fillings_sum_to_one_where_nothing_is_barred() -> None:
    total = sum(math.exp(log_p) for _, log_p in leaves(MODEL, ids_of("a [MASK] b [MASK]")))
    found = MODEL.fillings("a [MASK] b [MASK]", n_best=SMALL.vocab_size, beam=len(ORDINARY) ** 2)
    assert sum(one.probability for one in found) < total < 1
    with torch.no_grad():
        hopeless = model_of(SMALL)
        bias = hopeless.model.unembedding.bias
        assert bias is not None
        bias[sorted(SMALL.special_ids)] = -100.0
    assert sum(math.exp(log_p) for _, log_p in leaves(hopeless, ids_of("a [MASK] b [MASK]"))) == pytest.approx(1)


@pytest.mark.parametrize("text", TEXTS)
def test_together_gives_the_best_products_of_the_marginals(text: str) -> None:
    rows = [i for i, id in enumerate(ids_of(text)) if id == SMALL.mask_id]
    logs = log_probabilities(MODEL, ids_of(text))[rows]
    every = [
        (sum(float(logs[i, token]) for i, token in enumerate(chosen)), [SMALL.token(token) for token in chosen])
        for chosen in product(ORDINARY, repeat=len(rows))
    ]
    expected = sorted(every, key=lambda pair: -pair[0])[:5]
    found = MODEL.fillings(text, n_best=5, order="parallel")
    assert [tokens_of(one) for one in found] == [tokens for _, tokens in expected]
    assert [one.log_probability for one in found] == pytest.approx([log_p for log_p, _ in expected], abs=1e-4)


def greedy(model: MaskedModel, text: str, top: int) -> list[Blank]:
    """The surest mask first, one text and one mask at a time."""
    ids = ids_of(text, model.tokenizer)
    order = [i for i, id in enumerate(ids) if id == model.tokenizer.mask_id]
    found: dict[int, tuple[int, tuple[Fill, ...]]] = {}
    for reading in range(1, len(order) + 1):
        logs = log_probabilities(model, ids)
        place = max((i for i in order if i not in found), key=lambda i: float(logs[i].max()))
        best = zip(*(part.tolist() for part in logs[place].topk(top)), strict=True)
        found[place] = reading, tuple(Fill(model.tokenizer.token(id), math.exp(p)) for p, id in best)
        ids[place] = int(logs[place].argmax())
    return [Blank(i, fills, reading) for i, (reading, fills) in enumerate(found[place] for place in order)]


@pytest.mark.parametrize("family", ["wordpiece", "bpe"])
@pytest.mark.parametrize("mntp", [False, True])
def test_by_confidence_equals_a_plain_loop(family: str, mntp: bool) -> None:
    model = model_of(TOKENIZERS[family], mntp=mntp)
    texts = ["O [MASK] preto [MASK] [MASK] casa.", "[MASK]", "in[MASK][MASK] leu [MASK] livro à [MASK]."]
    for text, blanks in zip(texts, model.fill(texts, top=3, order="iterative"), strict=True):
        expected = greedy(model, text, 3)
        assert [blank.index for blank in blanks] == list(range(len(expected)))
        assert [blank.reading for blank in blanks] == [blank.reading for blank in expected]
        for blank, other in zip(blanks, expected, strict=True):
            assert [fill.token for fill in blank.fills] == [fill.token for fill in other.fills]
            shown = [fill.probability for fill in blank.fills]
            assert shown == pytest.approx([fill.probability for fill in other.fills], rel=1e-4)
        (best,) = model.fillings(text, n_best=1)
        assert tokens_of(best) == [blank.fills[0].token for blank in blanks]


def test_the_order_is_not_that_of_the_text_and_what_was_filled_matters() -> None:
    """Otherwise the tests above would pass for filling from left to right, or all at once."""
    texts = [" ".join(["[MASK]" if (n >> i) % 2 else "ab" for i in range(4)]) for n in range(1, 16)]
    found = MODEL.fill(texts, top=1, order="iterative")
    assert any([b.reading for b in blanks] != sorted(b.reading for b in blanks) for blanks in found)
    together = MODEL.fill(texts, top=1)
    assert all(blank.reading == 1 for blanks in together for blank in blanks)
    first = [[b.fills[0].probability for b in blanks] for blanks in found]
    other = [[b.fills[0].probability for b in blanks] for blanks in together]
    assert any(a != pytest.approx(b, rel=1e-3) for a, b in zip(first, other, strict=True))


@given(
    st.lists(st.sampled_from(TEXTS), min_size=1, max_size=6), st.sampled_from(["parallel", "iterative"]),
    st.integers(1, 4), st.integers(8, 200),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_a_text_is_filled_as_it_is_alone(texts: list[str], order: Any, n_best: int, budget: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "BATCH_TOKENS", budget)
        together = MODEL.fillings(texts, n_best, order=order)
    for text, fillings in zip(texts, together, strict=True):
        alone = MODEL.fillings(text, n_best, order=order)
        assert [one.text for one in fillings] == [one.text for one in alone]
        assert [one.log_probability for one in fillings] == pytest.approx([o.log_probability for o in alone], abs=1e-4)


def test_all_texts_take_one_step_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    whole = MODEL._reader(4)

    def counted(samples: Sequence[Sample]) -> list[Likeliest]:
        read.append(len(samples))
        return whole(samples)

    monkeypatch.setattr(MaskedModel, "_reader", lambda model, most: counted)
    MODEL.fillings(TEXTS, n_best=4)
    assert read == [5, 3 * 4, 1 * 4]
    read.clear()
    MODEL.fillings(TEXTS, n_best=4, order="parallel")
    assert read == [5]


# What is shown


@pytest.mark.parametrize("family", ["wordpiece", "bpe"])
def test_masks_side_by_side_are_one_blank(family: str) -> None:
    model, tokenizer = model_of(TOKENIZERS[family]), TOKENIZERS[family]
    for one in model.fillings("O g[MASK][MASK] preto [MASK] [MASK] [MASK] casa", n_best=6):
        assert [len(blank.tokens) for blank in one.blanks] == [2, 3]
        assert one.text == tokenizer.decode(tokenizer.encode(one.text)) or "\ufffd" in one.text
        places = [one.text.find(blank.text) for blank in one.blanks]
        assert all(place >= 0 for place in places) or "\ufffd" in one.text


def test_a_blank_reads_as_it_does_in_its_word() -> None:
    tokenizer = TOKENIZERS["wordpiece"]
    model = model_of(tokenizer)
    found = model.fillings("O g[MASK][MASK]", n_best=tokenizer.vocab_size)
    joined = [one for one in found if one.text.count(" ") == 1]
    assert joined
    for one in joined:
        assert one.text.lower() == f"o g{one.blanks[0].text}".lower()
        assert "##" not in one.blanks[0].text


# Blanks of unknown length


def test_lengths_are_ranked_by_the_probability_a_token() -> None:
    found = MODEL.fillings("a [MASK] b", n_best=6, beam=12, lengths=(1, 3))
    every = [one for n in (1, 2, 3) for one in MODEL.fillings(f"a {'[MASK] ' * n}b", n_best=6, beam=12)]
    expected = sorted(every, key=lambda one: -one.probability_per_token)[:6]
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.log_probability for one in found] == pytest.approx([one.log_probability for one in expected], abs=1e-4)
    assert len({len(tokens_of(one)) for one in every}) == 3
    for one in found:
        assert one.probability_per_token == pytest.approx(one.probability ** (1 / len(tokens_of(one))))
    assert [one.text for one in MODEL.fillings("a [MASK] b", 3, lengths=(1, 1))] == [
        one.text for one in MODEL.fillings("a [MASK] b", 3)
    ]


# Mistakes


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("a", {}, "nothing to fill in"),
        ("[MASK] " * 70, {}, "has 72 tokens, the model reads at most 64"),
        ("[MASK]", {"n_best": 0}, f"n_best is 0: it must be 1 to {SMALL.vocab_size}"),
        ("[MASK]", {"n_best": 99}, f"n_best is 99: it must be 1 to {SMALL.vocab_size}"),
        ("[MASK]", {"n_best": 3, "beam": 2}, "beam is 2: it must be at least n_best, which is 3"),
        ("[MASK]", {"order": "parallel", "beam": 9}, 'beam= does not apply to order="parallel"'),
        ("[MASK]", {"order": "random"}, "order is 'random': it must be parallel or iterative"),
        ("[MASK]", {"lengths": (0, 2)}, "lengths of the blank are 0 to 2"),
        ("[MASK]", {"lengths": (3, 2)}, "lengths of the blank are 3 to 2"),
        ("[MASK] a [MASK]", {"lengths": (1, 2)}, '"[MASK] a [MASK]" has 2: fill the others first'),
        ("a " * 60 + "[MASK]", {"lengths": (1, 9)}, "has 71 tokens, the model reads at most 64"),
    ],
)
def test_mistakes_are_one_line(text: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(PalavraError) as caught:
        MODEL.fillings(text, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", ["parallel", "iterative"])
def test_a_model_that_has_diverged_is_an_error(order: Any) -> None:
    model = model_of(SMALL)
    with torch.no_grad():
        next(iter(model.model.head.parameters())).fill_(math.nan)
    with pytest.raises(PalavraError, match="are not numbers: its training has diverged"):
        model.fill("a [MASK]", order=order)


def test_more_ways_than_there_are_give_all_there_are() -> None:
    found = MODEL.fillings("a [MASK]", n_best=SMALL.vocab_size)
    assert len(found) == len(ORDINARY)
    assert not MODEL.fillings([])
    assert not MODEL.fill([], order="iterative")
