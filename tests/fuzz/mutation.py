"""Damage a valid value, text or file a little: what parsers meet when a file is foreign, old, cut short or hostile."""

import json
import math
from collections.abc import Callable
from random import Random
from typing import Any

# Values at the edges of what types, numbers and terminals hold.
NUMBERS: list[Any] = [
    0, -1, 1, 2, 3, 7, 255, 65_536, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, -(10**30), 10**180,
    0.5, -0.5, 1e-320, 1e30, 1e308, math.nan, math.inf, -math.inf,
]  # fmt: skip
STRINGS = [
    "", " ", "0", "-1", "1e400", "nan", "none", "true", "\0", "\x1b[2Jred\x07", "a\nb\rc", "\x85\u2028", "\ud800", "²",
    "\u202eabc", "é" * 3000, "../..", "/dev/null", "[MASK]", "[" * 3000, "(a+)+$", "%s{0}", "😀", "e\u0301" * 500,
    "\x9b31m", "x" * 300_000,
]  # fmt: skip
NESTED = "@nested@"  # stands for a hundred thousand lists in each other, which only a text can hold
ODD: list[Any] = [*NUMBERS, *STRINGS, None, True, False, [], {}, [[]], {"": {}}, [None] * 300, NESTED]


def odd(random: Random) -> Any:
    """One odd value."""
    return random.choice(random.choice([NUMBERS, STRINGS, ODD]))


def damaged(random: Random, value: Any) -> Any:
    """The value with one to three of its parts changed; `value` itself stays."""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        value = _changed_somewhere(random, value)
    return value


def _changed_somewhere(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.95:
        key = random.choice(list(value))
        action = random.random()
        if action < 0.1:
            return {name: each for name, each in value.items() if name != key}
        if action < 0.15:
            return {(odd_name(random) if name == key else name): each for name, each in value.items()}
        if action < 0.2:
            return value | {odd_name(random): odd(random)}
        return value | {key: _changed_somewhere(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.95:
        place = random.randrange(len(value))
        changes: list[Callable[[], list[Any]]] = [
            lambda: value[:place] + value[place + 1 :],
            lambda: value[:place] + [value[place]] * random.choice([2, 1000]) + value[place + 1 :],
            lambda: value[place:] + value[:place],
            lambda: [*value[:place], odd(random), *value[place:]],
        ]
        if random.random() < 0.3:
            return random.choice(changes)()
        return [*value[:place], _changed_somewhere(random, value[place]), *value[place + 1 :]]
    return _changed(random, value)


def odd_name(random: Random) -> str:
    """A name that no reader expects."""
    return str(random.choice(STRINGS))


def _changed(random: Random, value: Any) -> Any:
    """Another value in the place of one: near it, or of any type."""
    if random.random() < 0.5:
        if isinstance(value, bool):
            return random.choice([not value, int(value), str(value)])
        if isinstance(value, int):
            return random.choice([value + 1, value - 1, -value, value * 1000, value / 3, str(value)])
        if isinstance(value, float) and math.isfinite(value):
            return random.choice([-value, value * 1e6, value + 1, str(value), round(value)])
        if isinstance(value, str):
            return damaged_text(random, value)
    return odd(random)


def damaged_text(random: Random, text: str) -> str:
    """The text with one or two places changed."""
    for _ in range(random.choice([1, 1, 2])):
        start, stop = sorted((random.randint(0, len(text)), random.randint(0, len(text))))
        stop = min(stop, start + 40)
        piece = text[start:stop]
        inserted = random.choice(
            [
                "",
                piece * 2,
                piece * 500,
                piece[::-1],
                str(odd(random)),
                "\n",
                "\r\n",
                "\t",
                ",",
                '"',
                "\0",
                "\ufeff",
                " ",
            ]
        )
        text = text[:start] + inserted + text[stop:]
    return text[: random.randint(0, len(text))] if random.random() < 0.15 else text


def damaged_bytes(random: Random, content: bytes) -> bytes:
    """The bytes cut short, with some changed, repeated or inserted."""
    for _ in range(random.choice([1, 1, 2, 5])):
        start = random.randint(0, len(content))
        length = random.choice([1, 1, 4, 8, 100])
        changed = bytes(random.choice([0, 0xFF, 0x80, random.randrange(256)]) for _ in range(length))
        content = random.choice(
            [
                content[:start],
                content[:start] + changed + content[start + length :],
                content[:start] + changed + content[start:],
                content[:start] + content[start + length :],
                content[:start] + content[start : start + length] * 50 + content[start:],
            ]
        )
    return content


def plain_json(value: Any) -> bytes:
    """A value as JSON in UTF-8, on one line."""
    text = json.dumps(value, ensure_ascii=False).replace(f'"{NESTED}"', "[" * 100_000 + "]" * 100_000)
    return text.encode("utf-8", "surrogatepass")


def json_bytes(random: Random, value: Any) -> bytes:
    """A value as JSON: sometimes with a key twice, in another encoding, or with bytes that are damaged."""
    content, chance = plain_json(value), random.random()
    if chance < 0.03:
        return content.replace(b"{", b'{"a":1,"a":2,', 1)
    if chance < 0.05:
        return content.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass")
    return damaged_bytes(random, content) if chance > 0.9 else content
