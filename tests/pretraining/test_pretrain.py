"""The whole path: text to a used model; a run killed at any moment goes on bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.evaluation import evaluate
from builders.pretraining import keep_only_checkpoint, metrics_of

import palavra
from palavra.errors import PalavraError
from palavra.log import Log
from palavra.pretraining.plan import resolve as planning
from palavra.pretraining.run import Finished, resume_pretraining
from palavra.report import write_report
from palavra.run_records.pretraining import PretrainingRun
from palavra.training import checkpoint as checkpoints
from palavra.training import saving
from palavra.training.monitor import Diverged
from palavra.training.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("without_report")

TINY = (
    "model.hidden_size=32", "model.num_layers=2", "model.num_heads=2", "model.context=32", "train.batch_tokens=256",
    "train.compile=off", "train.eval_every=10", "train.save_every=8", "train.log_every=5", "train.device=cpu",
)  # fmt: skip
SUBJECTS = ["O gato", "A menina", "O velho rei", "Uma raposa", "O rato", "Aquele poeta", "A vizinha"]
VERBS = ["correu", "dormiu", "viu a lua", "roeu a roupa", "cantou", "esperou", "leu um livro"]
PLACES = ["no jardim", "pela casa", "em Roma", "na rua", "perto do rio", "à noite", "sem parar"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six hundred short documents with something to learn."""
    path = tmp_path_factory.mktemp("corpus") / "frases.txt"
    draw = random.Random(7)
    lines = [
        " ".join(
            f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(PLACES)}." for _ in range(draw.randint(1, 6))
        )
        for _ in range(600)
    ]
    path.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
    return path


