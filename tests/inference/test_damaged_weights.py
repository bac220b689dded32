"""Weights and outputs that are not finite numbers are refused, by every command and in Python, and JSON has none."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.commands import Ask
from builders.generation import causal_model
from safetensors.torch import load_file, save_file

import palavra
from palavra.errors import PalavraError
from palavra.model.directory import save_model
from palavra.tokenizer import Tokenizer
from palavra.typed_json import json_text

COMMANDS = {
    "modernbert": (
        ["fill", "MODEL", "a [MASK]"],
        ["fill", "MODEL", "a [MASK]", "--n-best", "2", "--json"],
        ["embed", "MODEL", "a text"],
        ["embed", "MODEL", "a text", "--pooling", "token"],
        ["score", "MODEL", "a text", "--json"],
        ["evaluate", "MODEL", "TEXT"],
        ["compare-pairs", "MODEL", "PAIRS"],
        ["finetune", "classification", "TABLE", "--model", "MODEL", "--out", "OUT"],
        ["pretrain", "TEXT", "--init", "MODEL", "--out", "OUT", "--steps", "1"],
    ),
    "llama": (
        ["generate", "MODEL", "a text"],
        ["score", "MODEL", "a text"],
        ["evaluate", "MODEL", "TEXT"],
        ["compare-pairs", "MODEL", "PAIRS"],
    ),
    "classification": (["predict", "MODEL", "a text"], ["evaluate", "MODEL", "TABLE"]),
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    contents = {
        "TEXT": ("text.txt", "a text\n\nanother text\n" * 20),
        "TABLE": ("table.csv", "text,label\n" + "a text,yes\nanother text,no\n" * 20),
        "PAIRS": ("pairs.jsonl", '{"sentence_good": "a text", "sentence_bad": "text a"}\n'),
    }
    for name, content in contents.values():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return {key: str(tmp_path / name) for key, (name, _) in contents.items()} | {"OUT": str(tmp_path / "out")}


@pytest.fixture(scope="module")
def models(pretrained: Path, folders: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    causal = tmp_path_factory.mktemp("causal")
    tokenizer = Tokenizer.load(pretrained / "modernbert")
    tokenizer.save(causal)
    save_model(causal_model(vocab_size=tokenizer.vocab_size), causal)
    return {"modernbert": pretrained / "modernbert", "llama": causal, "classification": folders / "classification"}


def spoiled(source: Path, target: Path, number: float) -> str:
    """Copy a model one of whose numbers is wrong: in the embeddings, or in its task's layer."""
    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors")
    name = min(name for name in tensors if "tok_embeddings" in name or "embed_tokens" in name or "classifier" in name)
    tensors[name].view(-1)[-1] = number
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return name


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", COMMANDS)
def test_weights_that_are_not_finite_are_refused_by_every_command(
    kind: str, number: float, models: dict[str, Path], tmp_path: Path, files: dict[str, str], ask: Ask
) -> None:
    name = spoiled(models[kind], tmp_path / "model", number)
    given = {**files, "MODEL": str(tmp_path / "model")}
    for command in COMMANDS[kind]:
        code, out, err = ask(*(given.get(argument, argument) for argument in command))
        assert (code, out) == (2, ""), command
        assert f"{name} holds values that are not finite numbers" in err.splitlines()[-1]
        assert "Traceback" not in err
    with pytest.raises(PalavraError, match="not finite numbers"):
        palavra.load(tmp_path / "model")


def test_outputs_that_are_not_finite_are_refused_in_python(models: dict[str, Path]) -> None:
    masked: Any = palavra.load(models["modernbert"], kind="masked")
    causal: Any = palavra.load(models["llama"], kind="causal")
    for model in (masked.model, causal.model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(math.nan)
    calls: list[Callable[[], Any]] = [
        lambda: masked.fill("a [MASK]"),
        lambda: masked.fillings("a [MASK]"),
        lambda: masked.distribution("a [MASK]"),
        lambda: masked.embed("a text"),
        lambda: masked.embed("a text", pooling="token"),
        lambda: masked.encode(["a text", "another"]),
        lambda: masked.score("a text"),
        lambda: causal.score("a text"),
        lambda: causal.generate("a text"),
        lambda: list(causal.stream("a text")),
    ]
    for call in calls:
        with pytest.raises(PalavraError, match="are not numbers: its training has diverged"):
            call()


def test_json_has_no_numbers_that_are_not_finite() -> None:
    values = {"a": math.nan, "b": [1.5, (math.inf,), {"c": -math.inf}], "d": "NaN", "e": None}
    assert json.loads(json_text(values, indent=2), parse_constant=pytest.fail) == {
        "a": None, "b": [1.5, [None], {"c": None}], "d": "NaN", "e": None,
    }  # fmt: skip
