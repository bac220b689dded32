"""Tokenizers: exact round trips, roles, masks in sentences, text that only looks special, directories."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palavra.errors import PalavraError
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

SENTENCES = [
    "one of the best movies of the year, isn't it?",
    "the worst film of 1999; it was (almost) unwatchable.",
    "um gato correu pela rua, e a menina não viu: coração, ação, avó.",
    "she said: the film moves slowly but the movies of the year moved me",
]
SPELLED = "a text that says [MASK] and [SEP], [CLS][PAD] [UNK]. the[MASK]end"


def corpus() -> list[str]:
    words = " ".join(SENTENCES).split(" ")
    draw = random.Random(7)
    return SENTENCES * 20 + [" ".join(draw.choices(words, k=12)) for _ in range(200)]


def trained(**settings: Any) -> Tokenizer:
    return Tokenizer.train(corpus(), TokenizerConfig(**{"vocab_size": 400, **settings}))


BPE = trained()
WORDPIECE = trained(algorithm="wordpiece", vocab_size=200)
UNIGRAM = trained(algorithm="unigram", vocab_size=120)
each_algorithm = pytest.mark.parametrize("tokenizer", [BPE, WORDPIECE, UNIGRAM], ids=["bpe", "wordpiece", "unigram"])


@given(st.text(st.characters(codec="utf-8")))
def test_byte_level_round_trip_is_exact(text: str) -> None:
    assert BPE.decode(BPE.encode(text)) == text


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=4))
def test_many_equals_one_by_one(texts: list[str]) -> None:
    many = UNIGRAM.encode_many(texts)
    assert many == [UNIGRAM.encode(text) for text in texts]
    ids, lengths = UNIGRAM.encode_flat(texts)
    assert ids.dtype == np.uint32
    assert [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] == (many or [[]])


@each_algorithm
@given(text=st.text(st.characters(codec="utf-8")))
def test_text_never_becomes_a_special_token(tokenizer: Tokenizer, text: str) -> None:
    special = tokenizer.special_ids - {tokenizer.unk_id}
    for each in (text, SPELLED, f"[MASK]{text}[SEP]", f"{text} [MASK] {text}"):
        assert special.isdisjoint(tokenizer.encode(each))
        assert special.isdisjoint(tokenizer.encode_with_offsets(each)[0])


@each_algorithm
def test_mask_fills_a_whole_word_with_and_without_a_space(tokenizer: Tokenizer) -> None:
    spaced = tokenizer.encode_prompt("one of the [MASK] movies")
    assert spaced.count(tokenizer.mask_id) == 1
    assert spaced == tokenizer.encode_prompt("one of the[MASK] movies")
    place = spaced.index(tokenizer.mask_id)
    # What stands before and after the mask is what stands there when the word is written out.
    written = tokenizer.encode("one of the best movies")
    assert spaced[:place] == written[:place]
    after = spaced[place + 1 :]
    assert written[-len(after) :] == after
    assert tokenizer.starts_word[written[place]]
    assert tokenizer.mask_token == "[MASK]"
    assert tokenizer.token(tokenizer.mask_id) == "[MASK]"


@each_algorithm
def test_roles(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]
    assert ids == [0, 1, 2, 3, 4]
    assert tokenizer.special_ids == frozenset(ids)
    assert tokenizer.starts_word[ids].all()
    assert tokenizer.starts_word.shape == (tokenizer.vocab_size,)


def test_word_starts() -> None:
    def starts(tokenizer: Tokenizer, text: str) -> list[tuple[str, bool]]:
        return [(tokenizer.token(id), bool(tokenizer.starts_word[id])) for id in tokenizer.encode(text)]

    assert starts(BPE, " the movies, é")[:3] == [("the", True), ("movies", True), (",", True)]
    assert starts(BPE, "the")[-1] == ("the", False)
    assert starts(WORDPIECE, "the movies, (of)") == [(token, True) for token in ("the", "movies", ",", "(", "of", ")")]
    pieces = starts(WORDPIECE, "themovies")
    assert pieces[0][1]
    assert len(pieces) > 1
    assert not any(start for _, start in pieces[1:])
    of, comma = UNIGRAM.encode("of,")[-2:]
    assert not UNIGRAM.starts_word[of]
    assert UNIGRAM.starts_word[comma]
    words = [entry for entry in UNIGRAM._vocabulary if entry.startswith("\u2581")]
    assert len(words) > 3
    assert all(UNIGRAM.starts_word[UNIGRAM._vocabulary[entry]] for entry in words)


def test_surface_text() -> None:
    assert [BPE.token(id) for id in BPE.encode(" the year")] == ["the", "year"]
    assert BPE.token(BPE.encode("\u65e5")[0]) == "\ufffd"
    with pytest.raises(PalavraError, match="has no token 999999"):
        BPE.token(999_999)


@each_algorithm
def test_offsets_name_the_words(tokenizer: Tokenizer) -> None:
    text = "the  best movies"
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode(text)
    assert text[slice(*offsets[0])][0] == "t"
    assert offsets[-1][1] == len(text)
    assert "movies".startswith(text[offsets[-1][0] :]) or text[offsets[-1][0] :] in "movies"


def test_normalization_options() -> None:
    tokenizer = trained(nfc=True, lowercase=True, strip_accents=True)
    assert tokenizer.decode(tokenizer.encode("CORAÇÃO Avó")) == "coracao avo"
    composed = trained(nfc=True)
    assert composed.decode(composed.encode("avo\u0301")) == "av\u00f3"
    wordpiece = trained(algorithm="wordpiece", lowercase=True)
    assert wordpiece.encode("AVÓ") == wordpiece.encode("avó")
    assert wordpiece.encode("avó") != wordpiece.encode("avo")


def test_half_a_surrogate_pair_does_not_stop_anything() -> None:
    assert BPE.decode(BPE.encode("a\ud83d b")) == "a\ufffd b"


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_a_vocabulary_larger_than_the_text_supports(algorithm: Any) -> None:
    tokenizer = Tokenizer.train(["a small text, a small one"], TokenizerConfig(algorithm=algorithm, vocab_size=30_000))
    assert tokenizer.vocab_size < 300
    (warning,) = tokenizer.warnings
    assert f"{tokenizer.vocab_size:,} entries, not the 30,000 asked for" in warning
    assert tokenizer.encode("small")


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_many_characters_and_long_runs(algorithm: Any) -> None:
    """More distinct characters than entries, and a word of 100,000 characters, train in moments."""
    draw = random.Random(3)
    han = ["".join(chr(0x4E00 + draw.randrange(2000)) for _ in range(30)) for _ in range(200)]
    tokenizer = Tokenizer.train(
        [*han, "x" * 100_000, " " * 100_000], TokenizerConfig(algorithm=algorithm, vocab_size=500)
    )
    assert tokenizer.vocab_size <= 500


def test_nothing_to_train_on() -> None:
    for documents in ([], ["", "  \n"]):
        with pytest.raises(PalavraError, match="no text to train"):
            Tokenizer.train(documents, TokenizerConfig())
    with pytest.raises(PalavraError, match="at least 261"):
        TokenizerConfig(vocab_size=200)


def test_training_ignores_order_and_is_bounded_by_the_sample() -> None:
    config = TokenizerConfig(vocab_size=300, sample_bytes=2_000)
    documents = [f"{number} {text}" for number, text in enumerate(corpus())]
    expected = Tokenizer.train(documents, config).fingerprint
    assert Tokenizer.train(reversed(documents), config).fingerprint == expected
    assert Tokenizer.train(documents, TokenizerConfig(vocab_size=300)).fingerprint != expected


def test_the_same_text_gives_the_same_vocabulary_in_another_process() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import test_tokenizer as t;"
        "print(t.BPE.fingerprint, t.WORDPIECE.fingerprint)"
    )
    here = Path(__file__)
    paths = [str(here.parent), str(here.parents[1]), str(here.parents[2] / "src")]
    printed = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert printed.stdout.split() == [BPE.fingerprint, WORDPIECE.fingerprint]


@each_algorithm
def test_save_and_load_is_identity(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.roles == tokenizer.roles
    assert loaded.encode_many(corpus()) == tokenizer.encode_many(corpus())
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again/tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


@each_algorithm
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_transformers_gives_the_same_ids(tokenizer: Tokenizer, family: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path, context=64, segments=family == "bert")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    other = AutoTokenizer.from_pretrained(tmp_path)
    assert other.model_max_length == 64
    assert other.mask_token_id == tokenizer.mask_id
    assert other.pad_token_id == tokenizer.pad_id
    for text in [*SENTENCES, "one of the [MASK] movies", "the[MASK]end [SEP] of", "", "  \n x"]:
        ids = tokenizer.encode_prompt(text)
        assert other(text, add_special_tokens=False)["input_ids"] == ids
        assert other(text)["input_ids"] == [tokenizer.cls_id, *ids, tokenizer.sep_id]
    pair = other("the best", "the worst")
    assert ("token_type_ids" in pair) == (family == "bert")


@pytest.mark.parametrize("lower", [True, False, None])
def test_a_directory_with_only_vocab_txt(lower: bool | None, tmp_path: Path) -> None:
    from transformers import BertTokenizer

    entries = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "the",
        "The",
        "movie",
        "##s",
        "caf\u00e9",
        "cafe",
        ".",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(entries) + "\n", "utf-8")
    if lower is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    tokenizer = Tokenizer.load(tmp_path)
    other = BertTokenizer.from_pretrained(tmp_path)
    assert tokenizer.mask_id == 4
    for text in ("The movies. The caf\u00e9s", "the [MASK] \u65e5 x", "CAF\u00c9"):
        assert tokenizer.encode_prompt(text) == other(text, add_special_tokens=False)["input_ids"]


def roberta_like(directory: Path, **config: Any) -> None:
    """A byte-level directory with RoBERTa's names, its mask token in the vocabulary as ordinary text too."""
    content = {**json.loads(json.dumps(BPE._content))}
    names = dict(
        zip(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
            ["<pad>", "<unk>", "<s>", "</s>", "<mask>"],
            strict=True,
        )
    )
    text = json.dumps(content)
    for old, new in names.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    content = json.loads(text)
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    directory.mkdir(exist_ok=True)
    (directory / "tokenizer.json").write_text(json.dumps(content))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {
            "mask_token": {"content": "<mask>", "lstrip": True},
            "cls_token": "<s>",
            "auto_map": {"AutoTokenizer": "evil.py"},
        },
    ],
)
def test_roles_of_other_tokenizers(config: dict[str, Any], tmp_path: Path) -> None:
    roberta_like(tmp_path, **config)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.mask_token == "<mask>"
    assert tokenizer.roles["sep"] == "</s>"
    assert (
        tokenizer.encode_prompt("the [MASK]") == tokenizer.encode_prompt("the <mask>") == [*tokenizer.encode("the"), 4]
    )
    assert len(tokenizer.encode("the best movies of the year")) > 4  # truncation in the file is left out
    tokenizer.save(tmp_path / "saved")
    assert "auto_map" not in (tmp_path / "saved/tokenizer_config.json").read_text()


