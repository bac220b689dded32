"""Special tokens stand where the tokenizer puts them, as in `transformers`."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders.tasks import TEXTS, trained
from transformers import PreTrainedTokenizerFast

from palavra.tasks.text_examples import TextExample, encode_texts
from palavra.tokenizer import Tokenizer

TEXT, OTHER = "o gato correu pela rua", "a menina"


def special(token: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": 0}}


def part(name: str, segment: int = 0) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": segment}}


def template(single: list[Any], pair: list[Any], tokenizer: Tokenizer) -> dict[str, Any]:
    tokens = {"[CLS]": tokenizer.cls_id, "[SEP]": tokenizer.sep_id}
    known = {token: {"id": token, "ids": [id], "tokens": [token]} for token, id in tokens.items()}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known}


def processors(tokenizer: Tokenizer) -> dict[str, Any]:
    """What published tokenizers have, in the words of this one."""
    opens, closes, a, b = special("[CLS]"), special("[SEP]"), part("A"), part("B")
    ends = {"sep": ["[SEP]", tokenizer.sep_id], "cls": ["[CLS]", tokenizer.cls_id]}
    llama = template([opens, a], [opens, a, opens, part("B", 1)], tokenizer)
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    return {
        "bert": {"type": "BertProcessing", **ends},
        "roberta": {"type": "RobertaProcessing", **ends, "trim_offsets": True, "add_prefix_space": False},
        "camembert": template([opens, a, closes], [opens, a, closes, closes, b, closes], tokenizer),
        "llama": llama,
        "llama 3": {"type": "Sequence", "processors": [byte_level, llama]},
        "gemma": template([opens, a], [opens, a, opens, part("B", 1)], tokenizer),
        "qwen": byte_level,
        "t5": template([a, closes], [a, closes, b, closes], tokenizer),
        "none": template([a], [a, part("B", 1)], tokenizer),
    }


@pytest.mark.parametrize("kind", processors(trained()))
def test_texts_and_pairs_have_the_ids_and_segments_of_transformers(kind: str, tmp_path: Path) -> None:
    first = trained()
    first.save(tmp_path, context=64, segments=True)
    content = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    content["post_processor"] = processors(first)[kind]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    ours, theirs = Tokenizer.load(tmp_path), PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for texts in ((TEXT,), (TEXT, OTHER)):
        example = TextExample(first=texts[0], second=texts[1] if len(texts) == 2 else None, label=None, where="")
        found = encode_texts([example, example], ours, 64, segments=True, overflow="truncate")
        expected = theirs(*texts)
        assert found.input_ids.tolist() == 2 * expected["input_ids"]
        if found.segment_ids is not None:
            assert found.segment_ids.tolist() == 2 * expected["token_type_ids"]
        short = encode_texts([example], ours, 9, segments=True, overflow="truncate")
        assert short.lengths.tolist() == [min(9, len(expected["input_ids"]))]


def test_a_tokenizer_that_says_nothing_wraps_as_bert_does(tmp_path: Path) -> None:
    first = trained()
    first.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    content["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    assert [Tokenizer.load(tmp_path).template(texts) for texts in (1, 2)] == [first.template(1), first.template(2)]


def test_a_text_is_opened_by_the_end_of_texts_where_nothing_else_is_named(tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_bytes(), eos_token="<|endoftext|>")
    tokenizer.save_pretrained(tmp_path)
    found = Tokenizer.load(tmp_path)
    assert found.cls_id == found.sep_id == tokenizer.eos_token_id


def _bytes() -> Any:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    backend.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"]))
    return backend
