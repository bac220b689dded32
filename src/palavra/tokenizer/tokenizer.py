"""One tokenizer: text to ids and back, and the roles of its special tokens.

Text is only ever text: a document that happens to hold the characters "[MASK]" or "</s>" gives ordinary
tokens. The one way to write a special token inside a text is `Tokenizer.encode_prompt`, for what a person
types.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tokenizers as hf
from tokenizers import decoders

from palavra.errors import PalavraError
from palavra.tokenizer.config import OWN_TOKENS, TokenizerConfig
from palavra.tokenizer.directory import read_directory, role_names, write_directory
from palavra.tokenizer.training import train_content


class Tokenizer:
    """A tokenizer of the `tokenizers` library with the roles of its special tokens.

    `roles` maps "pad", "unk", "cls", "sep", "mask" to the token that plays it, as far as the vocabulary has
    one (RoBERTa: "cls" is `<s>`, "sep" `</s>`, "mask" `<mask>`); asking for a missing one, for example
    `mask_id`, raises `PalavraError`. `warnings` is what training has to tell, one line each.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        role_names: Mapping[str, Sequence[str]],
        *,
        name: str = "this tokenizer",
        warnings: Sequence[str] = (),
    ) -> None:
        """`content` is a whole `tokenizer.json`, whose padding and truncation are left out; `role_names` are
        the names to look for, the first that the vocabulary has plays the role."""
        # Kept as read, not as the library writes it again: that may change the last digit of a Unigram score.
        self._content = {**content, "padding": None, "truncation": None}
        # Two copies, because whether special tokens are recognised in text is a state of the backend.
        serialized = json.dumps(self._content)
        self._prompts: hf.Tokenizer = hf.Tokenizer.from_str(serialized)
        self._texts: hf.Tokenizer = hf.Tokenizer.from_str(serialized)
        self._texts.encode_special_tokens = True
        self._name = name
        found = {
            role: next((token for token in names if self._prompts.token_to_id(token) is not None), None)
            for role, names in role_names.items()
        }
        self.roles = {role: token for role, token in found.items() if token is not None}
        self.warnings = tuple(warnings)

    @classmethod
    def train(cls, documents: Iterable[str], config: TokenizerConfig) -> "Tokenizer":
        """Train on one pass over `documents`; wrap the iterable to watch its progress.

        Memory is bounded by `config.sample_bytes` plus the distinct words of that sample. The same documents
        in any order give the same vocabulary ("unigram" aside). Raises `PalavraError` when there is no text.
        """
        content, warnings = train_content(documents, config)
        return cls(content, role_names({}), warnings=warnings)

    @classmethod
    def load(cls, directory: Path | str) -> "Tokenizer":
        """Read a directory with a `tokenizer.json` of any origin, or with the `vocab.txt` of an old BERT.

        Only JSON and plain text are read, and nothing in the directory is run. Raises `PalavraError` with
        what is missing or damaged.
        """
        content, settings = read_directory(Path(directory))
        try:
            return cls(content, role_names(settings), name=str(directory))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise PalavraError(f"{directory}: the tokenizers library cannot read it ({error})") from None

    def save(
        self, directory: Path | str, *, context: int | None = None, segments: bool = False, continues: bool = False
    ) -> None:  # fmt: skip
        """Write `tokenizer.json` and `tokenizer_config.json`, for `transformers.AutoTokenizer` too.

        `context` is the model's longest sequence, special tokens included (without it the length is left
        open); `segments` says that the model takes `token_type_ids`, `continues` that it goes on where a text
        ends: then nothing closes the text.
        """
        write_directory(Path(directory), self._content, self.roles, context, segments, continues)

    # Vocabulary and roles

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return self._prompts.get_vocab(with_added_tokens=True)

    @cached_property
    def vocab_size(self) -> int:
        """V: one more than the largest id."""
        return max(self._vocabulary.values()) + 1

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return self._role_id("pad")

    @property
    def unk_id(self) -> int:
        """Id of the token for what the vocabulary cannot spell."""
        return self._role_id("unk")

    @property
    def cls_id(self) -> int:
        """Id of the token that opens a sequence."""
        return self._role_id("cls")

    @property
    def sep_id(self) -> int:
        """Id of the token that closes a sequence."""
        return self._role_id("sep")

    @property
    def mask_id(self) -> int:
        """Id of the token that stands for a hidden one."""
        return self._role_id("mask")

    @property
    def mask_token(self) -> str:
        """How the mask token is written, for example "[MASK]" or "<mask>"."""
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
        """Raise PalavraError when a model of so many entries, of the directory `where`, cannot take every id."""
        if self.vocab_size > entries:
            raise PalavraError(
                f"{where}: the tokenizer has {self.vocab_size} entries, the model only {entries}: they do not belong "
                "together"
            )

    def config_ids(self) -> dict[str, int]:
        """The ids of roles under the names that `config.json` of `transformers` has for them."""
        ids = {"cls_token_id": self.cls_id, "sep_token_id": self.sep_id, "bos_token_id": self.cls_id,
               "eos_token_id": self.sep_id}  # fmt: skip
        return ids | ({"pad_token_id": self.pad_id} if "pad" in self.roles else {})

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that never stand for text of their own: the roles and every token marked special."""
        marked = {id for id, token in self._prompts.get_added_tokens_decoder().items() if token.special}
        return frozenset(marked | {self._vocabulary[token] for token in self.roles.values()})

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of everything that decides which ids a text gets."""
        deciding = {key: self._content.get(key) for key in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
        canonical = json.dumps(deciding, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    # Text to ids

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, nothing added in front or behind."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, nothing added, on all cores."""
        texts = _well_formed(texts)
        ids: list[list[int]] = [
            encoded.ids for encoded in self._texts.encode_batch_fast(texts, add_special_tokens=False)
        ]
        if self._spelled_specials is not None:
            for index, text in enumerate(texts):
                if self._spelled_specials.search(text):
                    parts = [part for _, part in self._parts(text)]
                    encoded = self._texts.encode_batch_fast(parts, add_special_tokens=False)
                    ids[index] = [id for part in encoded for id in part.ids]
        return ids

    def encode_flat(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """The ids of all texts end to end, (N,) uint32, and how many each text has, (S,) int64."""
        ids = self.encode_many(texts)
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        return np.fromiter(chain.from_iterable(ids), dtype=np.uint32, count=int(lengths.sum())), lengths

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of `text` and the span `text[start:end]` of each, without the blanks around it."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for shift, part in self._parts(*_well_formed([text])):
            encoded = self._texts.encode(part, add_special_tokens=False)
            ids += encoded.ids
            offsets += [_trimmed(text, shift + start, shift + end) for start, end in encoded.offsets]
        return ids, offsets

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of a text in which special tokens may be written out, nothing added in front or behind.

        "[MASK]" always means the mask token, whatever this tokenizer calls it. A byte-level tokenizer of
        Palavra takes the space before the mask into it, since the token to be filled brings its own.
        """
        if "mask" in self.roles:
            text = text.replace(OWN_TOKENS["mask"], self.roles["mask"])
        ids: list[int] = self._prompts.encode(_well_formed([text])[0], add_special_tokens=False).ids
        return ids

    @cached_property
    def _spelled_specials(self) -> re.Pattern[str] | None:
        """Special tokens that ordinary text of the same spelling would give, or None.

        SentencePiece vocabularies hold their special tokens as ordinary pieces, so not recognising them is
        not enough; text that spells one is encoded in two parts.
        """
        tokens = [token for token, id in self._vocabulary.items() if id in self.special_ids and len(token) > 1]
        unknown = {self._vocabulary[self.roles["unk"]]} if "unk" in self.roles else set()
        reachable = [
            token
            for token in tokens
            if any(
                self.special_ids.intersection(self._texts.encode(text, add_special_tokens=False).ids) - unknown
                for text in (token, f"a {token} a", f"a{token}a")
            )
        ]
        return re.compile("|".join(map(re.escape, reachable)), re.IGNORECASE) if reachable else None

    def _parts(self, text: str) -> list[tuple[int, str]]:
        """`text` cut inside every special token that it spells; each part with its start."""
        spelled = self._spelled_specials.finditer(text) if self._spelled_specials is not None else ()
        cuts = [0, *(found.start() + 1 for found in spelled), len(text)]
        return [(start, text[start:end]) for start, end in pairwise(cuts)]

    # Ids to text

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, special tokens written out. Byte-level: the exact text that was encoded."""
        return self._prompts.decode([int(id) for id in ids], skip_special_tokens=False)

    def token(self, id: int) -> str:
        """One entry as people read it: " best" is "best", "##ing" is "ing"; a torn character is U+FFFD."""
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
        """How entries show where words begin: byte-level space, WordPiece prefix, SentencePiece space."""
        model = self._content["model"]
        if model.get("type") == "WordPiece" and model.get("continuing_subword_prefix") == "##":
            return "##"
        around = json.dumps(
            [self._content.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False
        )
        if '"ByteLevel"' in around:
            return "Ġ"
        return "▁" if '"Metaspace"' in around or "▁" in around else ""

    @cached_property
    def starts_word(self) -> npt.NDArray[np.bool_]:
        """(V,) bool: the entry begins a word; an entry that does not belongs to the word before it.

        WordPiece: every entry without "##". Byte-level and SentencePiece: entries that begin with a space,
        and those whose first character is neither letter, mark nor digit, so punctuation is a word of its
        own; letters and digits without a space, and torn characters, continue. Special tokens stand alone.
        Vocabularies without any of these marks: every entry. The first token of a document begins a word
        whatever this says.
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
    """The texts as UTF-8 can hold them: half a surrogate pair becomes U+FFFD."""
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
    """The span without the blanks at its ends, unless it is all blank."""
    inside = text[start:end]
    if not inside.strip():
        return start, end
    return start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())