def run(corpus: Path, out: Path, steps: int = 30, *extra: str, **options: Any) -> Finished:
    """A small pretraining run."""
    return palavra.pretrain(
        corpus, out=out, steps=steps, documents="line", vocab_size=300, set=(*TINY, *extra), **options
    )


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run, for all tests that only look."""
    out = tmp_path_factory.mktemp("run") / "model"
    run(corpus, out, 60, "optimizer.learning_rate=0.02")
    return out


def test_a_run_leaves_the_named_files(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "palavra.toml",
            "metrics.jsonl", "run.json", "evaluation.json", "examples.json", "report.html", "train.log",
            "checkpoints", "data"} <= names  # fmt: skip
    lines = metrics_of(finished)
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.5
    assert [line["step"] for line in lines if line["kind"] == "valid"] == [10, 20, 30, 40, 50, 60]
    assert [line["packing_efficiency"] >= 0.98 for line in lines if line["kind"] == "train"] == [True] * len(losses)
    assert json.loads((finished / "run.json").read_text())["packing"]["efficiency"] >= 0.98


def test_patience_ends_a_run_that_no_longer_improves__A_T_conv(corpus: Path, tmp_path: Path) -> None:
    """With the best weights; killed between its early end and its model, it makes the same model when resumed."""
    hopeless = ("optimizer.name=sgd", "optimizer.learning_rate=1e-9", "train.eval_every=2", "train.eval_tokens=512")
    done = run(corpus, tmp_path / "run", 40, *hopeless, patience=3)
    lines = metrics_of(tmp_path / "run")
    losses = {line["step"]: line["loss"] for line in lines if line["kind"] == "valid"}
    best = min(losses, key=lambda step: losses[step])
    assert done.steps == max(losses) == best + 6 < 40
    told = json.loads((tmp_path / "run" / "run.json").read_text())["training"]
    assert told["stopped"] == f"no improvement in 3 evaluations since step {best}"
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    for name in ("model.safetensors", "evaluation.json"):
        (tmp_path / "run" / name).unlink()
    again = palavra.pretrain(out=tmp_path / "run", resume=True)
    assert again.steps == done.steps
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_transformers_reads_the_directory_and_agrees(finished: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(finished)
    theirs = AutoModelForMaskedLM.from_pretrained(finished, attn_implementation="eager").eval()
    ours = palavra.load(finished, kind="masked", device="cpu")
    text = "O gato [MASK] no jardim."
    encoded = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**encoded).logits[0]
    place = (encoded["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0, 0]
    expected = torch.softmax(logits[place], -1)
    torch.testing.assert_close(ours.distribution(text)[0], expected, atol=1e-5, rtol=1e-4)


def test_fill_gives_probable_tokens_best_first(finished: Path) -> None:
    model = palavra.load(finished, kind="masked", device="cpu")
    (blank,) = model.fill("O gato correu [MASK] casa.", top=4)
    probabilities = [fill.probability for fill in blank.fills]
    assert len(probabilities) == 4
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(0 < p <= 1 for p in probabilities)
    both = model.fill(["A [MASK] dormiu [MASK] Roma.", "O [MASK] cantou."])
    assert [len(blanks) for blanks in both] == [2, 1]


def test_a_text_in_a_batch_fills_as_it_does_alone(finished: Path) -> None:
    model = palavra.load(finished, kind="masked", device="cpu")
    texts = ["O [MASK] correu.", "A menina leu um livro à [MASK] perto do rio.", "[MASK]"]
    for text, together in zip(texts, model.fill(texts), strict=True):
        alone = model.fill(text)
        for a, b in zip(alone, together, strict=True):
            assert [f.token for f in a.fills] == [f.token for f in b.fills]
            np.testing.assert_allclose([f.probability for f in a.fills], [f.probability for f in b.fills], rtol=1e-4)


def test_vectors_of_tokens_have_the_spans_of_the_text(finished: Path) -> None:
    model = palavra.load(finished, kind="masked", device="cpu")
    texts = ["O gato correu.", "", "A menina dormiu em Roma."]
    tokens = model.embed(texts, pooling="token")
    for token, mean in zip(tokens, model.embed(texts), strict=True):
        assert token.vectors.shape == (len(token.offsets), *mean.vectors.shape)
    spans = [texts[0][a:b] for a, b in tokens[0].offsets]
    assert "".join(spans).replace(" ", "") == texts[0].replace(" ", "")


def test_evaluation_is_the_same_every_time(finished: Path, corpus: Path) -> None:
    first, second = evaluate(finished, device="cpu"), evaluate(finished, device="cpu")
    assert first == second
    assert first.bands
    assert sum(band.tokens for band in first.bands) == first.tokens
    on_file = evaluate(finished, corpus, documents="line", device="cpu")
    assert on_file.tokens > first.tokens
    assert on_file.perplexity == pytest.approx(np.exp(on_file.loss))


def test_the_same_recipe_gives_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "a", 6)
    palavra.pretrain(out=tmp_path / "b", recipe=tmp_path / "a" / "palavra.toml")
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


COMMAND = "import sys, palavra; from palavra.cli import main; sys.argv = ['palavra', *sys.argv[1:]]; main()"


def start(out: Path, corpus: Path, steps: int, *extra: str) -> "subprocess.Popen[str]":
    sets = [part for value in TINY for part in ("--set", value)]
    options = ["pretrain", str(corpus), "--lines", "--steps", str(steps), "--vocab-size", "300", *sets]
    if extra == ("--resume",):
        options = ["pretrain", "--resume"]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *options, "--out", str(out)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    """Until `path` is there."""
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_and_resumed_equals_straight_through_bit_for_bit(corpus: Path, tmp_path: Path) -> None:
    killed = start(tmp_path / "killed", corpus, 160)
    draw = random.Random(15)
    for checkpoint in (8, 64):
        wait_for(tmp_path / "killed" / "checkpoints" / f"step-{checkpoint}", killed)
        delay = draw.random() * 0.3
        print(f"killed {delay:.3f} s after the checkpoint of step {checkpoint}")
        time.sleep(delay)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        killed = start(tmp_path / "killed", corpus, 160, "--resume")
    run(corpus, tmp_path / "straight", 160)
    _, said = killed.communicate(timeout=120)
    assert killed.returncode == 0, said
    for name in ("model.safetensors", "evaluation.json"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()

    def curve(out: str) -> list[tuple[str, int, float]]:
        lines = (tmp_path / out / "metrics.jsonl").read_text().splitlines()
        return [(e["kind"], e["step"], e["loss"]) for e in map(json.loads, lines) if "loss" in e]

    assert [entry for entry in curve("killed") if entry[0] == "valid"] == [
        entry for entry in curve("straight") if entry[0] == "valid"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_the_step_and_leaves_with_its_code(
    corpus: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start(tmp_path / "m", corpus, 100_000)
    wait_for(tmp_path / "m" / "checkpoints" / "step-8", process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "--resume" in said
    assert "Traceback" not in said
    step = int(said.split("stopped after step ")[1].split()[0])
    assert (tmp_path / "m" / "checkpoints" / f"step-{step}").is_dir()


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    run(corpus, out, 12)
    expected = (out / "model.safetensors").read_bytes()
    newest = out / "checkpoints" / "step-12" / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    log: list[str] = []

    class Kept(Log):
        def line(self, text: str, style: str = "") -> None:
            log.append(text)

    resume_pretraining(out, (), Kept(quiet=True))
    assert any("step-12 is damaged" in line for line in log)
    assert any("resuming at step 10" in line or "resuming at step 8" in line for line in log)
    assert (out / "model.safetensors").read_bytes() == expected


def test_a_run_goes_on_without_the_text_it_began_with(corpus: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(corpus.read_bytes())
    run(text, tmp_path / "m", 12)
    model = tmp_path / "m" / "model.safetensors"
    expected = model.read_bytes()
    text.unlink()
    for step in (10, None):
        if step:
            keep_only_checkpoint(tmp_path / "m", step)
        else:  # from the beginning
            shutil.rmtree(tmp_path / "m" / "checkpoints")
        model.unlink()
        palavra.pretrain(out=tmp_path / "m", resume=True)
        assert model.read_bytes() == expected


def test_a_run_is_held_to_the_text_it_began_with(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "m", 2)
    other = tmp_path / "other.txt"
    other.write_text("Outro texto.\nE mais um.\n" * 3, encoding="utf-8")
    palavra.prepare(other, tokenizer=tmp_path / "m", out=tmp_path / "p", documents="line", deduplicate=False)
    for file in (*(tmp_path / "m" / "data").iterdir(), *(tmp_path / "p").glob("*.*")):
        if file.parent.name == "data":
            file.unlink()
        else:
            shutil.copy(file, tmp_path / "m" / "data")
    with pytest.raises(PalavraError, match="data holds another text than the run began with"):
        palavra.pretrain(out=tmp_path / "m", resume=True)
    described = json.loads((tmp_path / "m" / "run.json").read_text())
    del described["data"]["shards"]  # a run from before they were bound
    (tmp_path / "m" / "run.json").write_text(json.dumps(described))
    palavra.pretrain(out=tmp_path / "m", resume=True)


def test_a_lost_loss_stops_the_run_and_keeps_the_last_good_checkpoint(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"at step \d+, learning rate .*, documents .*frases.txt:\d+"):
        run(corpus, tmp_path / "m", 60, "optimizer.name=sgd", "optimizer.learning_rate=900", "optimizer.clip=0",
            "train.eval_every=1000")  # fmt: skip
    assert not (tmp_path / "m" / "model.safetensors").exists()


@pytest.mark.parametrize("saved", [False, True])
def test_of_a_lost_loss_is_said_what_is_left(saved: bool, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged) as caught:
        run(corpus, tmp_path / "m", 60, "optimizer.name=sgd", "optimizer.learning_rate=900", "optimizer.clip=0",
            "train.eval_every=1000", f"train.save_every={1 if saved else 60}")  # fmt: skip
    assert getattr(caught.value, "__notes__", []) == ["the last good checkpoint is kept"] * saved
    assert any((tmp_path / "m").glob("checkpoints/step-*")) == saved


def test_a_full_disk_does_not_end_the_run(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = checkpoints.save_checkpoint
    calls: list[int] = []

    def sometimes(*arguments: Any) -> Path:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(saving, "save_checkpoint", sometimes)
    run(corpus, tmp_path / "m", 12)
    assert "No space left" in (tmp_path / "m" / "metrics.jsonl").read_text()
    assert (tmp_path / "m" / "model.safetensors").exists()


def test_a_full_disk_silences_the_files_not_the_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def full(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode == "a":
            raise OSError(28, "No space left on device", str(self))
        return real(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    run(corpus, tmp_path / "m", 6)
    assert (tmp_path / "m" / "model.safetensors").exists()


def test_a_tokenizer_of_other_text_is_not_reused(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("xyz zyx\n" * 3 + "wxyz\n", encoding="utf-8")
    run(other, tmp_path / "m", 1)
    (tmp_path / "m" / "palavra.toml").unlink()
    (tmp_path / "m" / "model.safetensors").unlink()
    shutil.rmtree(tmp_path / "m" / "checkpoints")
    run(corpus, tmp_path / "m", 1)
    run(corpus, tmp_path / "fresh", 1)
    assert (tmp_path / "m/tokenizer.json").read_bytes() == (tmp_path / "fresh/tokenizer.json").read_bytes()


def test_an_epoch_sees_every_token(corpus: Path, tmp_path: Path) -> None:
    done = palavra.pretrain(corpus, out=tmp_path / "m", epochs=1, documents="line", vocab_size=300, set=TINY)
    described = json.loads((tmp_path / "m" / "run.json").read_text())
    assert done.tokens == described["data"]["train_tokens"] + 2 * described["packing"]["pieces"]


def test_what_contradicts_a_model_to_continue_is_an_error(finished: Path, corpus: Path, tmp_path: Path) -> None:
    for options in ({"size": "nano"}, {"vocab_size": 300}, {"tokenizer": finished}):
        with pytest.raises(PalavraError, match="own size and tokenizer"):
            palavra.pretrain(corpus, out=tmp_path / "m", init=finished, steps=1, **options)
    with pytest.raises(PalavraError, match=r"model\.dropout does not apply to init=, which continues a model as it is"):
        palavra.pretrain(corpus, out=tmp_path / "m", init=finished, steps=1, dropout=0.2)


def test_a_run_is_never_overwritten(finished: Path, corpus: Path) -> None:
    with pytest.raises(PalavraError, match="already holds a run: add resume=True"):
        run(corpus, finished)
    with pytest.raises(PalavraError, match="no run to resume"):
        palavra.pretrain(out=finished / "nowhere", resume=True)


def test_continuing_a_model_keeps_its_tokenizer_and_shape(finished: Path, corpus: Path, tmp_path: Path) -> None:
    palavra.pretrain(
        corpus, out=tmp_path / "more", init=finished, steps=4, documents="line",
        set=("train.batch_tokens=256", "train.compile=off", "model.context=32"),
    )  # fmt: skip
    for name in ("tokenizer.json",):
        assert (tmp_path / "more" / name).read_bytes() == (finished / name).read_bytes()
    before, after = (json.loads((d / "config.json").read_text()) for d in (finished, tmp_path / "more"))
    assert before == after


def test_a_bert_is_trained_and_read_by_transformers(corpus: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    run(corpus, tmp_path / "bert", 4, family="bert")
    assert type(AutoModelForMaskedLM.from_pretrained(tmp_path / "bert")).__name__ == "BertForMaskedLM"


def test_minutes_become_steps_in_the_recipe(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as take that long, with what validation wants taken off; however long it took to find out."""
    monkeypatch.setattr(planning, "step_seconds", lambda *arguments, **options: 0.1)
    palavra.pretrain(
        corpus, out=tmp_path / "m", minutes=0.05, documents="line", vocab_size=300,
        set=[value for value in TINY if "every" not in value],
    )  # fmt: skip
    recipe = (tmp_path / "m" / "palavra.toml").read_text()
    assert "steps = 28\n" in recipe  # 3 s less 4%
    assert RunDirectory(tmp_path / "m").read_json(PretrainingRun, "run.json").budget.rule


def test_a_dry_run_only_tells(corpus: Path) -> None:
    plan = palavra.plan(corpus, documents="line", steps=5, set=TINY)
    assert plan.steps == 5
    assert plan.parameters > 0
    assert plan.recipe.model.hidden_size == 32


@pytest.mark.parametrize("content", ["palavra", "uma só frase curta\n", "a\nb\nc\n"])
def test_a_corpus_smaller_than_a_batch_still_trains(tmp_path: Path, content: str) -> None:
    path = tmp_path / "um.txt"
    path.write_text(content, encoding="utf-8")
    done = run(path, tmp_path / "m", 3)
    assert write_report(tmp_path / "m").exists()
    assert done.steps == 3
