"""Many texts: in their order, a few at a time, and an error in one of them says where."""

import bz2
import gzip
import io
import json
import lzma
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.models import CPU, build_model, model_config
from hypothesis import given
from hypothesis import strategies as st

from palavra.errors import PalavraError
from palavra.inference import streaming
from palavra.inference.embedding import Embedding
from palavra.inference.export import write_embeddings
from palavra.inference.inputs import open_input, read_texts
from palavra.inference.masked import MaskedModel
from palavra.inference.streaming import Embedded, chunked, fill_all
from palavra.output import output_file
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

TEXTS = [f"O gato {number} [MASK] na rua{' azul' * (number % 5)}." for number in range(23)]
TOKENIZER = Tokenizer.train(TEXTS * 3, TokenizerConfig(vocab_size=280))
MODEL = MaskedModel(build_model(model_config(vocab_size=TOKENIZER.vocab_size, context=64)), TOKENIZER, CPU)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "CHUNK_TEXTS", 4)


def lines(content: bytes, name: str = "a.txt") -> list[str]:
    return list(read_texts(io.BytesIO(content), name))


# Reading


def test_lines_come_as_they_are_written() -> None:
    assert lines("\ufeffum\r\ndois\n\n  três\u2028 \x0c\n".encode()) == ["um", "dois", "", "  três\u2028 \x0c"]
    assert lines(b"\n \num") == ["", " ", "um"]
    assert lines(b"um\rdois\r\ntr\xc3\xaas\r") == ["um", "dois", "três"]


