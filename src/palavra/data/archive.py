"""XML in zip archives, the form of spreadsheets, as a stream of events in bounded memory."""

import re
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO
from xml.parsers import expat

from palavra.errors import PalavraError

# The most bytes of the list of an archive's members, which is held in memory.
LARGEST_DIRECTORY = 1 << 20
# The end of an archive: 22 bytes, a comment, and before them 76 bytes of the form for large archives.
_TAIL = 22 + 0xFFFF + 76
_BLOCK = 1 << 16
# The most bytes of a tag or comment, which the parser holds whole.
LARGEST_TAG = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)


class Archive:
    """An open zip archive of XML files, which errors call `name`."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        weakref.finalize(self, file.close)
        try:
            _check_directory(file, name)
            self._zip = zipfile.ZipFile(file)
        except _DAMAGES as error:
            raise PalavraError(
                f"{name}: not a readable spreadsheet ({error}); one in another format, such as .xls, or with a "
                "password must be saved anew, as .xlsx or .ods without one, or as CSV"
            ) from None

    def holds(self, member: str) -> bool:
        """Return whether there is such a file in the archive."""
        return member in self._zip.NameToInfo

    def events(self, member: str, handler: "Handler") -> Iterator[None]:
        """Parse a file of the archive, and yield whenever `handler` has seen some more of it. Raises PalavraError for
        what is damaged, no XML, or declares entities."""
        where = f"{self.name} ({member})"
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        seen, waiting = 0, 0

        def start(name: str, attributes: dict[str, str]) -> None:
            nonlocal seen
            seen += 1
            handler.start(_local(name), {_local(key): value for key, value in attributes.items()})

        def end(name: str) -> None:
            handler.end(_local(name))

        def text(content: str) -> None:
            nonlocal seen
            seen += 1
            handler.text(content)

        def refuse(*_: object) -> None:
            raise PalavraError(f"{where}: declares a document type, which spreadsheets do not")

        parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
        parser.StartDoctypeDeclHandler = refuse
        for block in self._blocks(member):
            before = seen
            try:
                parser.Parse(block, not block)
            except expat.ExpatError as error:
                raise PalavraError(f"{where}: not valid XML ({error}); save the spreadsheet anew") from None
            waiting = 0 if seen > before else waiting + len(block)
            if waiting > LARGEST_TAG:
                raise PalavraError(f"{where}: a tag or comment of more than {LARGEST_TAG:,} bytes; save it anew")
            yield

    def _blocks(self, member: str) -> Iterator[bytes]:
        """Yield the content of a file in blocks, and an empty one at its end."""
        try:
            info = self._zip.getinfo(member)
            if info.compress_type not in _METHODS:
                raise ValueError("an unusual compression")
            with self._zip.open(info) as file:
                while block := file.read(_BLOCK):
                    yield block
        except KeyError:
            raise PalavraError(f"{self.name}: not a readable spreadsheet ({member} is missing in it)") from None
        except _DAMAGES as error:
            raise PalavraError(f"{self.name}: cannot be read to its end, {member} is damaged ({error})") from None
        yield b""


class Handler:
    """What is done with the elements and texts of an XML file; names are without their namespaces."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Begin an element."""

    def end(self, name: str) -> None:
        """End an element."""

    def text(self, content: str) -> None:
        """Read some text."""


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def _check_directory(file: IO[bytes], name: str) -> None:
    """Raise PalavraError if the list of members is larger than it may be."""
    end = file.seek(0, 2)
    file.seek(max(0, end - _TAIL))
    tail = file.read(_TAIL)
    file.seek(0)
    # The size of the list in the end of an archive, and in that of a large one, where the first says nothing.
    for mark, offset, width in ((b"PK\x05\x06", 12, 4), (b"PK\x06\x06", 40, 8)):
        for found in re.finditer(mark, tail):
            field = tail[found.start() + offset :][:width]
            if field != b"\xff" * 4 and int.from_bytes(field, "little") > LARGEST_DIRECTORY:
                raise PalavraError(f"{name}: not a spreadsheet, but an archive of very many files")
