"""Shards: what is written comes back, the split is by hash, a kill loses no finished work, damage is named."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palavra.data import shards as shards_module
from palavra.data.shards import Corpus, Documents, Manifest, Progress, prepare, prepare_all
from palavra.data.sources import SourceConfig
from palavra.errors import PalavraError
from palavra.tokenizer import Tokenizer, TokenizerConfig

WORDS = ["the", "film", "movie", "best", "worst", "year", "plot", "gato", "correu", "rua", "coração", "ação", "is"]


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [f"{number} " + " ".join(draw.choices(WORDS, k=draw.randint(3, 20))) for number in range(count)]


TOKENIZER = Tokenizer.train(sentences(300), TokenizerConfig(vocab_size=330))


def write(path: Path, texts: list[str]) -> SourceConfig:
    path.write_text("\n".join(texts) + "\n")
    return SourceConfig(sources=(str(path),), documents="line")


def opened(directory: Path, **options: Any) -> Corpus:
    return Corpus.open(directory, TOKENIZER.fingerprint, **options)


def texts_of(documents: Documents) -> list[str]:
    return [TOKENIZER.decode(documents.tokens(index).tolist()) for index in range(len(documents))]


def files_of(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.glob("*.arrow")}


# Round trip


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    texts = sentences(500)
    manifest = prepare_all(
        write(tmp_path / "a.txt", [*texts, texts[3], ""]), TOKENIZER, tmp_path / "out", shard_tokens=3000
    )
    corpus = opened(tmp_path / "out")
    assert len(manifest.shards) == 1  # a shard ends with a batch, and this is less than one
    assert sorted(texts_of(corpus.train) + texts_of(corpus.valid)) == sorted(texts)
    assert [text for text in texts if text in set(texts_of(corpus.train))] == texts_of(corpus.train)
    assert corpus.train.dtype == np.uint16
    where = corpus.train.where(5)
    line = int(where.rpartition(":")[2])
    assert where == f"{tmp_path / 'a.txt'}:{line}"
    assert texts[line - 1] == texts_of(corpus.train)[5]
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
    }


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "_BATCH_DOCUMENTS", 16)


@pytest.mark.usefixtures("small_batches")
def test_gather_counts_and_views_over_many_shards(tmp_path: Path) -> None:
    prepare_all(write(tmp_path / "a.txt", sentences(400)), TOKENIZER, tmp_path / "out", shard_tokens=500)
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
    prepare_all(write(tmp_path / "a.txt", ["w69999 w1", "w2"]), tokenizer, tmp_path / "out")
    documents = Corpus.open(tmp_path / "out", tokenizer.fingerprint).train
    assert documents.dtype == np.uint32
    assert 70_004 in documents.tokens(0) or len(documents.tokens(0)) == 1


def test_special_tokens_in_a_corpus_stay_text(tmp_path: Path) -> None:
    text = "a [MASK] b [SEP][CLS] [PAD]"
    prepare_all(write(tmp_path / "a.txt", [text, "other"]), TOKENIZER, tmp_path / "out")
    corpus = opened(tmp_path / "out")
    assert text in texts_of(corpus.train) + texts_of(corpus.valid)
    for documents in (corpus.train, corpus.valid):
        assert TOKENIZER.special_ids.isdisjoint(documents.tokens(0).tolist())


def test_blank_documents_are_counted(tmp_path: Path) -> None:
    wordpiece = Tokenizer.train(sentences(50), TokenizerConfig(algorithm="wordpiece", vocab_size=200))
    config = write(tmp_path / "a.txt", ["\x01\x02", "the film", "the movie"])
    manifest = prepare_all(config, wordpiece, tmp_path / "out")
    assert "1 documents gave no tokens and were left out" in manifest.warnings
    assert manifest.train.documents + manifest.valid.documents == 2


# The split


@settings(max_examples=25)
@given(st.sets(st.text("abc ", min_size=1).map(str.strip).filter(bool), min_size=60, max_size=120), st.data())
def test_the_split_is_disjoint_and_stable(
    tmp_path_factory: pytest.TempPathFactory, texts: set[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("split")
    ordered = sorted(texts)
    fewer = data.draw(st.permutations(ordered))[: 2 * len(ordered) // 3]
    sides = []
    for name, chosen in (("all", ordered), ("fewer", fewer)):
        prepare_all(write(folder / "a.txt", chosen), TOKENIZER, folder / name, valid_share=0.3)
        corpus = opened(folder / name)
        train, valid = set(texts_of(corpus.train)), set(texts_of(corpus.valid))
        assert not train & valid
        assert train | valid == set(chosen)
        assert set(corpus.train.hashes.tolist()).isdisjoint(corpus.valid.hashes.tolist())
        sides.append((train, valid))
    (train, valid), (fewer_train, fewer_valid) = sides
    assert fewer_train <= train
    assert fewer_valid <= valid


def test_equal_documents_go_the_same_way(tmp_path: Path) -> None:
    config = write(tmp_path / "a.txt", sentences(100) * 3)
    manifest = prepare_all(config, TOKENIZER, tmp_path / "out", deduplicate=False, valid_share=0.2)
    corpus = opened(tmp_path / "out")
    assert manifest.duplicates == 0
    assert len(corpus.train) + len(corpus.valid) == 300
    assert not set(texts_of(corpus.train)) & set(texts_of(corpus.valid))
    assert 0.1 < len(corpus.valid) / 300 < 0.3


def books(folder: Path, count: int, longest: int = 60) -> SourceConfig:
    """So many files, each of several pieces that all name it."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        text = "\n".join(f"livro{number} linha{line} o gato correu na rua" for line in range(12))
        (folder / f"{number:03d}.txt").write_text(text)
    return SourceConfig(sources=(str(folder),), longest_document=longest)


