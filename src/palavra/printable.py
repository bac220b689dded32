"""Text from outside as it may be shown: no character of it acts on a terminal, and a message has a bounded length."""

from collections.abc import Callable

# Characters of a message that are shown: its beginning, and its end, which says what to do.
_BEGINNING, _END = 1600, 400


def python_escape(character: str) -> str:
    r"""Return a character as Python writes it in a text: `\n`, `\x1b`, `\u202e`."""
    return character.encode("unicode_escape").decode()


def escaped(text: str, keep: str = "", escape: Callable[[str], str] = python_escape) -> str:
    """Return a text with every character that is not printable escaped, except those in `keep`.

    Not printable are control characters, line and paragraph separators, marks that change the direction of writing,
    other invisible characters, spaces other than " ", and halves of surrogate pairs.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else escape(c) for c in text)


def one_message(text: str) -> str:
    """Return a text as a message: escaped, so that it is one line, and with its middle left out if it is longer than
    2,000 characters."""
    if len(text) <= _BEGINNING + _END and len(shown := escaped(text)) <= _BEGINNING + _END:
        return shown
    return f"{escaped(text[:_BEGINNING])[:_BEGINNING]} [...] {escaped(text[-_END:])[-_END:]}"
