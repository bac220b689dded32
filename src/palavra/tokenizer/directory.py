"""Tokenizer directories: read from any origin, written for `transformers`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers as hf
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from palavra.errors import PalavraError
from palavra.files import atomic_write_text
from palavra.tokenizer.check import is_known_good
from palavra.tokenizer.config import OWN_TOKENS
from palavra.tokenizer.guard import library_errors
from palavra.tokenizer.trial import try_content
from palavra.typed_json import json_text, read_json_object

# The names of published tokenizers, for directories that do not say which token has a role.
_KNOWN_TOKENS = {
    "pad": ("[PAD]", "<pad>"), "unk": ("[UNK]", "<unk>"), "cls": ("[CLS]", "<s>", "<cls>"),
    "sep": ("[SEP]", "</s>", "<sep>"), "mask": ("[MASK]", "<mask>"),
}  # fmt: skip
LARGEST_FILE = 128 << 20  # bytes; a tokenizer.json of a million entries is about 100 MB


def read_directory(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the `tokenizer.json` of a directory, built from `vocab.txt` if needed, and the settings beside it. The
    library can use what is returned: raises PalavraError, which names the file, for one on which it would fail."""
    if not directory.is_dir():
        raise PalavraError(f"{directory}: no such tokenizer directory (download a model from a hub first)")
    settings = _read_json(directory / "special_tokens_map.json")
    settings |= _read_json(directory / "tokenizer_config.json")
    for name, read in (("tokenizer.json", _read_content), ("vocab.txt", _read_wordpiece)):
        path = directory / name
        if path.is_file():
            content = read(path, settings)
            _check(content, path)
            return content, settings
    raise PalavraError(
        f"{directory}: holds neither tokenizer.json nor vocab.txt; save it again with transformers "
        f"(AutoTokenizer.from_pretrained(...).save_pretrained(...)), which writes tokenizer.json"
    )


def _check(content: Mapping[str, Any], path: Path) -> None:
    """Raise PalavraError, which names the file, for a content that the library cannot use. One with parts whose effects
    are not known is tried in another process."""
    try:
        if not is_known_good(content):
            try_content(content)
    except PalavraError as error:
        raise PalavraError(f"{path}: {error}: save it again with transformers, or use another tokenizer") from None


def write_directory(
    directory: Path, content: Mapping[str, Any], roles: Mapping[str, str], context: int | None, segments: bool,
    continues: bool,
) -> None:  # fmt: skip
    """Write `tokenizer.json` (its `content`) and `tokenizer_config.json`.

    `PreTrainedTokenizerFast` is the class of `transformers` that uses `tokenizer.json` unchanged for any model; classes
    named after a model build their own pipeline and may give other ids.
    """
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"],
    }
    if context is not None:
        settings["model_max_length"] = context
    settings |= {f"{role}_token": token for role, token in roles.items()}
    if continues:
        content = {**content, "post_processor": _unclosed(content.get("post_processor"))}
        settings |= {key: roles[role] for key, role in (("bos_token", "cls"), ("eos_token", "sep")) if role in roles}
    for name, value in (("tokenizer.json", content), ("tokenizer_config.json", settings)):
        atomic_write_text(directory / name, json_text(value, indent=2) + "\n")


def _unclosed(processor: Any) -> Any:
    """Return a template of `[CLS] text [SEP]` without the closing token, and any other template unchanged."""
    if not isinstance(processor, dict) or processor.get("type") != "TemplateProcessing":
        return processor
    single, pair = processor.get("single") or [], processor.get("pair") or []
    closed = len(single) == 3 and "SpecialToken" in single[-1]
    return {**processor, "single": single[:-1], "pair": pair[:-1]} if closed else processor


def _read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file; an absent file is an empty object."""
    return read_json_object(path, LARGEST_FILE, "download or save it again") if path.is_file() else {}


def _read_content(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read a `tokenizer.json`; as in `transformers`, the settings override BERT's normalizer."""
    content = _read_json(path)
    normalizer = content.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        names = {"do_lower_case": "lowercase", "strip_accents": "strip_accents"}
        names["tokenize_chinese_chars"] = "handle_chinese_chars"
        normalizer |= {names[key]: settings[key] for key in names if key in settings}
    return content


def _read_wordpiece(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read an old BERT directory: `vocab.txt` with one entry a line, and `do_lower_case` etc. in the settings."""
    if path.stat().st_size > LARGEST_FILE:
        raise PalavraError(f"{path}: larger than {LARGEST_FILE:,} bytes, which no vocabulary is")
    try:
        lines = path.read_text("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise PalavraError(f"{path}: not UTF-8 text ({error})") from None
    vocabulary = {entry.rstrip("\r"): id for id, entry in enumerate(lines[:-1] if lines[-1] == "" else lines)}
    tokens = {role: [*_contents(settings.get(f"{role}_token")), own][0] for role, own in OWN_TOKENS.items()}
    missing = [token for token in tokens.values() if token not in vocabulary]
    if missing:
        raise PalavraError(f"{path}: lacks the special tokens {' '.join(missing)}; is this a BERT vocabulary?")
    with library_errors(path, "cannot use what stands beside it"):
        backend = hf.Tokenizer(models.WordPiece(vocabulary, unk_token=tokens["unk"]))
        backend.normalizer = normalizers.BertNormalizer(
            lowercase=bool(settings.get("do_lower_case", True)),
            strip_accents=settings.get("strip_accents"),
            handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens.values()])
        added = _read_json(path.parent / "added_tokens.json")
        backend.add_tokens(
            sorted((token for token in added if token not in vocabulary), key=lambda token: added[token])
        )
        backend.post_processor = processors.BertProcessing(
            (tokens["sep"], vocabulary[tokens["sep"]]), (tokens["cls"], vocabulary[tokens["cls"]])
        )
        content: dict[str, Any] = json.loads(backend.to_str())
    return content


def role_names(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names to look for in the vocabulary for each role: the stated one first, then the usual ones."""
    # A vocabulary without a token that opens a text opens it with the one that closes texts (GPT-2, Qwen).
    further = {"cls": ("bos_token", "eos_token"), "sep": ("eos_token",)}
    return {
        role: [
            *_contents(settings.get(f"{role}_token")),
            *usual,
            *(name for key in further.get(role, ()) for name in _contents(settings.get(key))),
        ]
        for role, usual in _KNOWN_TOKENS.items()
    }


def _contents(token: Any) -> list[str]:
    """Return the name of a special token, given as a string or an object with `content`, in a list; else []."""
    content = token.get("content") if isinstance(token, dict) else token
    return [content] if isinstance(content, str) else []