def books_in(documents: Documents) -> list[str]:
    return [text.split()[0].partition(" ")[0] for text in texts_of(documents)]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("deduplicate", [True, False])
def test_the_split_follows_whole_documents(deduplicate: bool, tmp_path: Path) -> None:
    config = books(tmp_path / "books", 40)
    prepare_all(config, TOKENIZER, tmp_path / "out", valid_share=0.3, deduplicate=deduplicate, shard_tokens=300)
    corpus = opened(tmp_path / "out")
    train, valid = set(books_in(corpus.train)), set(books_in(corpus.valid))
    assert len(corpus.train) + len(corpus.valid) == 40 * 12
    assert not train & valid
    assert 4 < len(valid) < 20


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_no_side_is_empty_with_two_long_documents_and_neither_is_torn(share: float, tmp_path: Path) -> None:
    prepare_all(books(tmp_path / "books", 2), TOKENIZER, tmp_path / "out", valid_share=share)
    corpus = opened(tmp_path / "out")
    assert {*books_in(corpus.train)}.isdisjoint(books_in(corpus.valid))
    assert len(corpus.train) == len(corpus.valid) == 12


@pytest.mark.parametrize(("share", "held_out"), [(1e-9, 1), (0.34, 4), (1 - 1e-9, 11)])
def test_pieces_of_the_only_document_are_held_out(share: float, held_out: int, tmp_path: Path) -> None:
    manifest = prepare_all(books(tmp_path / "books", 1), TOKENIZER, tmp_path / "out", valid_share=share)
    corpus = opened(tmp_path / "out")
    assert (len(corpus.train), len(corpus.valid)) == (12 - held_out, held_out)
    told = f"there is only one document, so {held_out} of the 12 pieces it was cut into are held out"
    assert told in manifest.warnings


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
@pytest.mark.parametrize("deduplicate", [True, False])
def test_neither_side_is_empty_when_there_are_two_documents(share: float, deduplicate: bool, tmp_path: Path) -> None:
    for texts in (["um", "dois"], ["um", "dois", "um"], sentences(30)):
        config = write(tmp_path / "a.txt", texts)
        manifest = prepare_all(config, TOKENIZER, tmp_path / "out", valid_share=share, deduplicate=deduplicate)
        corpus = opened(tmp_path / "out")
        assert len(corpus.train)
        assert len(corpus.valid)
        assert not set(texts_of(corpus.train)) & set(texts_of(corpus.valid))
        assert set(texts_of(corpus.train)) | set(texts_of(corpus.valid)) == set(texts)
        if share < 0.5:
            told = f"no document fell into the validation share, so the one at {corpus.valid.where(0)} is held out"
            assert told in manifest.warnings


