"""Exact duplicates are dropped and counted."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from palavra.data.deduplicate import without_duplicates
from palavra.data.sources import Document, Tally


def documents_of(hashes: list[int]) -> Iterator[Document]:
    return (Document(str(hash), "f", line, 1, hash, hash) for line, hash in enumerate(hashes, 1))


@given(st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1))))
def test_duplicates_are_dropped_and_counted(hashes: list[int]) -> None:
    tally = Tally()
    kept = [document.hash for document in without_duplicates(documents_of(hashes), tally)]
    assert kept == list(dict.fromkeys(hashes))
    assert tally.duplicates == tally.duplicate_bytes == len(hashes) - len(kept)


def test_pieces_of_one_document_are_no_duplicates_of_each_other() -> None:
    def book(*hashes: int) -> list[Document]:
        return [Document(str(hash), "f", 1, 1, hash, hashes[0], number) for number, hash in enumerate(hashes)]

    tally = Tally()
    documents = [*book(1, 2, 2, 1), *book(2), *book(3, 3), *book(1, 2, 2, 1), *book(4, 1, 3)]
    kept = [document.hash for document in without_duplicates(documents, tally)]
    assert kept == [1, 2, 2, 1, 3, 3, 4]
    assert tally.duplicates == len(documents) - len(kept)
