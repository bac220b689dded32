"""A whole run with compiled layers: what an uncompiled one learns, and resumed exactly."""

from pathlib import Path
from shutil import which

import pytest
from builders.pretraining import TINY, keep_only_checkpoint, metrics_of

import palavra

pytestmark = pytest.mark.usefixtures("without_report")

SETTINGS = (*TINY, "model.num_layers=1", "model.dropout=0", "train.save_every=2")


@pytest.mark.slow
@pytest.mark.skipif(which("g++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::Warning")  # torch's compiler is full of warnings about torch
def test_a_compiled_run_learns_what_an_eager_one_does_and_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"O gato número {n} correu {n * 7 % 11} vezes pela casa.\n" for n in range(150)))
    losses: dict[str, list[float]] = {}
    for compiled in ("on", "off"):
        out, settings = tmp_path / compiled, (*SETTINGS, f"train.compile={compiled}")
        palavra.pretrain(text, out=out, steps=4, documents="line", vocab_size=300, set=settings)
        losses[compiled] = [line["loss"] for line in metrics_of(out) if line["kind"] == "train"]
    assert losses["on"] == pytest.approx(losses["off"], rel=1e-4)
    out = tmp_path / "on"
    expected = (out / "model.safetensors").read_bytes()
    keep_only_checkpoint(out, 2)
    (out / "model.safetensors").unlink()
    palavra.pretrain(out=out, resume=True)
    assert (out / "model.safetensors").read_bytes() == expected
