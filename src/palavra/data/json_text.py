"""JSON files: one value a line, or one value a file, of which only the part in use is held."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palavra.data.decoding import text_blocks
from palavra.errors import PalavraError
from palavra.limits import LARGEST_DOCUMENT, LARGEST_RECORD, check_record, utf8_size
from palavra.typed_json import DEEPEST, check_nesting, no_json, parse_json

_BLANKS = re.compile(r"[ \t\n]*")
# Characters after which a value that is no JSON is wrong, and not merely cut at the end of what was read.
_LONGEST_CUT = 32
# Characters of the file behind the current position that are forgotten at once.
_FORGOTTEN = 1 << 16


def json_line_values(lines: Iterator[tuple[int, str]], name: Path | str) -> Iterator[tuple[int, Any]]:
    """Yield the value on each of the numbered lines; blank lines are skipped."""
    for line, text in lines:
        if not text.isspace():
            yield line, parse_json(text.removesuffix("\n"), name, line)


def as_object(value: Any, where: str) -> dict[str, Any]:
    """Return a value that must be a JSON object. Raises PalavraError for anything else."""
    if not isinstance(value, dict):
        raise PalavraError(f"{where}: a JSON {json_kind(value)}, not an object with columns")
    return value


def checked_object(value: Any, where: str) -> dict[str, Any]:
    """Return a value that must be a JSON object of well-formed text. Raises PalavraError for anything else."""
    values = as_object(value, where)
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except RecursionError as error:
        raise PalavraError(f"{where}: not readable JSON ({error})") from None
    except UnicodeEncodeError as error:
        wrong = ord(error.object[error.start])
        raise PalavraError(
            f"{where}: \\u{wrong:04x} is half of a character, as when a text is cut inside an emoji; remove it"
        ) from None
    return values


def json_kind(value: Any) -> str:
    """Return what JSON calls a value, for messages."""
    names = {dict: "object", list: "list", bool: "truth value", int: "number", float: "number", str: "text"}
    return names.get(type(value), type(value).__name__ if value is not None else "null")


class JsonDocument:
    """A file of one JSON value, read from its beginning to its end: whoever reads it takes the values of lists and
    objects one by one, each of at most `LARGEST_RECORD` bytes, and the file has at most `LARGEST_DOCUMENT`.

    All functions raise PalavraError, with file and line, for what is no JSON.
    """

    def __init__(self, path: Path | str, encoding: str) -> None:
        self.path = path
        self._blocks = text_blocks(path, encoding)
        self._text, self._at, self._bytes, self._ended = "", 0, 0, False
        self._lines, self._counted, self._column = 1, 0, 0  # before `_counted`, and of the first character held

    @property
    def line(self) -> int:
        """Return the line of the next value."""
        self.peek()
        self._lines += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._lines

    def peek(self) -> str:
        """Return the next character that is no blank, "" at the end of the file."""
        while True:
            found = _BLANKS.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or not self._read_more(1):
                return self._text[self._at : self._at + 1]

    def value(self) -> Any:
        """Return the next value, whole."""
        line = self.line
        while True:
            held = len(self._text) - self._at
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._at)
                if end < len(self._text) or not self._read_more(1):  # a number may go on
                    check_record(end - self._at, f"{self.path}:{line}")
                    check_nesting(value, f"{self.path}:{line}")
                    self._at = end
                    return value
            except (ValueError, RecursionError) as error:
                check_record(held, f"{self.path}:{line}")
                if self._is_wrong(error) or not self._read_more(min(held, LARGEST_RECORD + 1 - held)):
                    raise self._refusal(error) from None

    def items(self) -> Iterator[int]:
        """Yield the line of each item of the list that comes next; the item must be read before the next one."""
        for _ in self._separated("[", "]"):
            yield self.line

    def members(self) -> Iterator[str]:
        """Yield each key of the object that comes next; its value must be read before the next one."""
        for _ in self._separated("{", "}"):
            if self.peek() != '"':
                raise self._syntax("Expecting property name enclosed in double quotes")
            key = self.value()
            if self.peek() != ":":
                raise self._syntax("Expecting ':' delimiter")
            self._at += 1
            yield key

    def skip(self, levels: int = DEEPEST) -> None:
        """Read over the next value, of which nothing is held."""
        mark = self.peek()
        if mark and mark in "[{" and not levels:
            raise PalavraError(f"{self.path}:{self.line}: nested more than {DEEPEST} levels deep")
        if mark == "[":
            for _ in self.items():
                self.skip(levels - 1)
        elif mark == "{":
            for _ in self.members():
                self.skip(levels - 1)
        else:
            self.value()

    def end(self) -> None:
        """Raise PalavraError if anything comes after the value."""
        if self.peek():
            raise self._syntax("Extra data")

    def _separated(self, opening: str, closing: str) -> Iterator[None]:
        """Yield before each part of the list or object that comes next."""
        if self.peek() != opening:
            raise self._syntax(f"Expecting '{opening}'")
        self._at += 1
        if self.peek() == closing:
            self._at += 1
            return
        while True:
            yield
            mark = self.peek()
            if mark not in (",", closing) or not mark:
                raise self._syntax(f"Expecting ',' or '{closing}'")
            self._at += 1
            if mark == closing:
                return
            if self.peek() == closing:
                raise self._syntax("A comma before the end")

    def _read_more(self, characters: int) -> bool:
        """Read at least so many further characters; return False if there are none."""
        parts: list[str] = []
        while characters > 0 and not self._ended:
            block = next(self._blocks, None)
            self._ended = block is None
            if block and "\0" in block:
                refuse_nul(f"{self.path}")
            parts.append(block or "")
            characters -= len(parts[-1])
            self._bytes += utf8_size(parts[-1])
        if self._bytes > LARGEST_DOCUMENT:
            raise PalavraError(
                f"{self.path}: more than {LARGEST_DOCUMENT:,} bytes; write it as .jsonl, one record a line, or divide "
                "it into smaller files"
            )
        added = "".join(parts)
        if added and self._at > _FORGOTTEN:
            self._lines += self._text.count("\n", self._counted, self._at)
            line_start = self._text.rfind("\n", 0, self._at) + 1
            self._column = self._at - line_start + (0 if line_start else self._column)
            self._text, self._at, self._counted = self._text[self._at :], 0, 0
        self._text += added
        return bool(added)

    def _is_wrong(self, error: Exception) -> bool:
        """Return whether a value is no JSON however it goes on."""
        if not isinstance(error, json.JSONDecodeError):
            return True
        return error.pos + _LONGEST_CUT < len(self._text) and not error.msg.startswith("Unterminated string")

    def _syntax(self, message: str) -> PalavraError:
        return self._refusal(json.JSONDecodeError(message, self._text, self._at))

    def _refusal(self, error: Exception) -> PalavraError:
        if isinstance(error, json.JSONDecodeError):
            line = self._lines + self._text.count("\n", self._counted, error.pos)
            column = error.colno + (self._column if error.lineno == 1 else 0)
            return PalavraError(f"{self.path}:{line}: not valid JSON ({error.msg}, column {column})")
        return no_json(error, self.path, self.line)


def refuse_nul(where: str) -> None:
    """Raise PalavraError for a NUL character: the text has two bytes a character, or is no text."""
    raise PalavraError(
        f"{where}: a NUL character; if the text is UTF-16, say so with the encoding option "
        f"(--encoding=utf-16-le), else remove it"
    )
