"""Training a vocabulary: a bounded sample of the documents, and the pipeline around each algorithm."""

import bisect
import hashlib
import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import tokenizers as hf
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from palavra.errors import PalavraError
from palavra.tokenizer.config import OWN_TOKENS, TokenizerConfig

_COVERAGE = 0.9999  # of the characters of the text, by the alphabet of WordPiece and Unigram

# One word of 200,000 characters takes the trainers 14 seconds, so runs without a space are cut for training.
_LONG_RUN = re.compile(r"(\S{256})(?=\S)|(\s{256})\s+")


def train_content(documents: Iterable[str], config: TokenizerConfig) -> tuple[dict[str, Any], list[str]]:
    """Train on one pass over `documents`; returns a `tokenizer.json` and what there is to tell about it."""
    sample = _sample(documents, config.sample_bytes)
    if not any(text.strip() for text in sample):
        raise PalavraError("there is no text to train a tokenizer on: every document is empty")
    texts: Iterable[str] = (_LONG_RUN.sub(r"\1\2 ", text) for text in sample)
    if config.algorithm == "bpe":
        backend, trainer = _bpe(config)
    elif config.algorithm == "wordpiece":
        backend, trainer = _wordpiece(config, sample)
    else:
        backend, trainer, rare = _unigram(config, sample)
        normalize = backend.normalizer.normalize_str  # taken here: while it trains, the backend is locked
        texts = (normalize(text).translate(rare) for text in texts)
    backend.train_from_iterator(texts, trainer)
    cls, sep = OWN_TOKENS["cls"], OWN_TOKENS["sep"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
    )
    content: dict[str, Any] = json.loads(backend.to_str())
    content["added_tokens"] = content["added_tokens"][: len(OWN_TOKENS)]
    size, asked = backend.get_vocab_size(), config.entries
    if size == asked:
        return content, []
    return content, [f"the text supports a vocabulary of {size:,} entries, not the {asked:,} asked for"]


def _sample(documents: Iterable[str], most_bytes: int) -> list[str]:
    """The documents with the smallest content hashes, as many as `most_bytes` of UTF-8 hold.

    A uniform sample without knowing how many documents will come, and the same whatever order they come in.
    """
    kept: list[tuple[int, str, int]] = []  # a heap by falling hash
    total = 0
    bar = 1 << 64  # documents whose hash is not below it cannot be in the sample
    for text in documents:
        content = text.encode("utf-8", "replace")[:most_bytes]
        # Not the hash that splits documents into training and validation: the sample shall be of both.
        hash = int.from_bytes(hashlib.blake2b(content, digest_size=8, person=b"sample").digest(), "big")
        if hash >= bar:
            continue
        heapq.heappush(kept, (-hash, content.decode("utf-8", "ignore"), len(content)))
        total += len(content)
        while total > most_bytes:
            largest, _, size = heapq.heappop(kept)
            total -= size
            bar = -largest
    return [text for _, text, _ in sorted(kept, reverse=True)]


def _alphabet(normalizer: Any, texts: Iterable[str], most: int) -> tuple[list[str], list[str]]:
    """The characters that earn an entry, most frequent first, and the rare rest.

    Together the first make up `_COVERAGE` of all characters, and they are at most `most`: an algorithm over
    characters makes an entry of every one that it is given, before any word.
    """
    frequency: Counter[str] = Counter()
    for text in texts:
        frequency.update(normalizer.normalize_str(text))
    for blank in [character for character in frequency if character.isspace()]:
        del frequency[blank]
    ranked = sorted(frequency, key=lambda character: (-frequency[character], character))
    covered = accumulate(frequency[character] for character in ranked)
    enough = bisect.bisect_left(list(covered), _COVERAGE * frequency.total()) + 1
    return ranked[: min(enough, most)], ranked[min(enough, most) :]


def _special_tokens() -> list[AddedToken]:
    """The five roles; the mask takes the space before it, since the token to be filled brings its own."""
    return [
        AddedToken(token, special=True, normalized=False, lstrip=role == "mask") for role, token in OWN_TOKENS.items()
    ]


def _normalizer(config: TokenizerConfig, *further: Any) -> Any:
    steps: list[Any] = [normalizers.NFC()] if config.nfc else []
    if config.strip_accents:
        steps += [normalizers.NFD(), normalizers.StripAccents(), normalizers.NFC()]
    if config.lowercase:
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence([*steps, *further])


def _bpe(config: TokenizerConfig) -> tuple[hf.Tokenizer, Any]:
    backend = hf.Tokenizer(models.BPE())
    backend.normalizer = _normalizer(config)
    # No space is put before a text: it could not be told from one that was there.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend, trainers.BpeTrainer(
        vocab_size=config.entries,
        min_frequency=config.min_frequency,
        special_tokens=_special_tokens(),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def _wordpiece(config: TokenizerConfig, sample: Iterable[str]) -> tuple[hf.Tokenizer, Any]:
    backend = hf.Tokenizer(models.WordPiece(unk_token=OWN_TOKENS["unk"]))
    backend.normalizer = _normalizer(config, normalizers.BertNormalizer(lowercase=False, strip_accents=False))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    # A character takes two entries ("a" and "##a"), and half of the vocabulary is left for longer pieces. The
    # trainer numbers the "##a" in the order of a hash map; as special tokens they keep this order, and the
    # same text gives the same vocabulary. They do not stay special.
    alphabet, _ = _alphabet(backend.normalizer, sample, max(1, (config.entries - len(OWN_TOKENS)) // 4))
    return backend, trainers.WordPieceTrainer(
        vocab_size=config.entries,
        min_frequency=config.min_frequency,
        special_tokens=[*_special_tokens(), *("##" + character for character in alphabet)],
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        show_progress=False,
    )


def _unigram(config: TokenizerConfig, sample: Iterable[str]) -> tuple[hf.Tokenizer, Any, dict[int, str]]:
    backend = hf.Tokenizer(models.Unigram())
    backend.normalizer = _normalizer(config, normalizers.Replace(hf.Regex(r"\s+"), " "))
    # The split after "[" keeps text that spells "[MASK]" from matching the entry of that name.
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first")
    split = pre_tokenizers.Split("[", "merged_with_previous")
    backend.pre_tokenizer = pre_tokenizers.Sequence([metaspace, split])
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    _, rare = _alphabet(backend.normalizer, sample, config.entries // 2)
    trainer = trainers.UnigramTrainer(
        vocab_size=config.entries,
        special_tokens=_special_tokens(),
        unk_token=OWN_TOKENS["unk"],
        show_progress=False,
    )
    return backend, trainer, {ord(character): " " for character in rare}
