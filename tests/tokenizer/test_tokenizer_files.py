"""Tokenizer files of any origin: published kinds load at once with the library's ids, damaged and hostile ones are one
line that names the file."""

import base64
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers as hf
from builders.tokenizer_files import KINDS, TEXTS, charsmap, write

from palavra.errors import PalavraError
from palavra.tokenizer import Tokenizer, directory, trial
from palavra.tokenizer.charsmap import longest_replacement
from palavra.tokenizer.check import LONGEST_ADDED_TOKEN, LONGEST_WORD, MOST_ADDED_TOKENS, MOST_PARTS
from palavra.tokenizer.config import MOST_ENTRIES
from palavra.tokenizer.guard import library_errors

HARD = ["", "  ", "a\u0301\u0301 \u1112\u1161\u11ab \U0001f600\u200d \ufdfa \x00 \U0010fffd", "x" * 500, " \n" * 200]


def refuse_trial(content: Any) -> None:
    raise AssertionError("a published kind of file is tried in another process")


@pytest.mark.parametrize("kind", KINDS)
def test_published_kinds_load_at_once_with_the_same_ids(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "try_content", refuse_trial)
    loaded = Tokenizer.load(write(KINDS[kind], tmp_path))
    backend = hf.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in [*TEXTS, *HARD]:
        expected = backend.encode(text, add_special_tokens=False)
        assert loaded.encode_prompt(text) == loaded.encode(text) == expected.ids
        assert loaded.decode(expected.ids) == backend.decode(expected.ids, skip_special_tokens=False)


def test_characters_are_replaced_as_the_map_says() -> None:
    table = {"\ufb01": "fi", "\u00bd": "1\u20442", "\u24d0": "a", "A": "a", "AB": ""}
    content = copy.deepcopy(KINDS["t5"])
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap(table)}
    normalizer = hf.Tokenizer.from_str(json.dumps(content)).normalizer
    assert [normalizer.normalize_str(key) for key in ("\ufb01", "\u00bd", "\u24d0", "A", "x")] == [
        "fi", "1\u20442", "a", "a", "x"
    ]  # fmt: skip
    assert longest_replacement(charsmap(table)) == len("1\u20442".encode())


@pytest.mark.parametrize("cut", [0, 3, 4, 5, 1000, -1, -4])
def test_a_map_that_is_cut_short(cut: int, tmp_path: Path) -> None:
    whole = base64.b64decode(charsmap({"\ufb01": "fi", "\u00bd": "1\u20442"}))
    content = copy.deepcopy(KINDS["t5"])
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(whole[:cut]).decode()}
    with pytest.raises(PalavraError, match=r"tokenizer\.json: its precompiled_charsmap is damaged"):
        Tokenizer.load(write(content, tmp_path))


