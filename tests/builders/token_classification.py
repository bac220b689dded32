"""A few tagged sentences, and tokenizers for them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from builders.tasks import words_of
from palavra.metrics.tag_schemes import Scheme
from palavra.tasks.spec import TaskSpec, TokenClassificationOptions
from palavra.tasks.token_classification.examples import TaggedSentence
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

SENTENCES = [
    "one of the best movies of the year, isn't it?",
    "the worst film of 1999; it was (almost) unwatchable.",
    "um gato correu pela rua, e a menina não viu: coração, ação, avó.",
    "she said: the film moves slowly but the movies of the year moved me",
]


TAGGED = [
    ("Ana Maria viu Rui em Porto", "B-PER I-PER O B-PER O B-LOC"),
    ("o gato correu pela rua", "O O O O O"),
    ("Rio de Janeiro e Porto", "B-LOC I-LOC I-LOC O B-LOC"),
    ("Rui viu Ana Maria", "B-PER O B-PER I-PER"),
    ("a menina viu o Porto", "O O O O B-LOC"),
    ("em Rio de Janeiro a menina correu", "O B-LOC I-LOC I-LOC O O O"),
    ("Ana Maria", "B-PER I-PER"),
    ("a rua de Rui", "O O O B-PER"),
]


def trained(**settings: Any) -> Tokenizer:
    words = " ".join(SENTENCES).split(" ")
    draw = np.random.default_rng(7)
    corpus = SENTENCES * 20 + [text for text, _ in TAGGED] * 5
    corpus += [" ".join(draw.choice(words, size=12)) for _ in range(100)]
    return Tokenizer.train(corpus, TokenizerConfig(**{"vocab_size": 400, **settings}))


BPE = trained()
WORDPIECE = trained(algorithm="wordpiece", vocab_size=200)
UNIGRAM = trained(algorithm="unigram", vocab_size=120)
TOKENIZERS = {"bpe": BPE, "wordpiece": WORDPIECE, "unigram": UNIGRAM}
each_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
SPEC = TaskSpec(kind="token-classification")
ALL = replace(SPEC, token_classification=TokenClassificationOptions(subwords="all"))
BIO = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
# Texts that go wrong: marks that combine, joined emoji, wide blanks, tabs, control characters, right to left.
AWKWARD = st.text(
    st.sampled_from("ab Zé.,'\u0301\u0327\t\n \u00a0\u2009\u200d\u200bß日本👩🏽\U0001f680#\x00\x07של0"), max_size=30
)


def tagged(text: str, labels: str | None, where: str = "train.conll:1") -> TaggedSentence:
    words = tuple(text.split(" "))
    ends = np.cumsum([len(word) + 1 for word in words]).tolist()
    spans = tuple((end - 1 - len(word), end - 1) for word, end in zip(words, ends, strict=True))
    names = None if labels is None else tuple(labels.split(" "))
    return TaggedSentence(words=words, labels=names, spans=spans, text=text, where=where)


EXAMPLES = [tagged(text, labels, f"train.conll:{1 + 10 * n}") for n, (text, labels) in enumerate(TAGGED)]


def task_of(spec: TaskSpec = SPEC, labels: tuple[str, ...] = BIO, scheme: Scheme = "bio") -> Any:
    return words_of(spec, labels, [1] * len(labels), scheme)
