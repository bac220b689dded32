"""Small `tokenizer.json` files, each of the kind of a published model."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers as hf
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "one of the best movies of the year, isn't it?",
    "um gato correu pela rua, e a menina n\u00e3o viu: cora\u00e7\u00e3o, a\u00e7\u00e3o, av\u00f3.",
    "HELLO world 12345 \u65e5\u672c\u8a9e \ufb01lm \u00bd",
]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
    r"|\s+"
)
_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_TRAINED: dict[str, Any] = {"show_progress": False, "vocab_size": 350}
_BYTES: dict[str, Any] = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}


def charsmap(replacements: Mapping[str, str]) -> str:
    """Return the `precompiled_charsmap` of SentencePiece for these replacements: a double-array trie in which every
    node has 256 units of its own, and the texts."""
    texts = b"".join(text.encode() + b"\0" for text in replacements.values())
    starts = np.cumsum([0, *(len(text.encode()) + 1 for text in replacements.values())]).tolist()
    nodes: dict[bytes, int] = {b"": 0}  # key -> its place among the units
    units = {0: 256 << 10}
    for key, value in zip(replacements, starts, strict=False):
        letters = key.encode()
        for end in range(1, len(letters) + 1):
            prefix = letters[:end]
            if prefix not in nodes:
                parent = 256 * (list(nodes).index(prefix[:-1]) + 1)
                nodes[prefix] = parent ^ letters[end - 1]
                units[nodes[prefix]] = ((nodes[prefix] ^ (256 * len(nodes))) << 10) | letters[end - 1]
        units[nodes[letters]] |= 1 << 8
        units[256 * (list(nodes).index(letters) + 1)] = (1 << 31) | value
    array = np.zeros(256 * (len(nodes) + 1), "<u4")
    array[list(units)] = list(units.values())
    return base64.b64encode(np.uint32(array.nbytes).tobytes() + array.tobytes() + texts).decode()


def _made(model: Any, trainer: Any, **parts: Any) -> dict[str, Any]:
    backend = hf.Tokenizer(model)
    for place in ("normalizer", "pre_tokenizer"):
        if place in parts:
            setattr(backend, place, parts.pop(place))
    backend.train_from_iterator(TEXTS * 20, trainer)
    for place, part in parts.items():
        setattr(backend, place, part)
    content: dict[str, Any] = json.loads(backend.to_str())
    return content


def bert() -> dict[str, Any]:
    """Return a WordPiece file of BERT."""
    return _made(
        models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(special_tokens=_BERT, **_TRAINED),
        normalizer=normalizers.BertNormalizer(),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        post_processor=processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
        decoder=decoders.WordPiece(),
    )


def gpt2() -> dict[str, Any]:
    """Return a byte-level BPE file of GPT-2: an unknown token that is not in the vocabulary and never needed."""
    content = _made(
        models.BPE(),
        trainers.BpeTrainer(special_tokens=["<|endoftext|>"], **_BYTES, **_TRAINED),
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False),
        post_processor=processors.ByteLevel(trim_offsets=False),
        decoder=decoders.ByteLevel(),
    )
    del content["model"]["type"]
    content["model"] |= {"unk_token": "", "continuing_subword_prefix": "", "end_of_word_suffix": ""}
    return content


def llama3() -> dict[str, Any]:
    """Return a byte-level BPE file of Llama 3, with its regular expression and template."""
    begin = "<|begin_of_text|>"
    template = processors.TemplateProcessing(f"{begin} $A", f"{begin} $A {begin}:1 $B:1", [(begin, 0)])
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    return _made(
        models.BPE(ignore_merges=True),
        trainers.BpeTrainer(special_tokens=[begin, "<|end_of_text|>"], **_BYTES, **_TRAINED),
        pre_tokenizer=pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)]),
        post_processor=processors.Sequence([processors.ByteLevel(trim_offsets=True), template]),
        decoder=decoders.ByteLevel(),
    )


def llama2() -> dict[str, Any]:
    """Return a BPE file of Llama 2: bytes as entries of their own, spaces replaced."""
    return _made(
        models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True),
        trainers.BpeTrainer(special_tokens=["<unk>", "<s>", "</s>"], **_TRAINED),
        normalizer=normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]),
        post_processor=processors.TemplateProcessing("<s> $A", "<s> $A <s>:1 $B:1", [("<s>", 1)]),
        decoder=decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    )


def t5() -> dict[str, Any]:
    """Return a Unigram file of SentencePiece, with its map of characters."""
    content = _made(
        models.Unigram(),
        trainers.UnigramTrainer(special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", **_TRAINED),
        pre_tokenizer=pre_tokenizers.Metaspace(),
        post_processor=processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)]),
        decoder=decoders.Metaspace(),
    )
    precompiled = {"type": "Precompiled", "precompiled_charsmap": charsmap({"\ufb01": "fi", "\u00bd": "1\u20442"})}
    blanks = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}
    return content | {"normalizer": {"type": "Sequence", "normalizers": [precompiled, blanks]}}


def word_level() -> dict[str, Any]:
    """Return a file of whole words, with parts that no other kind has."""
    return _made(
        models.WordLevel(unk_token="[UNK]"),
        trainers.WordLevelTrainer(special_tokens=_BERT, **_TRAINED),
        normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.FixedLength(5)]),
        post_processor=processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
    )


KINDS = {make.__name__: make() for make in (bert, gpt2, llama3, llama2, t5, word_level)}


def write(content: Any, directory: Path) -> Path:
    """Write a `tokenizer.json`; return its directory."""
    directory.mkdir(exist_ok=True)
    (directory / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return directory
