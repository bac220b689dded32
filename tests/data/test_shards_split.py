"""The split into training and validation: by hash, disjoint, stable, and of whole documents."""

from pathlib import Path

import pytest
from builders.shards import TOKENIZER, opened, sentences, texts_of, write
from hypothesis import given, settings
from hypothesis import strategies as st

from palavra.data.config import SourceConfig
from palavra.data.shards import StoredDocuments, write_shards
from palavra.errors import PalavraError


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
        write_shards(write(folder / "a.txt", chosen), TOKENIZER, folder / name, valid_fraction=0.3)
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
    manifest = write_shards(config, TOKENIZER, tmp_path / "out", deduplicate=False, valid_fraction=0.2)
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
    return SourceConfig(sources=(str(folder),), max_document_chars=longest)


def books_in(documents: StoredDocuments) -> list[str]:
    return [text.split()[0].partition(" ")[0] for text in texts_of(documents)]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("deduplicate", [True, False])
def test_the_split_follows_whole_documents(deduplicate: bool, tmp_path: Path) -> None:
    config = books(tmp_path / "books", 40)
    write_shards(config, TOKENIZER, tmp_path / "out", valid_fraction=0.3, deduplicate=deduplicate, shard_tokens=300)
    corpus = opened(tmp_path / "out")
    train, valid = set(books_in(corpus.train)), set(books_in(corpus.valid))
    assert len(corpus.train) + len(corpus.valid) == 40 * 12
    assert not train & valid
    assert 4 < len(valid) < 20


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_no_side_is_empty_with_two_long_documents_and_neither_is_torn(share: float, tmp_path: Path) -> None:
    write_shards(books(tmp_path / "books", 2), TOKENIZER, tmp_path / "out", valid_fraction=share)
    corpus = opened(tmp_path / "out")
    assert {*books_in(corpus.train)}.isdisjoint(books_in(corpus.valid))
    assert len(corpus.train) == len(corpus.valid) == 12


@pytest.mark.parametrize(("share", "held_out"), [(1e-9, 1), (0.34, 4), (1 - 1e-9, 11)])
def test_pieces_of_the_only_document_are_held_out(share: float, held_out: int, tmp_path: Path) -> None:
    manifest = write_shards(books(tmp_path / "books", 1), TOKENIZER, tmp_path / "out", valid_fraction=share)
    corpus = opened(tmp_path / "out")
    assert (len(corpus.train), len(corpus.valid)) == (12 - held_out, held_out)
    told = f"there is only one document, so {held_out} of the 12 pieces it was cut into are held out"
    assert told in manifest.warnings


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
@pytest.mark.parametrize("deduplicate", [True, False])
def test_neither_side_is_empty_when_there_are_two_documents(share: float, deduplicate: bool, tmp_path: Path) -> None:
    for texts in (["um", "dois"], ["um", "dois", "um"], sentences(30)):
        config = write(tmp_path / "a.txt", texts)
        manifest = write_shards(config, TOKENIZER, tmp_path / "out", valid_fraction=share, deduplicate=deduplicate)
        corpus = opened(tmp_path / "out")
        assert len(corpus.train)
        assert len(corpus.valid)
        assert not set(texts_of(corpus.train)) & set(texts_of(corpus.valid))
        assert set(texts_of(corpus.train)) | set(texts_of(corpus.valid)) == set(texts)
        if share < 0.5:
            told = f"the split left no document for validation, so the one at {corpus.valid.where(0)} is held out"
            assert told in manifest.warnings


@pytest.mark.parametrize("share", [0.05, 1 - 1e-9])
def test_one_document_is_trained_on(share: float, tmp_path: Path) -> None:
    manifest = write_shards(
        write(tmp_path / "a.txt", ["um só", "um só"]), TOKENIZER, tmp_path / "out", valid_fraction=share
    )
    corpus = opened(tmp_path / "out")
    assert texts_of(corpus.train) == ["um só"]
    assert len(corpus.valid) == 0
    assert corpus.valid.lengths.shape == (0,)
    assert corpus.valid.token_counts(10).sum() == 0
    assert any("there is only one document, so none is held out" in warning for warning in manifest.warnings)


def test_nothing_held_out_when_asked_for(tmp_path: Path) -> None:
    manifest = write_shards(write(tmp_path / "a.txt", sentences(50)), TOKENIZER, tmp_path / "out", valid_fraction=0)
    assert manifest.valid.documents == 0
    assert manifest.warnings == ()


def test_no_text(tmp_path: Path) -> None:
    with pytest.raises(PalavraError, match=r"there is no text in the sources \(2 empty documents"):
        write_shards(write(tmp_path / "a.txt", ["", " "]), TOKENIZER, tmp_path / "out")
    with pytest.raises(PalavraError, match="valid_fraction is 1"):
        write_shards(SourceConfig(sources=("a.txt",)), TOKENIZER, tmp_path / "out", valid_fraction=1)
