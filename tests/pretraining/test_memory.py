"""Micro-batches by the memory there is, and what is said when there is too little."""

from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from builders.models import CPU
from builders.pretraining import TINY

import palavra
from palavra.errors import PalavraError
from palavra.pretraining.objectives import pretraining_objective
from palavra.pretraining.plan import memory, timing
from palavra.pretraining.plan.memory import available_memory, fit_micro_batch, memory_estimate
from palavra.recipe import Recipe, SizeName, TrainConfig
from palavra.training import trainer as training
from palavra.training.out_of_memory import OutOfMemory, explain_out_of_memory


def fit(size: SizeName, **train: Any) -> tuple[Recipe, list[str]]:
    """What a recipe of this size becomes."""
    recipe = Recipe(train=TrainConfig(**train))
    return fit_micro_batch(recipe.of_size(size), recipe.train.micro_batch_tokens, 8192, CPU)


def free(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    """A machine with so much memory."""
    monkeypatch.setattr(memory, "available_memory", lambda compute: gigabytes * 1e9)


@pytest.mark.parametrize(("size", "gigabytes"), [("base", 8.0), ("large", 24.0), ("small", 0.9)])
def test_a_named_size_splits_its_batch_to_fit(
    monkeypatch: pytest.MonkeyPatch, size: SizeName, gigabytes: float
) -> None:
    free(monkeypatch, gigabytes)
    recipe, (line,) = fit(size)
    whole, part = recipe.train.batch_tokens, recipe.train.micro_batch_tokens
    assert whole
    assert part
    assert recipe.model.context
    assert whole == Recipe().of_size(size).train.batch_tokens
    assert recipe.model.context <= part < whole
    assert whole % part == 0
    with torch.device("meta"):
        model = pretraining_objective(recipe).new(recipe.model.build(8192, None))
    assert memory_estimate(model, part) <= 0.7 * gigabytes * 1e9 < memory_estimate(model, 2 * part)
    assert f"{whole // part} micro-batches a step of {part:,} tokens" in line


def test_what_fits_or_was_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 100.0)
    assert fit("base") == (Recipe().of_size("base"), [])
    free(monkeypatch, 8.0)
    recipe, (line,) = fit("base", micro_batch_tokens=32768)
    assert recipe.train.micro_batch_tokens == 32768
    assert "lower train.micro_batch_tokens (32768)" in line


def test_a_model_that_does_not_fit_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 1.0)
    with pytest.raises(OutOfMemory, match=r"about \d+\.\d GB even with 512 tokens at once.*smaller size=") as said:
        fit("base")
    assert "\n" not in str(said.value)
    assert isinstance(said.value, PalavraError)
    with pytest.raises(OutOfMemory, match=r"weights and gradients need \d+\.\d GB.*smaller size="):
        fit("large", micro_batch_tokens=512)


def test_a_dry_run_of_a_large_batch_is_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It takes one micro-batch that fits, not the 4 million tokens of a step."""
    free(monkeypatch, 0.5)
    text = tmp_path / "text.txt"
    text.write_text("uma frase\n" * 100, encoding="utf-8")
    plan = palavra.plan(text, size="nano", steps=3, set=("train.batch_tokens=4000000", "train.threads=1"))
    part = plan.recipe.train.micro_batch_tokens
    assert part
    assert part < 20_000
    assert plan.memory_bytes < 0.36e9
    assert plan.tokens == 12_000_000
    assert plan.seconds > 10


def test_the_limit_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    unlimited = available_memory(CPU)
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * 4096
    monkeypatch.setattr(resource, "getrlimit", lambda which: (used + 10**8, -1))
    assert 0 < available_memory(CPU) < 2 * 10**8
    monkeypatch.undo()
    assert unlimited > 2 * 10**8


def test_running_out_of_memory_says_what_to_do() -> None:
    with pytest.raises(OutOfMemory, match=r"lower train\.micro_batch_tokens"), explain_out_of_memory():
        torch.empty(2**56, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shape"), explain_out_of_memory():
        raise RuntimeError("a shape is wrong")


def test_a_step_that_runs_out_of_memory_ends_with_that_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*arguments: Any) -> NoReturn:
        torch.empty(2**56, dtype=torch.uint8)
        raise AssertionError

    text = tmp_path / "text.txt"
    text.write_text("".join(f"frase {i}\n" for i in range(100)), encoding="utf-8")
    for module in (training, timing):
        monkeypatch.setattr(module, "train", full)
    for length in ({"steps": 3}, {"minutes": 0.1}):
        with pytest.raises(OutOfMemory, match="lower train"):
            palavra.pretrain(
                text, out=tmp_path / next(iter(length)), documents="line", vocab_size=300, set=TINY, **length
            )
