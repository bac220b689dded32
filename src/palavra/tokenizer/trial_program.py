"""The program of `trial.py`: it needs nothing of the package, so that it starts at once."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from itertools import permutations
from typing import Any

LONGEST_SECONDS = 10  # of work
MOST_MEMORY = 2 << 30  # bytes
MOST_GROWTH = 64  # characters for each one of a text
_USUAL = "aA1 .'-\n\t\0\u00e9\u65e5\u2581"
_ENDS = ("\x01", "~")  # some normalizers remove the first
_LONGEST_RUN = 4000  # characters; time that grows with their third power is too long there
_TEXTS = [
    "",
    " ",
    "Hello, world: it isn't 12,345 o'clock!",
    "a\u00e7\u00e3o \ufb01 \u00bd e\u0301\u0301 \ufdfa \U0001f600\u200d",
    "[MASK] <unk> </s> <|x|> ## \u0120 \u2581 <0x0A> | \ufffd \U0010fffd",
]


def main() -> None:
    """Use the file on standard input on hard texts; say why it failed and end with 1."""
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        for limit, most in ((resource.RLIMIT_CPU, LONGEST_SECONDS), (resource.RLIMIT_AS, MOST_MEMORY)):
            soft, hard = resource.getrlimit(limit)
            resource.setrlimit(limit, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard))
    import tokenizers as hf

    serialized = sys.stdin.buffer.read().decode()
    try:
        _use(json.loads(serialized), hf.Tokenizer.from_str(serialized), hf.Tokenizer.from_str(serialized))
    except BaseException as error:  # a panic is no Exception
        os.write(1, " ".join(str(error).split())[:200].encode(errors="replace"))
        sys.exit(1)


def _use(content: dict[str, Any], prompts: Any, texts: Any) -> None:
    texts.encode_special_tokens = True
    for text in _probes(content):
        normalized = prompts.normalizer.normalize_str(text[:64]) if prompts.normalizer is not None else text[:64]
        pieces = prompts.pre_tokenizer.pre_tokenize_str(normalized) if prompts.pre_tokenizer is not None else []
        if max(len(normalized), sum(len(piece) for piece, _ in pieces)) > MOST_GROWTH * (len(text[:64]) + 1):
            raise ValueError(f"it makes {len(text[:64])} characters more than {MOST_GROWTH} times as many")
        for tokenizer in (prompts, texts):
            encoded = tokenizer.encode(text, add_special_tokens=False)
            _ = encoded.offsets
        prompts.decode(encoded.ids, skip_special_tokens=False)
    ids = list(prompts.get_vocab(with_added_tokens=True).values())
    for some in ([], ids[:300], *([id] for id in ids[:300])):
        prompts.decode(some, skip_special_tokens=False)


def _probes(content: dict[str, Any]) -> Iterator[str]:
    """Yield texts on which parts fail, grow or backtrack: runs of the usual characters and of those in the file's own
    patterns, each with an end that does not match, and runs of pairs of them."""
    yield from _TEXTS
    patterns = list(_patterns([content.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")]))
    yield from (pattern * 20 for pattern in patterns)
    letters = list(dict.fromkeys(_USUAL + "".join(patterns)))[:40]
    for length in (8, 64, _LONGEST_RUN):
        yield from (letter * length + end for letter in letters for end in _ENDS)
    yield from ("".join(pair) * 64 + end for pair in permutations(letters[:12], 2) for end in _ENDS)


def _patterns(value: Any) -> Iterator[str]:
    """Yield the texts in the parts of a file."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "precompiled_charsmap" and key != "type":
                yield from _patterns(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _patterns(inner)
    elif isinstance(value, str):
        yield value[:100]


if __name__ == "__main__":
    main()
