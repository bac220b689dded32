"""Whole runs small enough for a test, and what they wrote."""

import json
import shutil
from pathlib import Path
from typing import Any

import palavra

TINY = (
    "model.hidden_size=32", "model.num_layers=2", "model.num_heads=2", "model.context=32", "train.batch_tokens=256",
    "train.micro_batch_tokens=128", "train.compile=off", "train.eval_every=6", "train.save_every=4",
    "train.log_every=1", "train.device=cpu", "train.precision=float32", "train.threads=1", "train.keep_last=10",
)  # fmt: skip


def mixed_run(corpus: Path, out: Path, steps: int, *settings: str, **options: Any) -> list[dict[str, Any]]:
    """A run of both kinds of sequences on a text of one document a line; its lines of metrics."""
    palavra.pretrain(
        corpus, out=out, steps=steps, documents="line", vocab_size=300, set=(*TINY, *settings),
        **{"objective": "causal+masked", **options},
    )  # fmt: skip
    return metrics_of(out)


def keep_only_checkpoint(out: Path, step: int) -> None:
    """Remove all checkpoints of a run but the one of `step`, which is there, so that a resumed run begins with it."""
    checkpoints = sorted((out / "checkpoints").iterdir())
    assert f"step-{step}" in [checkpoint.name for checkpoint in checkpoints], checkpoints
    for checkpoint in checkpoints:
        if checkpoint.name != f"step-{step}":
            shutil.rmtree(checkpoint)


def metrics_of(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
