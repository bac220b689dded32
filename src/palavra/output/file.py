"""Single files that a command writes: checked before the work, and written whole or not at all."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from palavra.errors import PalavraError
from palavra.files import atomic_path, remove_partial
from palavra.output.errors import Unwritable
from palavra.output.folder import owner_of
from palavra.output.local import check_local

# What commands write beside a model. All else in a model's folder is the model's.
_RESULTS = (".jsonl", ".npy", ".parquet")


@contextlib.contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """Give the block a temporary path; if the block succeeds, that file replaces `path`. Enter it before the work.

    What a killed writer of `path` left beside it is removed. Raises PalavraError if `path` is a link, or anything but
    an ordinary file; Unwritable if it cannot be written.
    """
    _check_type(path)
    try:
        remove_partial(path.parent, path)
        with atomic_path(path) as temporary:
            yield temporary
    except OSError as error:
        if error.filename == str(path):
            raise Unwritable(f"{path} cannot be written ({error.strerror}): choose another file") from None
        raise


def _check_type(path: Path) -> None:
    check_local(path)
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # writing it will raise the error
    if stat.S_ISLNK(mode):
        raise PalavraError(f"{path} is a link, which is not written through: name the file itself")
    if stat.S_ISDIR(mode):
        raise PalavraError(f"{path} is a folder: name a file")
    if not stat.S_ISREG(mode):
        raise PalavraError(f"{path} is a pipe or device, which cannot be replaced: name an ordinary file")


def check_no_input(path: Path, inputs: Iterable[str | Path], option: str) -> None:
    """Raise PalavraError if writing `path` would replace something that the command reads, or a part of a model or run.

    `inputs` are files, folders of models, and "-" for standard input; what does not exist, such as "hf://...", is
    ignored. `option` names `path`.
    """
    owner = owner_of(path)
    if owner is not None:
        raise PalavraError(f"{path} belongs to what Palavra wrote in {owner[0]}: choose another {option}")
    try:
        state = os.stat(path)
    except OSError:
        return
    around = [] if path.suffix in _RESULTS else [os.stat(each) for each in Path(os.path.realpath(path)).parents]
    for given in inputs:
        read = _state(given)
        if read and os.path.samestat(state, read):
            called = "standard input" if str(given) == "-" else given
            raise PalavraError(f"{path} is an input too ({called}): choose another {option}")
        if read and any(os.path.samestat(folder, read) for folder in around):
            raise PalavraError(f"{path} belongs to the model that is read, {given}: choose another {option}")


def _state(given: str | Path) -> os.stat_result | None:
    """Return what tells a file or folder from others, whatever its name; None for what does not exist."""
    try:
        return os.fstat(0) if str(given) == "-" else os.stat(Path(given).expanduser())
    except (OSError, ValueError):
        return None
