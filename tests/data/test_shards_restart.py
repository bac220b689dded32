"""Preparing again: a kill loses no finished work, and only what changed is made anew."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from builders.shards import TOKENIZER, files_of, opened, sentences, write

from palavra.data import shards as shards_module
from palavra.data.shards import Manifest, Progress, write_shards
from palavra.errors import PalavraError
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig


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
slowly = lambda progress: time.sleep(0.02)
shards.write_shards(config, Tokenizer.load(tokenizer), out, shard_tokens=500, show=slowly)
"""


@pytest.mark.usefixtures("small_batches")
def test_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path / "a.txt", sentences(1000))
    TOKENIZER.save(tmp_path / "tokenizer")
    expected = write_shards(config, TOKENIZER, tmp_path / "straight", shard_tokens=500)
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
    manifest = write_shards(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
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
    before = write_shards(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    changed = sum(shard.read for shard in before.shards[:kept])
    texts[changed] = "something else"
    write(tmp_path / "a.txt", texts[:-10])
    counted = count_tokenized(monkeypatch)
    manifest = write_shards(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    assert sum(counted) == 390 - changed
    assert manifest.shards[:kept] == before.shards[:kept]
    monkeypatch.undo()
    monkeypatch.setattr(shards_module, "_BATCH_DOCUMENTS", 16)
    assert write_shards(config, TOKENIZER, tmp_path / "fresh", shard_tokens=500) == manifest
    assert files_of(tmp_path / "fresh") == files_of(tmp_path / "out")


@pytest.mark.usefixtures("small_batches")
def test_more_documents_or_another_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sentences(400)
    config = write(tmp_path / "a.txt", texts)
    write_shards(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    counted = count_tokenized(monkeypatch)
    write_shards(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    assert counted == []  # nobody touched anything
    os.utime(tmp_path / "a.txt", ns=(1, 1))
    write_shards(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    assert counted == []  # read again, and found the same
    write(tmp_path / "a.txt", [*texts, "one more"])
    write_shards(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    assert counted == [1]
    corpus = opened(tmp_path / "out")
    assert len(corpus.train) + len(corpus.valid) == 401
    other = Tokenizer.train(sentences(300), TokenizerConfig(vocab_size=300))
    for tokenizer, share in ((other, 0.05), (TOKENIZER, 0.2)):
        counted.clear()
        write_shards(config, tokenizer, tmp_path / "out", shard_tokens=500, valid_fraction=share)
        assert sum(counted) == 401


@pytest.mark.usefixtures("small_batches")
def test_a_damaged_shard_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path / "a.txt", sentences(400))
    manifest = write_shards(config, TOKENIZER, tmp_path / "out", shard_tokens=500)
    expected = files_of(tmp_path / "out")
    (tmp_path / "out/train-00002.arrow").write_bytes(b"torn")
    counted = count_tokenized(monkeypatch)
    assert write_shards(config, TOKENIZER, tmp_path / "out", shard_tokens=500) == manifest
    assert sum(counted) == 400 - sum(shard.read for shard in manifest.shards[:2])
    assert files_of(tmp_path / "out") == expected


def test_a_document_held_out_for_lack_of_others_is_decided_anew(tmp_path: Path) -> None:
    texts = sentences(200)
    write_shards(write(tmp_path / "a.txt", texts[:2]), TOKENIZER, tmp_path / "out")
    write_shards(write(tmp_path / "a.txt", texts), TOKENIZER, tmp_path / "out")
    write_shards(write(tmp_path / "a.txt", texts), TOKENIZER, tmp_path / "fresh")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh")


def test_progress_goes_up_and_the_manifest_is_returned(tmp_path: Path, small_batches: None) -> None:
    config = write(tmp_path / "a.txt", sentences(100))
    seen: list[Progress] = []
    manifest = write_shards(config, TOKENIZER, tmp_path / "out", show=seen.append)
    assert isinstance(manifest, Manifest)
    assert seen == sorted(seen)
    assert seen[-1] == (100, manifest.bytes, manifest.tokens)
    again: list[Progress] = []
    write_shards(config, TOKENIZER, tmp_path / "out", show=again.append)
    assert again == seen[-1:]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    config = write(tmp_path / "a.txt", ["um", "dois"])
    with pytest.raises(PalavraError, match=r"a\.txt: cannot be written"):
        write_shards(config, TOKENIZER, tmp_path / "a.txt")


def test_other_peoples_files_stay(tmp_path: Path) -> None:
    config = write(tmp_path / "a.txt", ["um", "dois"])
    out = tmp_path / "out"
    out.mkdir()
    for name in ("train-00000-of-00001.arrow", ".download.partial"):
        (out / name).write_text("theirs")
    write_shards(config, TOKENIZER, out)
    assert len(opened(out).train) == 1
    assert (out / "train-00000-of-00001.arrow").exists()
    assert (out / ".download.partial").exists()
    (out / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(PalavraError, match=r"manifest\.json: not a manifest of shards"):
        write_shards(config, TOKENIZER, out)