@given(st.lists(st.text(st.characters(exclude_characters="\0\r\n\ufeff", codec="utf-8")), min_size=1))
def test_every_line_comes_back(texts: list[str]) -> None:
    if any(text.strip() for text in texts):
        assert lines("".join(f"{text}\n" for text in texts).encode()) == texts
    else:
        with pytest.raises(PalavraError, match="has no text"):
            lines("".join(f"{text}\n" for text in texts).encode())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a.txt has no text"),
        (b"\n \n", "a.txt has no text"),
        ("um\rdois\r\né\r".encode("latin-1"), "a.txt:3 is not UTF-8"),
        ("um\né\n".encode("latin-1"), "a.txt:2 is not UTF-8"),
        (b"um\n\0\n", "a.txt:2 has a NUL character"),
    ],
)
def test_what_cannot_be_read_is_one_line(content: bytes, said: str) -> None:
    with pytest.raises(PalavraError, match=said):
        lines(content)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: bytes(pa.compress(content, "zstd", asbytes=True)),
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compressed_file_is_its_text(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(COMPRESS[suffix]("um\r\né dois\n".encode()))
    assert list(read_texts(*open_input(path))) == ["um", "é dois"]
    if suffix:
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(PalavraError, match=r"a\.txt[^\n]*: cannot be read to its end, the file is damaged[^\n]*$"):
            list(read_texts(*open_input(path)))


@given(st.lists(st.text("ab", max_size=40), max_size=30), st.integers(1, 5), st.integers(1, 60))
def test_chunks_keep_order_and_stay_small(texts: list[str], most: int, characters: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "CHUNK_TEXTS", most)
        patch.setattr(streaming, "CHUNK_BYTES", characters)
        chunks = list(chunked(texts))
    assert [text for chunk in chunks for text in chunk] == texts
    for chunk in chunks:
        assert 1 <= len(chunk) <= most
        assert sum(map(len, chunk[:-1])) < characters


# Filling


def test_texts_are_filled_in_order_and_no_more_is_read_than_is_worked_on() -> None:
    read: list[str] = []

    def source() -> Iterator[str]:
        for text in TEXTS:
            read.append(text)
            yield text

    filled = fill_all(MODEL, source(), top=2)
    first = next(filled)
    assert len(read) == 4
    found = [first, *filled]
    assert [text for text, _ in found] == TEXTS
    for text, (blank,) in found:
        (alone,) = MODEL.fill(text, top=2)
        assert [f.token for f in blank.fills] == [f.token for f in alone.fills]


@pytest.mark.parametrize(
    ("wrong", "said"), [("no blank", "nothing to fill in"), ("", "nothing"), ("[MASK] " * 70, "reads at most 64")]
)
def test_an_error_in_one_text_names_its_line(wrong: str, said: str) -> None:
    filled = fill_all(MODEL, [*TEXTS[:6], wrong, *TEXTS[6:]], name="a.txt")
    assert [text for text, _ in (next(filled) for _ in range(4))] == TEXTS[:4]
    with pytest.raises(PalavraError, match=rf"^a\.txt:7: .*{said}") as caught:
        next(filled)
    assert "\n" not in str(caught.value)


def test_an_error_that_is_not_the_texts_keeps_its_words() -> None:
    with pytest.raises(PalavraError, match=r"^top is 0"):
        list(fill_all(MODEL, TEXTS, top=0, name="a.txt"))
    with pytest.raises(PalavraError, match=r"^nothing to fill in"):
        list(fill_all(MODEL, ["no blank"]))


# Embedding


def written(chunks: Iterable[list[Embedding]], path: Path) -> None:
    """Write embeddings as the command does."""
    with output_file(path) as temporary:
        write_embeddings(chunks, temporary, path.suffix)


@pytest.mark.parametrize("pooling", ["mean", "cls", "token"])
def test_embeddings_are_those_of_all_texts_at_once(pooling: Any, tmp_path: Path) -> None:
    texts = ["", "", "", "", *TEXTS, "longo " * 80]
    whole = MODEL.embed(texts, pooling)
    embedded = Embedded(MODEL, iter(texts), pooling)
    written(embedded, tmp_path / "e.parquet")
    assert (embedded.texts, embedded.cut) == (28, 1)
    file = pq.ParquetFile(tmp_path / "e.parquet")
    assert file.num_row_groups == 7
    table = file.read()
    vectors = np.concatenate([found.vectors.reshape(-1, 16) for found in whole])
    np.testing.assert_allclose(np.stack(table["vector"].to_numpy()), vectors, atol=1e-5)
    written(Embedded(MODEL, texts, pooling), tmp_path / "e.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == texts
    if pooling == "token":
        numbers = [number for number, found in enumerate(whole) for _ in found.offsets]
        assert table["number"].to_pylist() == numbers
        assert table["text"].to_pylist() == [texts[number] for number in numbers]
        spans = list(zip(table["start"].to_pylist(), table["end"].to_pylist(), strict=True))
        assert spans == [offset for found in whole for offset in found.offsets]
        assert [len(row["tokens"]) for row in rows] == [len(found.offsets) for found in whole]
        return
    written(Embedded(MODEL, texts, pooling), tmp_path / "e.npy")
    array = np.load(tmp_path / "e.npy", mmap_mode="r", allow_pickle=False)
    assert (array.dtype, array.shape) == (np.float32, (28, 16))
    np.testing.assert_allclose(array, vectors, atol=1e-5)


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".jsonl"])
def test_a_file_is_written_whole_or_not_at_all(suffix: str, tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield from TEXTS
        raise PalavraError("a.txt:24 is not UTF-8")

    (tmp_path / f"e{suffix}").write_bytes(b"before")
    with pytest.raises(PalavraError, match=r"a\.txt:24"):
        written(Embedded(MODEL, broken()), tmp_path / f"e{suffix}")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]
    with pytest.raises(PalavraError, match="cannot be written"):
        written(Embedded(MODEL, TEXTS), tmp_path / f"e{suffix}" / f"e{suffix}")


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".jsonl"])
def test_memory_does_not_grow_with_the_texts(suffix: str, tmp_path: Path) -> None:
    def chunks(count: int) -> Iterator[list[Embedding]]:
        for _ in range(count):
            yield [Embedding("um", np.ones(200, dtype=np.float32), ((0, 2),), False) for _ in range(10)]

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            written(chunks(count), tmp_path / f"e{suffix}")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(3)
    assert peak(150) < peak(15) + 200_000  # all of it would be 1.2 MB more
