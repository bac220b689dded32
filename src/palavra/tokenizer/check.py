"""What the content of a `tokenizer.json` may be.

The `tokenizers` library checks little of it: it panics, aborts or never ends on some files that it reads without an
error. Here every part is looked at first. Published files have only parts whose effects are known; a file with any
other part is tried in a process of its own (`trial.py`).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from palavra.errors import PalavraError
from palavra.tokenizer.charsmap import longest_replacement
from palavra.tokenizer.config import MOST_ENTRIES

MOST_PARTS = 64  # of a normalizer, pre-tokenizer, post-processor or decoder; sequences count too
MOST_ADDED_TOKENS = 100_000  # the library takes the square of their number
LONGEST_ADDED_TOKEN = 1000  # characters
LONGEST_WORD = 1000  # characters of a word that WordPiece cuts; it takes the square of their number
LONGEST_INSERTED = 64  # bytes of text put before a text or in the place of a character; Unicode's own forms have 33

# The key of the list of a sequence, and the types that the library knows, by place.
_PARTS = {
    "normalizer": (
        "normalizers",
        "BertNormalizer ByteLevel Lowercase NFC NFD NFKC NFKD Nmt Precompiled Prepend Replace Strip StripAccents",
    ),
    "pre_tokenizer": (
        "pretokenizers",
        "BertPreTokenizer ByteLevel CharDelimiterSplit Digits FixedLength Metaspace Punctuation Split UnicodeScripts "
        "Whitespace WhitespaceSplit",
    ),
    "post_processor": ("processors", "BertProcessing ByteLevel RobertaProcessing TemplateProcessing"),
    "decoder": ("decoders", "BPEDecoder ByteFallback ByteLevel CTC Fuse Metaspace Replace Strip WordPiece"),
}
# Regular expressions of published tokenizers: each takes time in proportion to the text, and matches no empty one.
_KNOWN_PATTERNS = {
    r"\s+",
    r" {2,}",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    *(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
        for digits in (r"\p{N}{1,3}", r"\p{N}")
    ),
}
_BYTE_LETTERS = {  # how a byte-level vocabulary writes the 256 bytes
    chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))
} | {chr(256 + number) for number in range(68)}
_BYTE_ENTRIES = {f"<0x{byte:02X}>" for byte in range(256)}


def is_known_good(content: Mapping[str, Any]) -> bool:
    """Return whether every part of the content of a `tokenizer.json` has only known effects. Raises PalavraError for
    what cannot be used."""
    try:
        return _is_known_good(content)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise PalavraError(f"one of its values is missing or of another type ({error})") from None


def _is_known_good(content: Mapping[str, Any]) -> bool:
    parts = [(place, part) for place in _PARTS for part in _parts(place, content.get(place))]
    before = [part.get("type") for place, part in parts if place in ("normalizer", "pre_tokenizer")]
    entries = _vocabulary(content["model"])
    good = [
        _check_model(content["model"], entries, "ByteLevel" in before),
        before.count("ByteLevel") + before.count("Precompiled") <= 1,  # each may make a text longer
        *(_is_good_part(place, part) for place, part in parts),
    ]
    ids = {*entries.values(), *_check_added_tokens(content.get("added_tokens") or [])}
    for place, part in parts:
        if place == "post_processor":
            _check_post_processor(part, ids)
    return all(good)


def serialized(content: Mapping[str, Any]) -> str:
    """Return the content of a `tokenizer.json` as the library gets it: with the type of the model, which old files do
    not name. Left alone, the library takes one for another: a damaged BPE for a list of words."""
    model = content["model"]
    return json.dumps({**content, "model": {**model, "type": _model_type(model)}})


def _model_type(model: Mapping[str, Any]) -> str:
    if "type" in model:
        return str(model["type"])
    if "merges" in model:
        return "BPE"
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"


def _parts(place: str, value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the parts at a place, those of sequences one by one. Raises PalavraError for a type that does not exist."""
    members, known = _PARTS[place]
    waiting = [] if value is None else [value]
    count = 0
    while waiting:
        part = waiting.pop()
        kind = part.get("type")
        count += 1
        if count > MOST_PARTS:
            raise PalavraError(f"its {place} has more than {MOST_PARTS} parts")
        if kind == "Sequence":
            waiting += part[members]
        elif kind is None or kind in known.split():
            yield part
        else:
            raise PalavraError(f"its {place} has the type {_shown(kind)}, which is none of {known.replace(' ', ', ')}")


def _is_good_part(place: str, part: Mapping[str, Any]) -> bool:
    """Return whether a part can neither fail, take long nor make a text much longer. Raises PalavraError for one that
    fails on every text."""
    match part.get("type"):
        case "FixedLength":
            if not _is_number(part.get("length", 1), 1, MOST_ENTRIES):
                raise PalavraError(f"its {place} cuts text into pieces of {_shown(part['length'])} characters")
        case "Split" | "Replace":
            return _is_good_pattern(part["pattern"], part.get("content", ""))
        case "Prepend":
            return len(str(part.get("prepend")).encode(errors="replace")) <= LONGEST_INSERTED
        case "Strip":
            return place == "normalizer" or part.get("stop") == 0
        case "Precompiled":
            try:
                return longest_replacement(part.get("precompiled_charsmap")) <= LONGEST_INSERTED
            except ValueError as error:
                raise PalavraError(f"its precompiled_charsmap is damaged ({error})") from None
        case None:
            return False
    return True


