"""Vocabulary training: a bounded sample of the documents, and the pipeline of each algorithm."""

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

_COVERAGE = 0.9999  # fraction of the text's characters in the alphabet of WordPiece and Unigram

# A word of 200,000 characters takes the trainers 14 seconds, so runs without a space are cut for training.
_LONG_RUN = re.compile(r"(\S{256})(?=\S)|(\s{256})\s+")


def train_content(documents: Iterable[str], config: TokenizerConfig) -> tuple[dict[str, Any], list[str]]:
    """Train on one pass over `documents`; return the content of a `tokenizer.json` and warnings."""
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
        normalize = backend.normalizer.normalize_str  # before training, which locks the backend
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
    """Return the documents with the smallest content hashes, up to `most_bytes` of UTF-8: a uniform sample in one pass,
    the same for any order of the documents."""
    kept: list[tuple[int, str, int]] = []  # a heap by decreasing hash
    total = 0
    bar = 1 << 64  # documents with this hash or a larger one are not in the sample
    for text in documents:
        content = text.encode("utf-8", "replace")[:most_bytes]
        # Not the hash of the split into training and validation: the sample must be from both.
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
    """Return the characters that get an entry before any word does, most frequent first, and the rare others. The first
    are at most `most` and make up `_COVERAGE` of the text."""
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
    """Return the tokens of the five roles; the mask includes the space before it, since the predicted token has one."""
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
    # No space is added before a text: decoding could not distinguish it from one in the text.
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
    # A character takes two entries ("a" and "##a"); half of the vocabulary is left for longer pieces. The trainer
    # numbers the "##a" in the order of a hash map. As special tokens they keep this order, so that the same text gives
    # the same vocabulary; they do not stay special.
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
    # The split after "[" prevents text that spells "[MASK]" from matching the entry of that name.
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
