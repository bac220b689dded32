"""The tokenizer: text to ids and back, and the roles of its special tokens.

Documents are plain text: one that contains the characters "[MASK]" or "</s>" gives ordinary tokens. Only
`Tokenizer.encode_prompt`, for prompts that a user types, recognizes special tokens in a text.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tokenizers as hf
from tokenizers import decoders

from palavra.errors import PalavraError
from palavra.limits import AT_ONCE, batched
from palavra.tokenizer.check import serialized
from palavra.tokenizer.config import OWN_TOKENS, TokenizerConfig
from palavra.tokenizer.directory import read_directory, role_names, write_directory
from palavra.tokenizer.guard import library_errors
from palavra.tokenizer.training import train_content

LARGEST_CONTEXT = 2**31


class _RoleId:
    """A property: the id of the token that has a role."""

    def __init__(self, role: str, doc: str):
        self._role, self.__doc__ = role, doc

    def __get__(self, tokenizer: "Tokenizer", owner: type) -> int:
        return tokenizer._role_id(self._role)


class Tokenizer:
    """A tokenizer of the `tokenizers` library with the roles of its special tokens.

    `roles`: "pad", "unk", "cls", "sep", "mask" -> the token with this role, if the vocabulary has one (RoBERTa: "cls"
    is `<s>`, "sep" `</s>`, "mask" `<mask>`). Properties of a missing role, such as `mask_id`, raise `PalavraError`.
    `warnings`: those of training, one line each. `max_length`: most tokens of a text, special ones included, if its
    directory says so.
    """

    def __init__(
        self, content: Mapping[str, Any], role_names: Mapping[str, Sequence[str]], *, name: str = "this tokenizer",
        warnings: Sequence[str] = (), max_length: int | None = None,
    ) -> None:  # fmt: skip
        """Make a tokenizer from the `content` of a `tokenizer.json`, without its padding and truncation. Of the
        `role_names` to look for, the first one in the vocabulary has the role."""
        # Keep the content as read: the library may write the last digit of a Unigram score differently.
        self._content = {**content, "padding": None, "truncation": None}
        # Two copies, because recognizing special tokens in text is a state of the backend.
        read = serialized(self._content)
        self._name = name
        with library_errors(name, "cannot read it"):
            self._prompts: hf.Tokenizer = hf.Tokenizer.from_str(read)
            self._texts: hf.Tokenizer = hf.Tokenizer.from_str(read)
            self._check_added_tokens()
        self._texts.encode_special_tokens = True
        found = {
            role: next((token for token in names if self._prompts.token_to_id(token) is not None), None)
            for role, names in role_names.items()
        }
        self.roles = {role: token for role, token in found.items() if token is not None}
        self.warnings = tuple(warnings)
        self.max_length = max_length

    @classmethod
    def train(cls, documents: Iterable[str], config: TokenizerConfig) -> "Tokenizer":
        """Train on one pass over `documents`; see `TokenizerConfig`. Memory is bounded by `config.sample_bytes` plus
        the distinct words of that sample. Raises `PalavraError` if there is no text."""
        content, warnings = train_content(documents, config)
        return cls(content, role_names({}), warnings=warnings)

    @classmethod
    def load(cls, directory: Path | str) -> "Tokenizer":
        """Read a directory with a `tokenizer.json` of any origin, or with the `vocab.txt` of an old BERT; nothing in it
        is run. Raises `PalavraError` that names what is missing or damaged."""
        content, settings = read_directory(Path(directory))
        length = settings.get("model_max_length")
        # Larger numbers than any context stand for no limit.
        known = length if type(length) is int and 0 < length <= LARGEST_CONTEXT else None
        return cls(content, role_names(settings), name=str(directory), max_length=known)

    def save(
        self, directory: Path | str, *, context: int | None = None, segments: bool = False, continues: bool = False
    ) -> None:  # fmt: skip
        """Write `tokenizer.json` and `tokenizer_config.json`, which `transformers.AutoTokenizer` reads too.

        `context`: the model's longest sequence, special tokens included; None leaves the length open. `segments`: the
        model takes `token_type_ids`. `continues`: the model continues texts, so no token closes them.
        """
        write_directory(Path(directory), self._content, self.roles, context, segments, continues)

    # Vocabulary and roles

    def _check_added_tokens(self) -> None:
        """Raise PalavraError for a token to which the library gives another id than its file, or which is empty once
        normalized: the library finds that one everywhere, inside characters too, and panics."""
        normalizer = self._prompts.normalizer
        for token in self._content.get("added_tokens") or []:
            shown = ascii(token["content"])[:40]
            id = self._prompts.token_to_id(token["content"])
            if id != token["id"]:
                raise PalavraError(
                    f"{self._name}: the added token {shown} has the id {token['id']}, but the library gives it {id}: "
                    "the ids of added tokens must follow those of the vocabulary without a gap"
                )
            if normalizer is not None and token.get("normalized") and not normalizer.normalize_str(token["content"]):
                raise PalavraError(f"{self._name}: nothing is left of the added token {shown} once it is normalized")

    def _encoding(self) -> AbstractContextManager[None]:
        return library_errors(self._name, "fails on a text")

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return self._prompts.get_vocab(with_added_tokens=True)

    @cached_property
    def vocab_size(self) -> int:
        """V: one more than the largest id."""
        return max(self._vocabulary.values()) + 1

    pad_id = _RoleId("pad", "Id of the padding token.")
    unk_id = _RoleId("unk", "Id of the token for text that the vocabulary cannot spell.")
    cls_id = _RoleId("cls", "Id of the token that opens a sequence.")
    sep_id = _RoleId("sep", "Id of the token that closes a sequence.")
    mask_id = _RoleId("mask", "Id of the token that replaces a masked one.")

    @property
    def mask_token(self) -> str:
        """The text of the mask token, for example "[MASK]" or "<mask>"."""
        self._role_id("mask")
        return self.roles["mask"]

    def _role_id(self, role: str) -> int:
        if role not in self.roles:
            raise PalavraError(
                f"{self._name} has no {role} token, which is needed here: name it in tokenizer_config.json "
                f'as "{role}_token" or use a tokenizer that has one'
            )
        return self._vocabulary[self.roles[role]]

    def check_fits(self, entries: int, where: object) -> None:
        """Raise PalavraError if a model with this many entries, of the directory `where`, cannot take every id."""
        if self.vocab_size > entries:
            raise PalavraError(
                f"{where}: the tokenizer has {self.vocab_size} entries, the model only {entries}: they do not belong "
                "together"
            )

    def config_ids(self) -> dict[str, int]:
        """Return the ids of roles by their names in the `config.json` of `transformers`."""
        ids = {"cls_token_id": self.cls_id, "sep_token_id": self.sep_id, "bos_token_id": self.cls_id,
               "eos_token_id": self.sep_id}  # fmt: skip
        return ids | ({"pad_token_id": self.pad_id} if "pad" in self.roles else {})

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that are not text: the roles and every token marked special."""
        marked = {id for id, token in self._prompts.get_added_tokens_decoder().items() if token.special}
        return frozenset(marked | {self._vocabulary[token] for token in self.roles.values()})

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of all that decides which ids a text gets."""
        deciding = {key: self._content.get(key) for key in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
        canonical = json.dumps(deciding, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    # Text to ids

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, without special tokens."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens; runs on all cores."""
        texts = _well_formed(texts)
        ids = self._encode_batch([text if len(text) <= AT_ONCE else "" for text in texts])
        for index, text in enumerate(texts):
            if (self._spelled_specials is not None or len(text) > AT_ONCE) and len(parts := self._parts(text)) > 1:
                ids[index] = [id for _, part in parts for id in self._encode_batch([part])[0]]
        return ids

    def _encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        with self._encoding():
            return [one.ids for one in self._texts.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_flat(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Return the ids of all texts end to end, (N,) uint32, and the number of each text, (S,) int64."""
        parts, lengths = [np.empty(0, dtype=np.uint32)], [np.empty(0, dtype=np.int64)]
        for some in batched(texts, len(texts), len):
            ids = self.encode_many(some)
            lengths.append(np.fromiter(map(len, ids), dtype=np.int64, count=len(ids)))
            parts.append(np.fromiter(chain.from_iterable(ids), dtype=np.uint32, count=int(lengths[-1].sum())))
        return np.concatenate(parts), np.concatenate(lengths)

    @cached_property
    def template(self) -> tuple[list[int], list[int]]:
        """The ids that this tokenizer puts before and after a text."""
        for probe in ("a", *islice(self._vocabulary, 100)):
            with self._encoding():
                encoded = self._texts.encode(probe, add_special_tokens=True)
            added = encoded.special_tokens_mask
            if 0 in added:
                first, last = added.index(0), len(added) - added[::-1].index(0)
                return encoded.ids[:first], encoded.ids[last:]
        return [], []

    def lowercased(self) -> "Tokenizer":
        """Return this tokenizer for texts in lower case."""
        normalizer = self._content.get("normalizer")
        steps = [{"type": "Lowercase"}, *([normalizer] if normalizer else [])]
        content = {**self._content, "normalizer": {"type": "Sequence", "normalizers": steps}}
        roles = {role: [token] for role, token in self.roles.items()}
        return Tokenizer(content, roles, name=self._name, max_length=self.max_length)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids of `text` and the span `text[start:end]` of each, without blanks around it."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for shift, part in self._parts(*_well_formed([text])):
            with self._encoding():
                encoded = self._texts.encode(part, add_special_tokens=False)
            ids += encoded.ids
            offsets += [_trimmed(text, shift + start, shift + end) for start, end in encoded.offsets]
        return ids, offsets

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of a text in which special tokens may be written, without adding others.

        "[MASK]" always means the mask token, whatever this tokenizer calls it. In byte-level tokenizers of Palavra, the
        mask includes the space before it, since the predicted token has its own.
        """
        if "mask" in self.roles:
            text = text.replace(OWN_TOKENS["mask"], self.roles["mask"])
        with self._encoding():
            ids: list[int] = self._prompts.encode(_well_formed([text])[0], add_special_tokens=False).ids
        return ids

    @cached_property
    def _spelled_specials(self) -> re.Pattern[str] | None:
        """Pattern of the special tokens that ordinary text with their spelling would give, or None: SentencePiece holds
        them as ordinary pieces, so text that spells one must be encoded in two parts."""
        tokens = [token for token, id in self._vocabulary.items() if id in self.special_ids and len(token) > 1]
        unknown = {self._vocabulary[self.roles["unk"]]} if "unk" in self.roles else set()

        def reachable(text: str) -> bool:
            (ids,) = self._encode_batch([text])
            return bool(self.special_ids.intersection(ids) - unknown)

        spelled = [token for token in tokens if any(map(reachable, (token, f"a {token} a", f"a{token}a")))]
        return re.compile("|".join(map(re.escape, spelled)), re.IGNORECASE) if spelled else None

    def _parts(self, text: str) -> list[tuple[int, str]]:
        """Cut `text` inside every special token that it spells, and before a space where it is longer than what is
        encoded at once; return each part with its start."""
        spelled = self._spelled_specials.finditer(text) if self._spelled_specials is not None else ()
        parts: list[tuple[int, str]] = []
        for start, end in pairwise([0, *(found.start() + 1 for found in spelled), len(text)]):
            while end - start > AT_ONCE:
                space = text.rfind(" ", start + 1, start + AT_ONCE)
                cut = space if space > 0 else start + AT_ONCE
                parts.append((start, text[start:cut]))
                start = cut
            parts.append((start, text[start:end]))
        return parts

    # Ids to text

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, with special tokens. Byte-level: exactly the text that was encoded."""
        with library_errors(self._name, "fails on a token"):
            return self._prompts.decode([int(id) for id in ids], skip_special_tokens=False)

    def token(self, id: int) -> str:
        """Return an entry in readable form: " best" as "best", "##ing" as "ing", part of a character as U+FFFD."""
        text = self._surface(id)
        return text.strip(" ") or text

    def _surface(self, id: int) -> str:
        entry = self._prompts.id_to_token(id)
        if entry is None:
            raise PalavraError(f"{self._name} has no token {id}: its ids run from 0 to {self.vocab_size - 1}")
        if id in self.special_ids:
            return entry
        if self._marker == "##":
            return entry.removeprefix("##")
        if self._marker == "Ġ":
            return decoders.ByteLevel().decode([entry])
        return entry.replace("▁", " ")

    @cached_property
    def _marker(self) -> Literal["Ġ", "##", "▁", ""]:
        """The mark of word boundaries in entries: byte-level space, WordPiece prefix or SentencePiece space."""
        model = self._content["model"]
        if model.get("type") == "WordPiece" and model.get("continuing_subword_prefix") == "##":
            return "##"
        parts = [self._content.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")]
        around = json.dumps(parts, ensure_ascii=False)
        if '"ByteLevel"' in around:
            return "Ġ"
        return "▁" if '"Metaspace"' in around or "▁" in around else ""

    @cached_property
    def starts_word(self) -> npt.NDArray[np.bool_]:
        """(V,) bool: whether an entry begins a word; one that does not continues the word before it.

        WordPiece: every entry without "##". Byte-level and SentencePiece: entries that begin with a space or with a
        character that is neither letter, mark nor digit (punctuation is a word of its own); letters and digits without
        a space, and parts of characters, continue a word. Special tokens begin a word, and so do all entries of a
        vocabulary without marks. The first token of a document always begins a word.
        """
        starts = np.ones(self.vocab_size, dtype=np.bool_)
        for entry, id in self._vocabulary.items():
            if id in self.special_ids or not self._marker:
                continue
            if self._marker == "##":
                starts[id] = not entry.startswith("##")
            else:
                first = self._surface(id)[:1]
                starts[id] = first != "" and first != "\ufffd" and unicodedata.category(first)[0] not in "LMN"
        return starts


def _well_formed(texts: Sequence[str]) -> list[str]:
    """Return the texts with half surrogate pairs, which UTF-8 cannot hold, replaced by U+FFFD."""
    return [
        text if _is_utf8(text) else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts
    ]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span without the blanks at its ends, unless it is all blank."""
    inside = text[start:end]
    if not inside.strip():
        return start, end
    return start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())
