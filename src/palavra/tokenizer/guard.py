"""The `tokenizers` library, called so that whatever fails in it is an error that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager

from palavra.errors import PalavraError, lack_of_memory


@contextmanager
def library_errors(where: object, does: str) -> Iterator[None]:
    """Raise PalavraError, which names `where` and says that the library `does` not do its work, for every exception of
    the library in the block. A panic is one that is no Exception and whose class has no importable name."""
    try:
        yield
    except (PalavraError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if lack_of_memory(error):
            raise MemoryError(f"{where}: {error}") from None
        raise PalavraError(f"{where}: the tokenizers library {does} ({error})") from None