def test_special_tokens_that_are_ordinary_pieces_too(tmp_path: Path) -> None:
    """In SentencePiece vocabularies the piece "<mask>" matches text even where special tokens do not."""
    pieces = [["<pad>", 0.0], ["<unk>", 0.0], ["<mask>", -1.0]] + [[c, -5.0] for c in "\u2581<>/maskthe"]
    content = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": id,
                "content": token,
                "special": True,
                "normalized": False,
                "lstrip": False,
                "rstrip": False,
                "single_word": False,
            }
            for id, token in enumerate(["<pad>", "<unk>", "<mask>"])
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": "\u2581",
            "prepend_scheme": "first",
            "split": True,
        },
        "post_processor": None,
        "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
        "model": {"type": "Unigram", "unk_id": 1, "vocab": pieces, "byte_fallback": False},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode_prompt("the <mask>").count(2) == 1
    text = "the <mask> he<mask>"
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert tokenizer.special_ids.isdisjoint(ids)
    assert ids == tokenizer.encode(text)
    assert [text[start:end] for start, end in offsets][-3:] == ["s", "k", ">"]
    assert not hasattr(tokenizer, "cls_token")
    with pytest.raises(PalavraError, match="has no cls token"):
        _ = tokenizer.cls_id


def test_directories_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PalavraError, match="no such tokenizer directory"):
        Tokenizer.load(tmp_path / "absent")
    with pytest.raises(PalavraError, match=r"neither tokenizer\.json nor vocab\.txt"):
        Tokenizer.load(tmp_path)
    for broken in ("{", "[]", "{}", '{"model": {"type": "BPE"}}', "\x00", '{"a":' * 5000):
        (tmp_path / "tokenizer.json").write_text(broken)
        with pytest.raises(PalavraError, match=r"^[^\n]*$"):
            Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("only\nwords\n")
    with pytest.raises(PalavraError, match=r"lacks the special tokens \[PAD\]"):
        Tokenizer.load(tmp_path)
