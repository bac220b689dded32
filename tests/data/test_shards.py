"""Shards: what is written comes back, and damage is named."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.shards import TOKENIZER, opened, sentences, texts_of, write

from palavra.data.shards import Corpus, write_shards
from palavra.errors import PalavraError
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    texts = sentences(500)
    manifest = write_shards(
        write(tmp_path / "a.txt", [*texts, texts[3], ""]), TOKENIZER, tmp_path / "out", shard_tokens=3000
    )
    corpus = opened(tmp_path / "out")
    assert len(manifest.shards) == 1  # a shard ends with a batch, and this is less than one
    train = texts_of(corpus.train)
    assert sorted(train + texts_of(corpus.valid)) == sorted(texts)
    assert [text for text in texts if text in set(train)] == train
    assert corpus.train.dtype == np.uint16
    where = corpus.train.where(5)
    line = int(where.rpartition(":")[2])
    assert where == f"{tmp_path / 'a.txt'}:{line}"
    assert texts[line - 1] == train[5]
    summary = manifest.summary()
    tokens = sum(len(TOKENIZER.encode(text)) for text in texts)
    assert summary == {
        "sources": [str(tmp_path / "a.txt")],
        "documents": 500,
        "tokens": tokens,
        "bytes": sum(len(text.encode()) for text in texts),
        "duplicates": 1,
        "empty": 1,
        "train_documents": len(corpus.train),
        "train_tokens": int(corpus.train.lengths.sum()),
        "valid_documents": len(corpus.valid),
        "valid_tokens": int(corpus.valid.lengths.sum()),
        "warnings": [
            f"1 empty documents were left out, the first: {tmp_path / 'a.txt'}:502",
            f"1 exact duplicates of earlier documents were left out, the first: {tmp_path / 'a.txt'}:501",
        ],
        "longest_document": max(len(TOKENIZER.encode(text)) for text in texts),
        "mean_tokens": tokens / 500,
        "shards": manifest.digest,
    }


@pytest.mark.usefixtures("small_batches")
def test_gather_counts_and_views_over_many_shards(tmp_path: Path) -> None:
    write_shards(write(tmp_path / "a.txt", sentences(400)), TOKENIZER, tmp_path / "out", shard_tokens=500)
    documents = opened(tmp_path / "out").train
    every = [documents.tokens(index) for index in range(len(documents))]
    assert len(list((tmp_path / "out").glob("train-*.arrow"))) > 5
    assert documents.lengths.tolist() == [len(ids) for ids in every]
    assert not every[0].flags.owndata
    random = np.random.default_rng(0)
    indices = random.integers(0, len(documents), 200)
    starts = random.integers(0, documents.lengths[indices] + 1)
    stops = random.integers(starts, documents.lengths[indices] + 1)
    pieces = [every[i][a:b] for i, a, b in zip(indices, starts, stops, strict=True)]
    assert np.array_equal(documents.gather(indices, starts, stops), np.concatenate(pieces))
    assert documents.gather(indices[:0], starts[:0], stops[:0]).shape == (0,)
    for beyond in ([0], [0], [every[0].size + 1]), ([0], [-1], [1]), ([0], [2], [1]):
        with pytest.raises(IndexError):
            documents.gather(*map(np.array, beyond))
    with pytest.raises(IndexError):
        documents.tokens(len(documents))
    counts = documents.token_counts(TOKENIZER.vocab_size)
    assert np.array_equal(counts, np.bincount(np.concatenate(every), minlength=TOKENIZER.vocab_size))
    assert not counts[sorted(TOKENIZER.special_ids)].any()


def test_large_vocabularies_take_32_bits(tmp_path: Path) -> None:
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(70_000))]
    (tmp_path / "vocab.txt").write_text("\n".join(entries))
    tokenizer = Tokenizer.load(tmp_path)
    write_shards(write(tmp_path / "a.txt", ["w69999 w1", "w2"]), tokenizer, tmp_path / "out")
    corpus = Corpus.open(tmp_path / "out", tokenizer.fingerprint)
    assert corpus.train.dtype == corpus.valid.dtype == np.uint32
    stored = [side.tokens(0).tolist() for side in (corpus.train, corpus.valid)]  # one document each
    assert sorted(stored) == [[7], [70_004, 6]]


def test_special_tokens_in_a_corpus_stay_text(tmp_path: Path) -> None:
    text = "a [MASK] b [SEP][CLS] [PAD]"
    write_shards(write(tmp_path / "a.txt", [text, "other"]), TOKENIZER, tmp_path / "out")
    corpus = opened(tmp_path / "out")
    assert text in texts_of(corpus.train) + texts_of(corpus.valid)
    for documents in (corpus.train, corpus.valid):
        assert TOKENIZER.special_ids.isdisjoint(documents.tokens(0).tolist())


def test_blank_documents_are_counted(tmp_path: Path) -> None:
    wordpiece = Tokenizer.train(sentences(50), TokenizerConfig(algorithm="wordpiece", vocab_size=200))
    config = write(tmp_path / "a.txt", ["\x01\x02", "the film", "the movie"])
    manifest = write_shards(config, wordpiece, tmp_path / "out")
    assert "1 documents gave no tokens and were left out" in manifest.warnings
    assert manifest.train.documents + manifest.valid.documents == 2


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_shards(write(folder / "a.txt", sentences(200)), TOKENIZER, folder / "out")
    return folder / "out"


def broken(directory: Path, **options: Any) -> str:
    with pytest.raises(PalavraError) as caught:
        opened(directory, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def copied(prepared: Path, tmp_path: Path) -> Path:
    for file in prepared.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def change(directory: Path, **values: Any) -> None:
    """Change fields of the first training file in the manifest, or of the manifest itself."""
    path = directory / "manifest.json"
    content = json.loads(path.read_text())
    for key, value in values.items():
        target = content if key in content else content["shards"][0]["train"]
        assert key in target
        target[key] = value
    path.write_text(json.dumps(content))


def test_damaged_shards_are_named(copied: Path) -> None:
    file = copied / "train-00000.arrow"
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    file.write_bytes(flipped)
    assert broken(copied) == f"{file}: missing, or its content is not what manifest.json says; prepare the text again"
    assert len(opened(copied, verify="size").train)
    file.write_bytes(whole[:-1])
    assert "train-00000.arrow: missing" in broken(copied, verify="size")
    file.unlink()
    assert "train-00000.arrow: missing" in broken(copied)


def test_shards_of_another_tokenizer(prepared: Path) -> None:
    with pytest.raises(PalavraError, match=r"prepared with another tokenizer \([0-9a-f]{12}, not 0123456789ab\)"):
        Corpus.open(prepared, "0123456789abcdef")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "palavra-shards-9"}, "not in the format palavra-shards-1"),
        ({"shards": 3}, "damaged: shards must be a list of"),
        ({"documents": -1}, "no good value for 'documents'"),
        ({"documents": True}, "damaged: documents must be a whole number, not True; prepare it again"),
        ({"tokenizer": "../x"}, "no good value for 'tokenizer'"),
        ({"file": "../../secret"}, "no good value for 'file'"),
        ({"tokens": 1}, "not a shard of the shape manifest.json says"),
        ({"tokens": 1 << 60}, "no good value for 'tokens'"),
        ({"vocab_size": 40}, "not a shard of the shape manifest.json says"),
        ({"vocab_size": 70_000}, "not a shard of the shape manifest.json says"),
    ],
)
def test_manifests_that_lie(values: dict[str, Any], message: str, copied: Path) -> None:
    change(copied, **values)
    assert message in broken(copied)


def test_files_that_are_not_shards(copied: Path) -> None:
    whole = (copied / "train-00000.arrow").read_bytes()
    draw = random.Random(1)
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 3, 50))):
            content[draw.randrange(len(content))] = draw.randrange(256)
        (copied / "train-00000.arrow").write_bytes(content)
        change(copied, sha256=hashlib.sha256(content).hexdigest())
        try:  # a byte of a token may change unnoticed; nothing else may
            documents = opened(copied).train
        except PalavraError:
            continue
        assert documents.lengths.sum() == sum(len(documents.tokens(index)) for index in range(len(documents)))
        assert documents.token_counts(TOKENIZER.vocab_size).sum() == documents.lengths.sum()
    for garbage in ("{", "[]", "[" * 100_000, "\udcff"):
        (copied / "manifest.json").write_bytes(garbage.encode("utf-8", "surrogateescape"))
        assert "prepare it again" in broken(copied)
