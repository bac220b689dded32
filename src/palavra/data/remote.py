"""Files that are elsewhere, named by a URL, as streams: through the file systems of pyarrow (`s3://`, `gs://`) and of
the optional `fsspec` (`https://` and all others that it knows)."""

import glob
import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TypeAlias
from urllib.parse import urlsplit

from palavra.data import memory
from palavra.data.hub import is_hub
from palavra.data.urls import is_url
from palavra.errors import PalavraError

_OF_ARROW = ("s3", "gs", "gcs")
_BLOCK = 1 << 20
# Seconds without any answer, and without any further byte.
_CONNECTING, _WAITING = 30, 60


class RemoteFile(str):
    """A file named by a URL. As a text it is what errors call it: without a query and a password, which may be
    secrets."""

    url: str

    def __new__(cls, url: str) -> "RemoteFile":
        file = super().__new__(cls, _SECRETS.sub("", url))
        file.url = url
        return file


# The user of a URL, its query and its fragment.
_SECRETS = re.compile(r"(?<=://)[^/?#@]*@|[?#].*", re.DOTALL)
# What readers open.
File: TypeAlias = Path | RemoteFile


def is_remote(source: str) -> bool:
    """Return whether a source is a URL of files."""
    return is_url(source) and not source.startswith(memory.PREFIX) and not is_hub(source)


def file_of(source: str) -> File:
    """Return the file that a source names."""
    return RemoteFile(source) if is_remote(source) else Path(os.path.expanduser(source))


def open_remote(file: RemoteFile, *, seekable: bool = False) -> IO[bytes]:
    """Open a file for reading, as a stream. A `seekable` one of a server that does not give parts of files is first
    copied to an unnamed temporary file. Raises PalavraError if it cannot be opened."""
    with _named_errors(file):
        system, path = _system(file.url)
        # Without blocks, HTTP is one answer that is read to its end.
        whole = _is_http(file.url) and not (seekable and system.info(path).get("partial"))
        stream = _Stream(system.open(path, "rb", **({"block_size": 0} if whole else {})), seekable=not whole)
        opened: IO[bytes] = io.BufferedReader(stream, _BLOCK)
        return _spooled(opened) if seekable and whole else opened


def _is_http(url: str) -> bool:
    return urlsplit(url).scheme.lower() in ("http", "https")


def _spooled(opened: IO[bytes]) -> IO[bytes]:
    """Return the content of a stream in an unnamed temporary file."""
    with ExitStack() as stack:
        copy = stack.enter_context(TemporaryFile())
        with opened:
            shutil.copyfileobj(opened, copy, _BLOCK)
        copy.seek(0)
        stack.pop_all()
    return copy


class _Stream(io.RawIOBase):
    """A remote file whose errors, of whatever library, are OSErrors."""

    def __init__(self, file: Any, *, seekable: bool) -> None:
        self._file, self._seekable = file, seekable

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def readinto(self, buffer: Any) -> int:
        with _as_os_error():
            content = self._file.read(len(buffer))
            buffer[: len(content)] = content
            return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _as_os_error():
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            super().close()
            with _as_os_error():
                self._file.close()


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # whatever a library of a network raises
        raise OSError(_said(error)) from None


@contextmanager
def _named_errors(file: RemoteFile) -> Iterator[None]:
    """Raise what a library says as a PalavraError that names the file, and what to do."""
    try:
        yield
    except PalavraError:
        raise
    except Exception as error:  # whatever a library of a network raises
        cause = error.__cause__ or error  # fsspec finds no file wherever a server does not answer
        status = getattr(cause, "status", None)
        if status == 404 or isinstance(cause, FileNotFoundError):
            raise PalavraError(f"{file}: no such file or folder there") from None
        if status in (401, 403) or isinstance(cause, PermissionError) or "ACCESS_DENIED" in str(cause):
            raise PalavraError(f"{file}: access is denied ({_said(cause)}); sign in as its owner asks") from None
        raise PalavraError(f"{file}: cannot be opened ({_said(cause)})") from None


def _said(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


@cache
def _http_options() -> dict[str, Any]:
    from aiohttp import ClientTimeout

    # A long file takes longer than the five minutes of the default.
    return {"client_kwargs": {"trust_env": True, "timeout": ClientTimeout(None, None, _WAITING, _CONNECTING)}}


def _system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, with the interface of fsspec, and the path in it."""
    scheme = urlsplit(url).scheme.lower()
    try:
        import fsspec

        if scheme in _OF_ARROW:
            from fsspec.implementations.arrow import ArrowFSWrapper
            from pyarrow.fs import FileSystem

            system, path = FileSystem.from_uri(url if scheme == "s3" else _google(url))
            return ArrowFSWrapper(system), path
        found: tuple[Any, str] = fsspec.core.url_to_fs(url, **(_http_options() if _is_http(url) else {}))
        return found
    except ImportError as error:
        raise PalavraError(f"{RemoteFile(url)}: needs pip install 'palavra[remote]' ({_said(error)})") from None
    except ValueError as error:
        raise PalavraError(f"{RemoteFile(url)}: cannot be opened ({_said(error)})") from None


def _google(url: str) -> str:
    """Return a URL of Google's storage as Arrow has it, whose attempts end; by default they go on for 15 minutes."""
    parts = urlsplit(url)
    limit = f"retry_limit_seconds={_CONNECTING}"
    query = parts.query if "retry_limit_seconds" in parts.query else "&".join(filter(None, (parts.query, limit)))
    return parts._replace(scheme="gs", query=query).geturl()


def remote_files(source: str) -> list[RemoteFile]:
    """Return the files that a URL names: those in a folder and below, or that match a glob, in order of names, without
    hidden ones; else the one file. A folder of `http` ends with a slash. Raises PalavraError if there are none."""
    file = RemoteFile(source)
    http = _is_http(source)
    with _named_errors(file):
        system, path = _system(source)
        if not http and glob.has_magic(path):
            inside = system.glob(path)
        elif source.endswith("/") if http else system.isdir(path):
            inside = system.find(path)
        else:
            return [file]
    folder = re.split(r"[*?\[]", path)[0].rpartition("/")[0] if glob.has_magic(path) else path
    found = [
        _beside(source, system, name)
        for name in sorted(inside)
        if not any(part.startswith(".") for part in name.removeprefix(folder).split("/"))
    ]
    if not found:
        raise PalavraError(f"{file}: no such file or folder there")
    return found


def _beside(source: str, system: Any, name: str) -> RemoteFile:
    """Return the file of a name that a file system lists, with the user and the query of the URL that it was found
    by."""
    parts = urlsplit(source)
    if _is_http(source):
        return RemoteFile(name)
    user = "".join(parts.netloc.rpartition("@")[:2])
    of_arrow = parts.scheme.lower() in _OF_ARROW
    url = f"{parts.scheme}://{user}{name.lstrip('/')}" if of_arrow else system.unstrip_protocol(name)
    return RemoteFile(f"{url}?{parts.query}" if parts.query else url)


def remote_state(file: RemoteFile) -> tuple[int, str]:
    """Return how many bytes a file has, 0 if nobody says it, and what else tells it from an earlier one."""
    with _named_errors(file):
        system, path = _system(file.url)
        info = system.info(path)
    known = [str(info[key]) for key in ("ETag", "mtime", "LastModified", "Last-Modified", "updated") if info.get(key)]
    return int(info.get("size") or 0), " ".join(known)
