"""Numbers as people read them. Whatever is not a finite number becomes a dash: a partial run is no error."""

import math
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

ABSENT = "\N{EN DASH}"
SPACE = "\N{NARROW NO-BREAK SPACE}"  # between a number and its unit


def number(value: object) -> float | None:
    """The value as a float, or None where it is no finite number (a bool is none)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # an int beyond float's range
        return None
    return found if math.isfinite(found) else None


Rest = ParamSpec("Rest")


def of_numbers(write: Callable[Concatenate[float, Rest], str]) -> Callable[Concatenate[object, Rest], str]:
    """Make a function that writes a finite float write any value: a dash for one that is no finite number."""

    @wraps(write)
    def written(value: object, /, *args: Rest.args, **kwargs: Rest.kwargs) -> str:
        found = number(value)
        return ABSENT if found is None else write(found, *args, **kwargs)

    return written


@of_numbers
def count(found: float, exact_below: float = 1e6) -> str:
    """A quantity: 13,906 below `exact_below`, then 1.23 M, 4.56 B (1e4 suits an axis: 9,000, then 20 k)."""
    if abs(found) < exact_below:
        return f"{found:,.0f}" if found == int(found) or abs(found) >= 100 else f"{found:,.3g}"
    for scale, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(found) >= 0.9995 * scale or unit == "k":
            return f"{float(f'{found / scale:.3g}'):,g}{SPACE}{unit}"
    raise AssertionError("unreachable: the last unit always returns")


@of_numbers
def size(found: float) -> str:
    """Bytes in decimal units: 2.54 MB."""
    text = count(found, exact_below=1e3).replace("B", "G")
    return f"{text}B" if text[-1].isalpha() else f"{text}{SPACE}bytes"


@of_numbers
def duration(found: float) -> str:
    """Seconds as 4.2 s, 3 min 04 s, 1 h 02 min, 2 d 03 h."""
    if found < 0:
        return ABSENT
    if found < 59.95:
        return f"{found:.1f}{SPACE}s"
    whole = round(found)
    for unit, low, unit_size in (("min", "s", 60), ("h", "min", 3600), ("d", "h", 86400)):
        low_size = {"s": 1, "min": 60, "h": 3600}[low]
        high, rest = divmod(round(whole / low_size), unit_size // low_size)
        if unit == "d" or high < {"min": 60, "h": 24}[unit]:
            return f"{high:,}{SPACE}{unit} {rest:02d}{SPACE}{low}"
    raise AssertionError("unreachable: days always return")


@of_numbers
def percent(found: float, digits: int = 1) -> str:
    """A fraction of one as 37.6%; one too small for the digits, but not nothing, as <0.1%."""
    least = 10.0**-digits
    return f"<{least:g}%" if 0 < 100 * found < least / 2 else f"{100 * found:.{digits}f}%"


@of_numbers
def loss(found: float) -> str:
    """Nats per token, three decimals."""
    return f"{found:.3f}"


@of_numbers
def perplexity(found: float) -> str:
    """Three significant digits; large ones as whole numbers."""
    return f"{found:.3g}" if abs(found) < 1000 else count(found)


def plain(value: object) -> str:
    """Any JSON value in a table cell."""
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or ABSENT
    if isinstance(value, int | float):
        return count(value)
    return str(value)


def visible(token: str) -> str:
    """A token's text with white space and control characters made visible, so that no bar lacks a name."""
    shown = token if token.strip() else token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")
    shown = "".join(c if c.isprintable() else f"U+{ord(c):04X}" for c in shown)
    return shown or "(empty)"