@pytest.mark.parametrize("share", [0.05, 1 - 1e-9])
def test_one_document_is_trained_on(share: float, tmp_path: Path) -> None:
    manifest = prepare_all(
        write(tmp_path / "a.txt", ["um só", "um só"]), TOKENIZER, tmp_path / "out", valid_share=share
    )
    corpus = opened(tmp_path / "out")
    assert texts_of(corpus.train) == ["um só"]
    assert len(corpus.valid) == 0
    assert corpus.valid.lengths.shape == (0,)
    assert corpus.valid.token_counts(10).sum() == 0
    assert any("there is only one document, so none is held out" in warning for warning in manifest.warnings)


def test_nothing_held_out_when_asked_for(tmp_path: Path) -> None:
    manifest = prepare_all(write(tmp_path / "a.txt", sentences(50)), TOKENIZER, tmp_path / "out", valid_share=0)
    assert manifest.valid.documents == 0
    assert manifest.warnings == ()


def test_no_text(tmp_path: Path) -> None:
    with pytest.raises(PalavraError, match=r"there is no text in the sources \(2 empty documents"):
        prepare_all(write(tmp_path / "a.txt", ["", " "]), TOKENIZER, tmp_path / "out")
    with pytest.raises(PalavraError, match="valid_share is 1"):
        prepare_all(SourceConfig(sources=("a.txt",)), TOKENIZER, tmp_path / "out", valid_share=1)


# Restarting