def _is_good_pattern(pattern: Mapping[str, str], content: str) -> bool:
    """Return whether a pattern is found in a time in proportion to the text, and `content` is no longer than it."""
    if "Regex" in pattern:
        return pattern["Regex"] in _KNOWN_PATTERNS and len(content) <= 1
    return len(pattern["String"]) >= max(1, len(content))


def _vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids of a model's entries. Raises PalavraError unless each has one of its own."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: the entries with their scores, in the order of the ids
        vocabulary = {entry: id for id, (entry, _) in enumerate(vocabulary)}
    if not 0 < len(vocabulary) <= MOST_ENTRIES:
        raise PalavraError(f"its vocabulary has {len(vocabulary):,} entries: use 1 to {MOST_ENTRIES:,}")
    ids = list(vocabulary.values())
    if {*map(type, ids)} != {int} or min(ids) < 0 or max(ids) >= MOST_ENTRIES or len(set(ids)) < len(ids):
        owners: dict[object, str] = {}
        for entry, id in vocabulary.items():
            if not _is_number(id, 0, MOST_ENTRIES - 1):
                raise PalavraError(f"its entry {_shown(entry)} has the id {_shown(id)}, not 0 to {MOST_ENTRIES - 1:,}")
            if owners.setdefault(id, entry) != entry:
                raise PalavraError(f"its entries {_shown(owners[id])} and {_shown(entry)} have the same id {id}")
    return dict(vocabulary)


def _check_model(model: Mapping[str, Any], entries: Mapping[str, int], byte_level: bool) -> bool:
    """Return whether a model with these entries has only known effects. Raises PalavraError for one that cannot spell
    what it does not know, and for merges and words that the library does not survive."""
    kind = _model_type(model)
    unknown = model.get("unk_token")
    if kind == "Unigram":
        if not _is_number(model.get("unk_id"), 0, len(model["vocab"]) - 1):
            raise PalavraError(f"the id of its unknown token, {_shown(model.get('unk_id'))}, is not in the vocabulary")
        return True
    if kind == "BPE":
        spelling = _BYTE_LETTERS if byte_level else _BYTE_ENTRIES
        spells_all = (byte_level or model.get("byte_fallback")) and entries.keys() >= spelling
        if unknown is not None and unknown not in entries and not spells_all:
            raise PalavraError(f"its unknown token {_shown(unknown)} is not in the vocabulary")
        affixes = [model.get(key) or "" for key in ("continuing_subword_prefix", "end_of_word_suffix")]
        if affixes[0]:
            _check_merges(model.get("merges"), affixes[0], entries)
        return not (model.get("byte_fallback") and any(affixes))
    if unknown not in entries:
        raise PalavraError(f"its unknown token {_shown(unknown)} is not in the vocabulary")
    if not _is_number(model.get("max_input_chars_per_word", 1), 1, LONGEST_WORD):
        longest = _shown(model["max_input_chars_per_word"])
        raise PalavraError(f"its max_input_chars_per_word is {longest}: use 1 to {LONGEST_WORD} characters")
    return True


def _check_merges(merges: Any, prefix: str, entries: Mapping[str, int]) -> None:
    """Raise PalavraError unless every merge of a BPE whose inner pieces begin with a prefix gives an entry. The library
    cuts the prefix off without looking."""
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        if not right.startswith(prefix) or left + right.removeprefix(prefix) not in entries:
            raise PalavraError(f"its merge {_shown(merge)} gives no entry of the vocabulary")


def _check_added_tokens(tokens: Any) -> set[int]:
    """Return the ids of the tokens beside the vocabulary. Raises PalavraError for an empty token and for too many."""
    if len(tokens) > MOST_ADDED_TOKENS:
        raise PalavraError(f"it has {len(tokens):,} added tokens: use at most {MOST_ADDED_TOKENS:,}")
    for token in tokens:
        if not 0 < len(token["content"]) <= LONGEST_ADDED_TOKEN:
            raise PalavraError(f"its added token {_shown(token['id'])} is empty or longer than {LONGEST_ADDED_TOKEN:,}")
        if not _is_number(token["id"], 0, MOST_ENTRIES - 1):
            raise PalavraError(f"its added token {_shown(token['content'])} has the id {_shown(token['id'])}")
    return {token["id"] for token in tokens}


def _check_post_processor(part: Mapping[str, Any], ids: set[int]) -> None:
    """Raise PalavraError for a post-processor that leaves the text out or names an id that does not exist."""
    named = [part[key][1] for key in ("sep", "cls") if key in part]
    if part.get("type") == "TemplateProcessing":
        defined = {name: token["ids"] for name, token in part["special_tokens"].items()}
        single = [(key, value["id"]) for piece in part["single"] for key, value in piece.items()]
        if [id for key, id in single if key == "Sequence"] != ["A"]:
            raise PalavraError("its post-processor has no place, or several, for a text")
        if unknown := [id for key, id in single if key == "SpecialToken" and id not in defined]:
            raise PalavraError(f"its post-processor names {_shown(unknown[0])}, which it does not define")
        named += [id for each in defined.values() for id in each]
    if missing := [id for id in named if id not in ids]:
        raise PalavraError(f"its post-processor names the id {_shown(missing[0])}, which no entry has")


def _is_number(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _shown(value: object) -> str:
    """Return a value of a file for a message, shortened."""
    shown = ascii(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