def part(place: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update({place: values})


def model(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["model"].update(values)


def added(**values: Any) -> Callable[[dict[str, Any]], None]:
    token = {"content": "<x>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return lambda content: content["added_tokens"].append(token | {"special": False, "id": size_of(content)} | values)


def size_of(content: dict[str, Any]) -> int:
    return len(content["model"]["vocab"])


def entry(id: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["model"]["vocab"].update({"entry": id})


def sequence(place: str, members: str, *parts: Any) -> Callable[[dict[str, Any]], None]:
    return part(place, type="Sequence", **{members: list(parts)})


def regex(pattern: str) -> Callable[[dict[str, Any]], None]:
    return part("pre_tokenizer", type="Split", pattern={"Regex": pattern}, behavior="Isolated", invert=False)


def replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def deep(content: dict[str, Any]) -> None:
    for _ in range(MOST_PARTS):
        content["normalizer"] = {"type": "Sequence", "normalizers": [content["normalizer"]]}


def merges_without_prefix(content: dict[str, Any]) -> None:
    content["model"]["continuing_subword_prefix"] = "##"


def template(**values: Any) -> Callable[[dict[str, Any]], None]:
    pieces: dict[str, Any] = {"single": [], "pair": [], "special_tokens": {}}
    return part("post_processor", type="TemplateProcessing", **(pieces | values))


TEXT = {"Sequence": {"id": "A", "type_id": 0}}
STRIP = {"type": "Strip", "content": "a", "start": 0}
WRONG: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("bert", part("normalizer", type="Rot13"), "its normalizer has the type 'Rot13', which is none of BertNormalizer"),
    ("bert", part("decoder", type=["x"]), r"its decoder has the type \['x'\]"),
    ("bert", part("pre_tokenizer", type="FixedLength", length=0), "cuts text into pieces of 0 characters"),
    ("bert", part("pre_tokenizer", type="FixedLength", length=-3), "cuts text into pieces of -3 characters"),
    ("bert", lambda content: content.update(normalizer=3), "one of its values is missing or of another type"),
    ("bert", deep, "nested more than 100 levels deep"),
    ("bert", lambda content: content.update(model=None), "one of its values is missing or of another type"),
    ("bert", model(vocab={}), "its vocabulary has 0 entries"),
    ("bert", entry(7), r"its entries '.+' and 'entry' have the same id 7"),
    ("bert", entry(-1), "its entry 'entry' has the id -1"),
    ("bert", entry("7"), "its entry 'entry' has the id '7'"),
    ("bert", entry(1.5), r"its entry 'entry' has the id 1\.5"),
    ("bert", entry(MOST_ENTRIES), "its entry 'entry' has the id 16777216, not 0 to 16,777,215"),
    ("bert", model(unk_token="[unknown]"), r"its unknown token '\[unknown\]' is not in the vocabulary"),
    ("bert", model(unk_token=None), "its unknown token None is not in the vocabulary"),
    ("word_level", model(unk_token="[unknown]"), r"its unknown token '\[unknown\]' is not in the vocabulary"),
    ("llama2", model(unk_token="<none>"), "its unknown token '<none>' is not in the vocabulary"),
    ("t5", model(unk_id=None), "the id of its unknown token, None, is not in the vocabulary"),
    ("t5", model(unk_id=10**6), "the id of its unknown token, 1000000, is not in the vocabulary"),
    ("t5", model(vocab=[["a"]]), "not enough values"),
    ("bert", model(max_input_chars_per_word=0), f"its max_input_chars_per_word is 0: use 1 to {LONGEST_WORD}"),
    ("bert", model(max_input_chars_per_word=2**62), "its max_input_chars_per_word is 4611686018427387904"),
    ("gpt2", merges_without_prefix, "its merge .* gives no entry of the vocabulary"),
    ("gpt2", model(merges=[["a"]]), "the tokenizers library cannot read it"),
    ("gpt2", model(merges=[["a", "no such entry"]]), "the tokenizers library cannot read it"),
    ("gpt2", model(dropout=7), "the tokenizers library cannot read it"),
    ("bert", added(content=""), "is empty or longer than"),
    ("bert", added(content="x" * (LONGEST_ADDED_TOKEN + 1)), f"is empty or longer than {LONGEST_ADDED_TOKEN:,}"),
    ("bert", added(id=10**5), "the added token '<x>' has the id 100000, but the library gives it"),
    ("bert", added(id=7), "the added token '<x>' has the id 7, but the library gives it"),
    ("bert", added(id=-1), "its added token '<x>' has the id -1"),
    ("bert", added(content="the", id=10**5), "the added token 'the' has the id 100000, but the library gives it"),
    ("bert", added(content="\x00", normalized=True), r"nothing is left of the added token '\\x00'"),
    ("bert", lambda content: content["added_tokens"].extend([{}] * MOST_ADDED_TOKENS), "100,005 added tokens"),
    ("bert", template(), "its post-processor has no place, or several, for a text"),
    ("bert", template(single=[TEXT, TEXT]), "its post-processor has no place, or several, for a text"),
    ("bert", template(single=[TEXT, {"SpecialToken": {"id": "q"}}]), "names 'q', which it does not define"),
    ("bert", part("post_processor", type="BertProcessing", sep=["[SEP]", 10**6], cls=["[CLS]", 2]), "the id 1000000"),
    ("word_level", regex("(a+)+$"), "the tokenizers library does not survive it"),
    ("word_level", regex(r"(\w+\s?)*$"), "the tokenizers library does not survive it"),
    ("word_level", regex("("), "the tokenizers library does not survive it"),
    ("bert", sequence("normalizer", "normalizers", *[replace("a", "aaaa")] * 5), "more than 64 times as many"),
    ("bert", part("normalizer", type="Prepend", prepend="x" * 10_000), "more than 64 times as many"),
    ("bert", part("decoder", **STRIP, stop=100), "the tokenizers library does not survive it"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "said"), WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_files_that_cannot_be_used(
    kind: str, change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = copy.deepcopy(KINDS[kind])
    change(content)
    with pytest.raises(PalavraError, match=said) as caught:
        Tokenizer.load(write(content, tmp_path))
    assert re.fullmatch(f"{re.escape(str(tmp_path))}.*", str(caught.value))  # one line, which begins with the place
    assert capfd.readouterr().err == ""


def test_unusual_files_are_tried_once_and_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = copy.deepcopy(KINDS["word_level"])
    regex(r"\p{Lu}?\p{Ll}+|\d{1,2}|.")(content)
    content["normalizer"] = replace("\u00e6", "ae")
    ids = Tokenizer.load(write(content, tmp_path)).encode("a text")
    monkeypatch.setattr(trial, "trial_program", None)
    assert Tokenizer.load(tmp_path).encode("a text") == ids
    content["normalizer"] = replace("\u00f8", "oe")
    with pytest.raises(AttributeError):
        Tokenizer.load(write(content, tmp_path))


@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_file_that_ends_the_process_ends_only_its_own(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"import os, signal\n{end}\n", encoding="utf-8")
    monkeypatch.setattr(trial, "trial_program", SimpleNamespace(__file__=str(program)))
    content = copy.deepcopy(KINDS["word_level"])
    regex("an unusual one")(content)
    with pytest.raises(PalavraError, match="it takes too much time or memory, or ends the process"):
        Tokenizer.load(write(content, tmp_path))


def test_what_the_library_raises_names_the_file() -> None:
    content = copy.deepcopy(KINDS["bert"]) | {"decoder": {**STRIP, "stop": 100}}
    backend = hf.Tokenizer.from_str(json.dumps(content))
    said = r"^a place: the tokenizers library fails \(index out of bounds"
    with pytest.raises(PalavraError, match=said), library_errors("a place", "fails"):
        backend.decode([content["model"]["vocab"]["a"]], skip_special_tokens=False)
    for passed in (KeyboardInterrupt, MemoryError, SystemExit):
        with pytest.raises(passed), library_errors("a place", "fails"):
            raise passed


@pytest.mark.parametrize("settings", [{"strip_accents": "x"}, {"unk_token": "[PAD]"}])
def test_settings_beside_a_vocabulary(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<x>": 6, "<y>": "seven"}), encoding="utf-8")
    with pytest.raises(PalavraError, match=r"^\S+vocab\.txt: the tokenizers library cannot use what stands beside it"):
        Tokenizer.load(tmp_path)
