"""How many threads a run uses: those of its recipe, or the faster of all and one."""

from collections.abc import Iterator

import pytest
import torch
from builders.models import CPU

from palavra.pretraining.plan import compute
from palavra.pretraining.plan.compute import set_threads
from palavra.pretraining.plan.corpus_stats import CorpusStats
from palavra.recipe import ModelRecipe, Recipe, TrainConfig

TEXT = CorpusStats(tokens=10_000, vocab_size=300)


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "threads", "reason"),
    [
        ({2: 0.2, 1: 0.3}, 2, "threads: 2 (200 ms a step with 2, 300 ms a step with 1)"),
        ({2: 0.3, 1: 0.3}, 2, "threads: 2 (300 ms a step with 2, 300 ms a step with 1)"),
        ({2: 0.9, 1: 0.3}, 1, "threads: 1 (900 ms a step with 2, 300 ms a step with 1; the other cores are busy)"),
    ],
)
def test_one_thread_is_used_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], threads: int, reason: str
) -> None:
    monkeypatch.setattr(compute, "_seconds_with", lambda count, *others: seconds[count])
    assert set_threads(Recipe(), TEXT, CPU) == (threads, reason)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_steps_are_timed_with_all_threads_and_with_one() -> None:
    tiny = ModelRecipe(hidden_size=32, num_layers=1, num_heads=2, context=32)
    threads, reason = set_threads(Recipe(model=tiny), TEXT, CPU)
    assert threads in (1, 2)
    assert "ms a step with 2, " in reason
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("asked", "available", "reason"), [(1, 2, "as the recipe says"), (2, 2, "as the recipe says"), (None, 1, "all")]
)
def test_threads_that_are_given_are_not_timed(asked: int | None, available: int, reason: str) -> None:
    torch.set_num_threads(available)
    threads = asked or available
    found = set_threads(Recipe(train=TrainConfig(threads=asked)), TEXT, CPU)
    assert found == (threads, f"threads: {threads} ({reason})")
    assert torch.get_num_threads() == threads
