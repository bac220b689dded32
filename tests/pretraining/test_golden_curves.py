"""The loss of the first twenty steps of each objective, against golden values: nothing may change them unnoticed.

`PYTHONPATH=tests python tests/pretraining/test_golden_curves.py` writes them anew, after a change that was meant.
"""

import json
import random
import tempfile
from pathlib import Path
from typing import get_args

import pytest

import palavra
from palavra.recipe import ObjectiveName

pytestmark = pytest.mark.usefixtures("without_report")

GOLDEN = Path(__file__).parents[1] / "golden" / "curves.json"
# What is learned, and settings of it; a run is named by its objective unless there are several of one.
RUNS: dict[str, tuple[ObjectiveName, tuple[str, ...]]] = {name: (name, ()) for name in get_args(ObjectiveName)}
RUNS["hybrid"] = ("causal+masked", ("mixture.when=together", "mixture.causal_fraction=0.5", "mixture.mntp=true"))
SMALL = (
    "model.hidden_size=32", "model.num_layers=2", "model.num_heads=2", "model.context=32", "train.batch_tokens=256",
    "train.micro_batch_tokens=128", "train.compile=off", "train.log_every=1", "train.device=cpu",
    "train.precision=float32", "train.threads=1", "optimizer.learning_rate=0.01",
)  # fmt: skip


def curve(name: str, folder: Path) -> list[float]:
    """The losses of twenty steps on a small text that never changes."""
    draw = random.Random(0)
    words = ["gato", "rei", "mar", "livro", "sol", "rato", "menina", "lua"]
    text = folder / "text.txt"
    lines = (" ".join(f"O {draw.choice(words)} viu o {draw.choice(words)}." for _ in range(4)) for _ in range(200))
    text.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    out, (objective, settings) = folder / name, RUNS[name]
    palavra.pretrain(
        text, out=out, objective=objective, steps=20, documents="line", vocab_size=300, set=(*SMALL, *settings)
    )
    entries = map(json.loads, (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [round(line["loss"], 5) for line in entries if line["kind"] == "train"]


@pytest.mark.parametrize("name", RUNS)
def test_the_first_steps_lose_what_they_did(name: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    assert len(golden) == 20
    # Kernels differ in the last digits between processors, and training makes much of little.
    assert curve(name, tmp_path) == pytest.approx(golden, rel=5e-3)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = {name: curve(name, Path(folder)) for name in RUNS}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