def count_tokenized(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of texts in each batch that is tokenized from here on."""
    counted: list[int] = []
    encode = Tokenizer.encode_flat

    def counting(self: Tokenizer, texts: Any) -> Any:
        counted.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(Tokenizer, "encode_flat", counting)
    return counted


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from palavra.data import shards
from palavra.data.sources import SourceConfig
from palavra.tokenizer import Tokenizer
shards._BATCH_DOCUMENTS = 16
source, tokenizer, out = sys.argv[2:]
config = SourceConfig(sources=(source,), documents="line")
for progress in shards.prepare(config, Tokenizer.load(tokenizer), out, shard_tokens=500):
    time.sleep(0.02)
"""


@pytest.mark.usefixtures("small_batches")
def test_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path / "a.txt", sentences(1000))
    TOKENIZER.save(tmp_path / "tokenizer")
    expected = prepare_all(config, TOKENIZER, tmp_path / "straight", shard_tokens=500)
    source = str(Path(shards_module.__file__).parents[2])
    arguments = [source, config.sources[0], str(tmp_path / "tokenizer"), str(tmp_path / "out")]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments])
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("train-*.arrow"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(PalavraError, match="never prepared to the end"):
        opened(tmp_path / "out")
    (tmp_path / "out" / ".train-00009.arrow.0123abcd.partial").write_text("left behind")
    done = json.loads((tmp_path / "out/unfinished.json").read_text())["shards"]
    assert len(done) >= 3
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("train-*.arrow")}
    counted = count_tokenized(monkeypatch)
    manifest = prepare_all(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    assert sum(counted) == 1000 - sum(shard["read"] for shard in done)
    assert all(file.stat().st_mtime_ns == times[file] for file in sorted(times)[: len(done)])
    assert manifest == expected
    assert files_of(tmp_path / "out") == files_of(tmp_path / "straight")
    assert sorted(file.name for file in (tmp_path / "out").iterdir() if file.suffix != ".arrow") == ["manifest.json"]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("kept", [0, 7])
def test_sources_that_changed_since(kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the shards whose documents are the same, from the first on, are kept."""
    texts = sentences(400)
    config = write(tmp_path / "a.txt", texts)
    before = prepare_all(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    changed = sum(shard.read for shard in before.shards[:kept])
    texts[changed] = "something else"
    write(tmp_path / "a.txt", texts[:-10])
    counted = count_tokenized(monkeypatch)
    manifest = prepare_all(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    assert sum(counted) == 390 - changed
    assert manifest.shards[:kept] == before.shards[:kept]
    monkeypatch.undo()
    monkeypatch.setattr(shards_module, "_BATCH_DOCUMENTS", 16)
    assert prepare_all(config, TOKENIZER, tmp_path / "fresh", shard_tokens=500) == manifest
    assert files_of(tmp_path / "fresh") == files_of(tmp_path / "out")


@pytest.mark.usefixtures("small_batches")
def test_more_documents_or_another_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sentences(400)
    config = write(tmp_path / "a.txt", texts)
    prepare_all(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    counted = count_tokenized(monkeypatch)
    prepare_all(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    assert counted == []  # nobody touched anything
    os.utime(tmp_path / "a.txt", ns=(1, 1))
    prepare_all(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    assert counted == []  # read again, and found the same
    write(tmp_path / "a.txt", [*texts, "one more"])
    prepare_all(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    assert counted == [1]
    corpus = opened(tmp_path / "out")
    assert len(corpus.train) + len(corpus.valid) == 401
    other = Tokenizer.train(sentences(300), TokenizerConfig(vocab_size=300))
    for tokenizer, share in ((other, 0.05), (TOKENIZER, 0.2)):
        counted.clear()
        prepare_all(config, tokenizer, tmp_path / "out", shard_tokens=500, valid_share=share)
        assert sum(counted) == 401


@pytest.mark.usefixtures("small_batches")
def test_a_damaged_shard_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path / "a.txt", sentences(400))
    manifest = prepare_all(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    expected = files_of(tmp_path / "out")
    (tmp_path / "out/train-00002.arrow").write_bytes(b"torn")
    counted = count_tokenized(monkeypatch)
    assert prepare_all(config, TOKENIZER, tmp_path / "out", shard_tokens=500) == manifest
    assert sum(counted) == 400 - sum(shard.read for shard in manifest.shards[:2])
    assert files_of(tmp_path / "out") == expected


def test_a_document_held_out_for_lack_of_others_is_decided_anew(tmp_path: Path) -> None:
    texts = sentences(200)
    prepare_all(write(tmp_path / "a.txt", texts[:2]), TOKENIZER, tmp_path / "out")
    prepare_all(write(tmp_path / "a.txt", texts), TOKENIZER, tmp_path / "out")
    prepare_all(write(tmp_path / "a.txt", texts), TOKENIZER, tmp_path / "fresh")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh")


def test_progress_goes_up_and_the_manifest_is_returned(tmp_path: Path, small_batches: None) -> None:
    config = write(tmp_path / "a.txt", sentences(100))
    seen: list[Progress] = []
    manifest = prepare_all(config, TOKENIZER, tmp_path / "out", show=seen.append)
    assert isinstance(manifest, Manifest)
    assert seen == sorted(seen)
    assert seen[-1] == (100, manifest.bytes, manifest.tokens)
    (again,) = prepare(config, TOKENIZER, tmp_path / "out")
    assert again == seen[-1]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    config = write(tmp_path / "a.txt", ["um", "dois"])
    with pytest.raises(PalavraError, match=r"a\.txt: cannot be written"):
        prepare_all(config, TOKENIZER, tmp_path / "a.txt")


def test_other_peoples_files_stay(tmp_path: Path) -> None:
    config = write(tmp_path / "a.txt", ["um", "dois"])
    out = tmp_path / "out"
    out.mkdir()
    for name in ("train-00000-of-00001.arrow", ".download.partial"):
        (out / name).write_text("theirs")
    prepare_all(config, TOKENIZER, out)
    assert len(opened(out).train) == 1
    assert (out / "train-00000-of-00001.arrow").exists()
    assert (out / ".download.partial").exists()
    (out / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(PalavraError, match=r"manifest\.json: not a manifest of shards"):
        prepare_all(config, TOKENIZER, out)


# Damage


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare_all(write(folder / "a.txt", sentences(200)), TOKENIZER, folder / "out")
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
        ({"shards": 3}, "no good value for 'shards'"),
        ({"documents": -1}, "no good value for 'documents'"),
        ({"documents": True}, "no good value for 'documents'"),
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
        assert "damaged" in broken(copied)
