"""The recipe that a run leaves behind says every size, also those that nobody named."""

from pathlib import Path

import pytest

import palavra
from palavra import config
from palavra.recipe import Recipe

pytestmark = pytest.mark.usefixtures("without_report")

SETTINGS = (
    "model.hidden_size=32", "model.num_layers=1", "model.num_heads=2", "model.context=32", "train.batch_tokens=256",
    "train.compile=off", "train.device=cpu", "train.threads=1",
)  # fmt: skip


def test_the_size_of_the_vocabulary_and_of_micro_batches_are_written_down(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"frase {i}\n" for i in range(100)), encoding="utf-8")
    planned = palavra.plan(text, documents="line", steps=1, set=SETTINGS).recipe
    palavra.pretrain(text, out=tmp_path / "m", documents="line", steps=1, set=SETTINGS)
    done = config.from_toml(Recipe, tmp_path / "m" / "palavra.toml")
    for recipe in (planned, done):
        assert recipe.tokenizer.vocab_size == 4096
        assert recipe.train.micro_batch_tokens == 256
