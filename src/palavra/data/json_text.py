"""JSON files: one value a line, or one list a file, each value with the line where it starts."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palavra.data.decoding import text_blocks
from palavra.errors import PalavraError
from palavra.files import half_character
from palavra.typed_json import check_nesting, no_json, parse_json

LONGEST_FILE = 1 << 28  # characters of a file that is held in memory

_BLANKS = re.compile(r"[ \t\n]*")


def json_line_objects(lines: Iterator[tuple[int, str]], name: Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the object on each of the numbered lines; blank lines are skipped."""
    for line, text in lines:
        if not text.isspace():
            yield line, as_object(parse_json(text.removesuffix("\n"), name, line), f"{name}:{line}")


def as_object(value: Any, where: str) -> dict[str, Any]:
    """Return a value that must be a JSON object. Raises PalavraError for anything else."""
    if not isinstance(value, dict):
        raise PalavraError(f"{where}: a JSON {json_kind(value)}, not an object with columns")
    return value


def checked_object(value: Any, where: str) -> dict[str, Any]:
    """Return a value that must be a JSON object of well-formed text. Raises PalavraError for anything else."""
    values = as_object(value, where)
    if half := half_character(json.dumps(values, ensure_ascii=False)):
        raise PalavraError(f"{where}: {half} is half of a character, as when a text is cut inside an emoji; remove it")
    return values


def json_kind(value: Any) -> str:
    """Return what JSON calls a value, for messages."""
    names = {dict: "object", list: "list", bool: "truth value", int: "number", float: "number", str: "text"}
    return names.get(type(value), type(value).__name__ if value is not None else "null")


def read_whole(path: Path, encoding: str) -> str:
    """Return the text of a JSON file of at most `LONGEST_FILE` characters."""
    blocks, size = [], 0
    for block in text_blocks(path, encoding):
        blocks.append(block)
        size += len(block)
        if size > LONGEST_FILE:
            raise PalavraError(
                f"{path}: more than {LONGEST_FILE:,} characters; write it as .jsonl, one record a line, "
                f"or divide it into smaller files"
            )
        if "\0" in block:
            refuse_nul(f"{path}")
    return "".join(blocks)


def list_items(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the items of the JSON list that is the whole `text` of a file, with the line where each starts."""
    decoder, at = json.JSONDecoder(), _after_blanks(text, 0)
    line = 1 + text.count("\n", 0, at)
    if text[at : at + 1] != "[":
        what = "ends where it should begin" if at == len(text) else f"begins with {text[at]!r}"
        raise PalavraError(
            f"{path}:{line}: a list of objects, [{{...}}, ...], is expected here, but the file {what}; "
            f"if it has one object a line, name it .jsonl"
        )
    counted, at = at, _after_blanks(text, at + 1)
    while text[at : at + 1] != "]":
        line += text.count("\n", counted, at)
        counted = at
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:  # JSON's own errors know their line
            raise no_json(error, path, 1 if isinstance(error, json.JSONDecodeError) else line) from None
        check_nesting(value, f"{path}:{line}")
        yield line, value
        at = _after_blanks(text, at)
        if text[at : at + 1] == ",":
            at = _after_blanks(text, at + 1)
            if text[at : at + 1] == "]":
                raise no_json(json.JSONDecodeError("A comma before the end", text, at), path)
        elif text[at : at + 1] != "]":
            raise no_json(json.JSONDecodeError("Expecting ',' or ']'", text, at), path)
    at = _after_blanks(text, at + 1)
    if at < len(text):
        raise no_json(json.JSONDecodeError("Extra data", text, at), path)


def refuse_nul(where: str) -> None:
    """Raise PalavraError for a NUL character: the text has two bytes a character, or is no text."""
    raise PalavraError(
        f"{where}: a NUL character; if the text is UTF-16, say so with the encoding option "
        f"(--encoding=utf-16-le), else remove it"
    )


def _after_blanks(text: str, at: int) -> int:
    return found.end() if (found := _BLANKS.match(text, at)) else at
