"""Read all examples of a source; what is wrong with any of them is said at once."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from palavra.errors import PalavraError

Item = TypeVar("Item")
Example = TypeVar("Example")
_SHOWN = 3


def read_examples(
    items: Iterable[Item], example_of: Callable[[Item], Example], source: str, *, skip_bad: bool, skipped: list[str]
) -> list[Example]:
    """Return the examples of all items.

    Raises PalavraError with the number of items that are no examples, and the first few of them. With `skip_bad` they
    are left out instead, and `skipped` gets that message; an error still is what is wrong with the file itself, and a
    source without any example.
    """
    examples: list[Example] = []
    first: list[PalavraError] = []
    bad = 0
    for item in items:
        try:
            examples.append(example_of(item))
        except PalavraError as error:
            bad += 1
            first += [error] * (bad <= _SHOWN)
    if bad and (not examples or (bad == 1 and not skip_bad)):
        raise first[0]
    if bad:
        shown = "; ".join([str(error.args[0]) for error in first] + ["..."] * (bad > _SHOWN))
        counted = f"{source}: {bad:,} of {bad + len(examples):,} examples cannot be read"
        if not skip_bad:
            raise PalavraError(f"{counted}; correct them, or leave them out with --skip-bad: {shown}")
        skipped.append(f"{counted} and were left out: {shown}")
    return examples
