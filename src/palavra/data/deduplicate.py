"""Removal of exact duplicates of documents, in bounded memory."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing

from palavra.data.sources import Document, Tally
from palavra.errors import PalavraError

_CACHE_KIB = 64 * 1024


def without_duplicates(documents: Iterable[Document], tally: Tally) -> Iterator[Document]:
    """Yield the documents whose content hash is new; count the others as duplicates.

    A piece of a long document is never a duplicate of another piece of the same document.

    The 64-bit hashes are in a temporary SQLite table, which uses at most 64 MiB of memory and the temporary folder
    beyond that (about 25 bytes a document). Among 10 million documents, the probability that two different ones have
    the same hash is below one in 300,000.
    """
    own: set[int] = set()  # new hashes of the current document
    try:
        # An empty name is a private database that SQLite deletes; the generator may change threads.
        with closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as database:
            for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):
                database.execute(f"PRAGMA {setting}")
            database.execute("CREATE TABLE seen (hash INTEGER PRIMARY KEY)")
            database.execute("BEGIN")
            for document in documents:
                if not document.piece:
                    own.clear()
                signed = document.hash - (1 << 63)  # SQLite's integers have a sign
                if database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (signed,)).rowcount:
                    own.add(signed)
                if signed in own:
                    yield document
                else:
                    tally.note("duplicates", document.where)
                    tally.duplicate_bytes += document.bytes
    except sqlite3.Error as error:
        raise PalavraError(f"duplicates cannot be looked up ({error}); is the temporary folder full?") from None
