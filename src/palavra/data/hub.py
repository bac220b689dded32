"""Data sets of the Hugging Face hub, streamed through the optional `datasets` library.

Nothing of a data set is run: only `datasets` 4 or later is used, which runs no scripts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palavra.errors import PalavraError
from palavra.limits import check_record, size_of

PREFIX = "hf://"
# Files of a data set are read one by one, as those of other URLs.
_FILES = "hf://datasets/"


def is_hub(source: str) -> bool:
    """Return whether a source names a split of a data set."""
    return source.startswith(PREFIX) and not is_hub_file(source)


def is_hub_file(source: str) -> bool:
    """Return whether a source names files of a data set: `hf://datasets/owner/name/file`."""
    return source.startswith(_FILES) and ":" not in source.removeprefix(_FILES) and source.count("/") > 4


def hub_records(source: str, stream: Any) -> Iterator[dict[str, Any]]:
    """Yield the records of an open data set. Raises PalavraError for whatever stops the stream."""
    try:
        for row, values in enumerate(stream, 1):
            check_record(size_of(values), f"{source}:row {row}")
            yield values
    except PalavraError:
        raise
    except Exception as error:  # whatever a reader of any format may raise, and the network
        raise PalavraError(f"{source}: cannot be read to its end ({_first_line(error)})") from None


def open_hub(source: str) -> Any:
    """Return the `datasets.IterableDataset` that `hf://dataset[/config]:split` names. The data set is `owner/name`, a
    plain name, or a local folder in a form that `datasets` reads."""
    place, colon, split = source.removeprefix(PREFIX).rpartition(":")
    if not colon or not place or not split or "/" in split:
        raise PalavraError(f"{source}: write hf://dataset:split or hf://dataset/config:split")
    try:
        import datasets
    except ImportError:
        raise PalavraError(f"{source}: needs the datasets library: pip install 'palavra[hub]'") from None
    if int(datasets.__version__.split(".")[0]) < 4:
        raise PalavraError(f"{source}: needs datasets 4 or later, which runs no code of a data set")
    failure: Exception | None = None
    for name, config in _readings(place):
        try:
            return datasets.load_dataset(name, config, split=split, streaming=True)
        except datasets.exceptions.DatasetNotFoundError as error:
            failure = failure or error
        except Exception as error:  # whatever a loader of any format may raise, and the network
            raise PalavraError(f"{source}: cannot be opened ({_first_line(error)})") from None
    raise PalavraError(f"{source}: no such data set ({_first_line(failure)})")


def _readings(place: str) -> Iterator[tuple[str, str | None]]:
    """Yield the meanings of `a/b`: owner and name, or name and configuration; a local folder comes first."""
    head, _, tail = place.rpartition("/")
    if Path(place).is_dir():
        yield place, None
    elif (head and Path(head).is_dir()) or place.count("/") == 2:
        yield head, tail
    else:
        yield place, None
        if head:
            yield head, tail


def _first_line(error: Exception | None) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
