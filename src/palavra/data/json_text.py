"""JSON of labelled data: one value a line or one list a file, with the line that every value starts at."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palavra.data.decoding import text_blocks
from palavra.data.formats import json_kind
from palavra.errors import PalavraError

LONGEST_FILE = 1 << 28  # characters of a file that is held whole

_BLANKS = re.compile(r"[ \t\n]*")


def parse_object(text: str, name: Path | str, line: int) -> dict[str, Any]:
    """The JSON object that is all of `text`, which is a line of what errors call `name`."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise PalavraError(f"{name}:{line}: not valid JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number or a nesting too long for Python
        raise PalavraError(f"{name}:{line}: not readable JSON ({error})") from None
    return checked_object(value, f"{name}:{line}")


def checked_object(value: Any, where: str) -> dict[str, Any]:
    """`value` as an object whose text is whole; anything else is an error."""
    if not isinstance(value, dict):
        raise PalavraError(f"{where}: a JSON {json_kind(value)}, not an object with columns")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise PalavraError(f"{where}: not readable JSON ({error})") from None
    except UnicodeEncodeError as error:
        wrong = ord(error.object[error.start])
        raise PalavraError(
            f"{where}: \\u{wrong:04x} is half of a character, as when a text is cut inside an emoji; take it out"
        ) from None
    return value


def read_whole(path: Path, encoding: str) -> str:
    """The text of a JSON file of at most `LONGEST_FILE` characters, which is held in memory."""
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
    return "".join(blocks).removeprefix("\ufeff")


def parse_whole(text: str, path: Path) -> Any:
    """The one JSON value of a file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _not_json(error, path) from None
    except (ValueError, RecursionError) as error:
        raise PalavraError(f"{path}: not readable JSON ({error})") from None


def list_items(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """The items of the one JSON list of a file, each with the line it starts at."""
    decoder = json.JSONDecoder()
    at = _after_blanks(text, 0)
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
        except json.JSONDecodeError as error:
            raise _not_json(error, path) from None
        except (ValueError, RecursionError) as error:
            raise PalavraError(f"{path}:{line}: not readable JSON ({error})") from None
        yield line, value
        at = _after_blanks(text, at)
        if text[at : at + 1] == ",":
            at = _after_blanks(text, at + 1)
            if text[at : at + 1] == "]":
                raise _not_json(json.JSONDecodeError("A comma before the end", text, at), path)
        elif text[at : at + 1] != "]":
            raise _not_json(json.JSONDecodeError("Expecting ',' or ']'", text, at), path)
    at = _after_blanks(text, at + 1)
    if at < len(text):
        raise _not_json(json.JSONDecodeError("Extra data", text, at), path)


def refuse_nul(where: str) -> None:
    """Raise for a NUL character: text of two bytes a character that was read as one byte, or no text."""
    raise PalavraError(
        f"{where}: a NUL character; if the text is UTF-16, say so with the encoding option "
        f"(--encoding=utf-16-le), else take it out"
    )


def _after_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    assert found is not None
    return found.end()


def _not_json(error: json.JSONDecodeError, path: Path) -> PalavraError:
    return PalavraError(f"{path}:{error.lineno}: not valid JSON ({error.msg}, column {error.colno})")
