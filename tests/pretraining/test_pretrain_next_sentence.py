"""Whole runs of masked tokens and next sentences: both heads are trained, resumed and read by transformers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.evaluation import evaluate
from builders.pretraining import keep_only_checkpoint, metrics_of

import palavra
from palavra.errors import PalavraError
from palavra.report import write_report

pytestmark = pytest.mark.usefixtures("without_report")

TINY = (
    "model.hidden_size=32", "model.num_layers=1", "model.num_heads=2", "model.context=32", "train.batch_tokens=512",
    "train.compile=off", "train.eval_every=10", "train.save_every=10", "train.device=cpu", "train.precision=float32",
    "train.threads=1", "optimizer.learning_rate=0.02",
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents that keep to a subject: their sentences tell whether they belong together."""
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    subjects = ["gato", "rei", "mar", "livro", "sol", "rato"]
    verbs = ["viu", "quis", "teve", "fez", "deu", "leu"]
    lines = [" ".join(f"O {s} {verbs[(i + k) % 6]} o {s}." for k in range(4)) for i in range(60) for s in subjects]
    path.write_text("\n".join(f"{line} {i}" for i, line in enumerate(lines)) + "\n", encoding="utf-8")
    return path


def run(corpus: Path, out: Path, steps: int, **options: Any) -> None:
    palavra.pretrain(
        corpus, out=out, objective="masked+nsp", steps=steps, documents="line", vocab_size=300,
        **{"set": TINY, **options},
    )  # fmt: skip


def test_a_run_has_both_heads_and_resumes_bit_for_bit(corpus: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, BertForPreTraining

    out = tmp_path / "m"
    run(corpus, out, 20)
    lines = metrics_of(out)
    assert all("next_sentence_accuracy" in line for line in lines if line["kind"] == "valid")
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert evaluation["next_sentence"]["pairs"] > 5
    assert evaluation["next_sentence"]["exchanged"] == pytest.approx(0.5, abs=0.2)
    assert {"corruption", "accuracy"} <= set(evaluation["masked"])
    found = evaluate(out, device="cpu")
    assert found.to_json()["next_sentence"] == pytest.approx(evaluation["next_sentence"], rel=1e-4)
    assert found.to_json()["masked"]["loss"] == pytest.approx(evaluation["masked"]["loss"], rel=1e-4)
    assert found.lines().count("next sentence") == 1
    assert "Next-sentence accuracy" in write_report(out).read_text(encoding="utf-8")
    names = ("model.safetensors", "evaluation.json")
    expected = {name: (out / name).read_bytes() for name in names}
    keep_only_checkpoint(out, 10)
    palavra.pretrain(out=out, resume=True)
    assert {name: (out / name).read_bytes() for name in names} == expected
    assert type(BertForPreTraining.from_pretrained(out)).__name__ == "BertForPreTraining"
    theirs = AutoModelForMaskedLM.from_pretrained(out, attn_implementation="eager").eval()
    # Written again without its second head: a new one would only guess.
    theirs.save_pretrained(tmp_path / "masked")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(out / name, tmp_path / "masked")
    shutil.copytree(out / "data", tmp_path / "masked" / "data")
    assert evaluate(tmp_path / "masked", device="cpu").lines() == found.masked.lines()
    ours = palavra.load(out, kind="masked", device="cpu")
    ids = torch.tensor(
        [[ours.tokenizer.cls_id, *ours.tokenizer.encode_prompt("O gato [MASK] o gato."), ours.tokenizer.sep_id]]
    )
    with torch.no_grad():
        logits = theirs(input_ids=ids).logits[0, ids[0] == ours.tokenizer.mask_id]
    torch.testing.assert_close(ours.distribution("O gato [MASK] o gato."), logits.softmax(-1), atol=1e-4, rtol=1e-3)
    palavra.pretrain(
        corpus, out=tmp_path / "more", objective="masked+nsp", init=out, steps=2, documents="line",
        set=("train.batch_tokens=512", "model.context=32", "train.compile=off", "train.threads=1"),
    )  # fmt: skip


def test_what_cannot_be_paired_is_an_error(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(PalavraError, match="trains bert, not modernbert"):
        run(corpus, tmp_path / "a", 1, family="modernbert")
    with pytest.raises(PalavraError, match="needs several documents"):
        palavra.pretrain(corpus, out=tmp_path / "b", objective="masked+nsp", steps=1, vocab_size=300, set=TINY)
