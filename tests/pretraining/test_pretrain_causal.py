"""Causal runs: text to a model that continues it, read by transformers, resumed exactly, asked on the command line."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from builders.commands import Ask
from builders.evaluation import evaluate
from builders.models import model_config
from builders.pretraining import keep_only_checkpoint, metrics_of

import palavra
from palavra.errors import PalavraError
from palavra.inference.causal import CausalModel
from palavra.inference.generation import GenerationOptions
from palavra.inference.masked import MaskedModel
from palavra.inference.scoring import Masking
from palavra.model.transformer import matmul_flops
from palavra.pretraining.job import PretrainingJob
from palavra.pretraining.run import Finished

pytestmark = pytest.mark.usefixtures("without_report")

TINY = (
    "model.hidden_size=32", "model.num_layers=2", "model.num_heads=2", "model.context=32", "train.batch_tokens=256",
    "train.compile=off", "train.eval_every=10", "train.save_every=8", "train.log_every=5", "train.device=cpu",
    "train.precision=float32", "train.threads=1",
)  # fmt: skip
LINES = [
    f"{subject} {verb} {place}."
    for subject in ("O gato", "A menina", "O velho rei", "Uma raposa", "O rato", "A vizinha")
    for verb in ("correu", "dormiu", "viu a lua", "roeu a roupa", "cantou", "esperou")
    for place in ("no jardim", "pela casa", "em Roma", "na rua", "perto do rio", "sem parar")
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred short documents with something to learn."""
    path = tmp_path_factory.mktemp("corpus") / "frases.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def run(corpus: Path, out: Path, steps: int, *extra: str, **options: Any) -> Finished:
    """A small causal run."""
    defaults = {"objective": "causal", "documents": "line", "vocab_size": 300, "valid_fraction": 0.1}
    return palavra.pretrain(corpus, out=out, steps=steps, set=(*TINY, *extra), **{**defaults, **options})


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run, for all tests that only look."""
    out = tmp_path_factory.mktemp("run") / "model"
    run(corpus, out, 60, "optimizer.learning_rate=0.02")
    return out


@pytest.fixture(scope="module")
def masked(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked model beside it."""
    out = tmp_path_factory.mktemp("masked") / "model"
    run(corpus, out, 2, objective="masked")
    return out


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("family", ["llama", "modernbert"])
def test_a_run_counts_the_products_of_a_sequence_as_the_model_does(family: str) -> None:
    """The mean piece has 30 tokens; that a causal token sees half of it is the model's affair."""
    config = model_config(family)
    packer = SimpleNamespace(epoch_tokens=300, epoch_pieces=10)
    job = SimpleNamespace(row_width=64, packer=packer, model=SimpleNamespace(config=config))
    report = SimpleNamespace(tokens=60, labelled=20)
    assert PretrainingJob.flops(job, report) == matmul_flops(config, 60, 20, sequence=30)  # type: ignore[arg-type]


def test_a_run_leaves_what_a_masked_run_leaves(finished: Path) -> None:
    lines = metrics_of(finished)
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[0] == pytest.approx(math.log(300), abs=0.6)
    assert losses[-1] < losses[0] - 2
    assert {"loss", "perplexity", "bits_per_byte"} <= set(next(line for line in lines if line["kind"] == "valid"))
    assert read(finished / "run.json")["model"]["objective"] == "causal"
    recipe = (finished / "palavra.toml").read_text()
    assert 'objective = "causal"' in recipe
    assert 'family = "llama"' in recipe
    assert (finished / "report.html").exists()


def test_examples_go_on_with_beginnings_of_held_out_texts(finished: Path) -> None:
    examples = read(finished / "examples.json")
    assert len(examples) == 8
    for example in examples:
        assert any(line.startswith(example["prompt"]) for line in LINES)
        assert example["text"]
        assert example["reason"] in ("end", "length")


def test_the_evaluation_of_a_run_is_the_one_of_its_directory(finished: Path, corpus: Path) -> None:
    written, found = read(finished / "evaluation.json"), evaluate(finished, device="cpu")
    assert {"loss", "perplexity", "perplexity_per_word", "bits_per_byte", "tokens", "sliding"} == set(written)
    assert found.to_json() == pytest.approx(written, rel=1e-5)
    last = metrics_of(finished)
    assert found.loss == pytest.approx(min(line["loss"] for line in last if line["kind"] == "valid"), rel=1e-5)
    on_file = evaluate(finished, corpus, documents="line", device="cpu")
    text = corpus.read_text(encoding="utf-8")
    nats = on_file.loss * on_file.tokens
    assert on_file.bits_per_byte == pytest.approx(nats / math.log(2) / len(text.replace("\n", "").encode()))
    assert on_file.perplexity_per_word == pytest.approx(math.exp(nats / len(text.split())))


def test_sliding_windows_read_long_documents_better(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text(" ".join(LINES[::7]), encoding="utf-8")
    cut, sliding = (evaluate(finished, path, device="cpu", sliding=value) for value in (None, True))
    assert (cut.sliding, sliding.sliding) == (False, True)
    assert cut.tokens == sliding.tokens
    assert cut.loss != sliding.loss


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_transformers_reads_the_directory_and_agrees(finished: Path, corpus: Path, tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if family != "llama":
        run(corpus, tmp_path / "model", 4, family=family)
    folder = finished if family == "llama" else tmp_path / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ours = palavra.load(folder, kind="causal", device="cpu")
    text = "O gato roeu a"
    encoded = tokenizer(text, return_tensors="pt")
    assert encoded["input_ids"][0].tolist() == [ours.tokenizer.cls_id, *ours.tokenizer.encode(text)]
    with torch.no_grad():
        expected = torch.log_softmax(theirs(input_ids=encoded["input_ids"]).logits[0], -1)
    per_token = [token.log_probability for token in ours.score(text, per_token=True).per_token]
    chosen = expected[:-1].gather(1, encoded["input_ids"][0, 1:, None]).squeeze(1)
    np.testing.assert_allclose(per_token, chosen, atol=1e-4)
    theirs.generation_config.pad_token_id = tokenizer.pad_token_id
    continued = theirs.generate(input_ids=encoded["input_ids"], max_new_tokens=10, do_sample=False)
    mine = ours.generate(text, max_tokens=10, temperature=0)
    assert list(mine.tokens) == continued[0, encoded["input_ids"].shape[1] :].tolist()
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("[CLS]", "[SEP]")


def test_a_model_is_asked_what_its_kind_does(finished: Path, masked: Path) -> None:
    causal, other = palavra.load(finished, device="cpu"), palavra.load(masked, device="cpu")
    assert (type(causal), type(other)) == (CausalModel, MaskedModel)
    for model, name in ((causal, "fill"), (other, "generate")):
        with pytest.raises(PalavraError, match=r"which cannot (fill|generate): use"):
            getattr(model, name)("O [MASK]")
    assert isinstance(other, MaskedModel)
    word, token = (other.score("O gato correu.", masking=masking) for masking in get_args(Masking))
    assert word.log_likelihood != token.log_likelihood
    with pytest.raises(PalavraError, match="masking is 'all'"):
        other.score("O", masking="all")  # type: ignore[call-overload]


def test_resumed_equals_straight_through_bit_for_bit(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    run(corpus, out, 20)
    expected = {name: (out / name).read_bytes() for name in ("model.safetensors", "evaluation.json", "examples.json")}
    keep_only_checkpoint(out, 16)
    for name in expected:
        (out / name).unlink()
    palavra.pretrain(out=out, resume=True)
    assert {name: (out / name).read_bytes() for name in expected} == expected


def test_a_model_is_continued_by_its_own_objective(finished: Path, masked: Path, corpus: Path, tmp_path: Path) -> None:
    small = ("train.batch_tokens=256", "train.compile=off", "model.context=32", "train.threads=1")
    more: dict[str, Any] = {"steps": 4, "documents": "line", "set": small}
    palavra.pretrain(corpus, out=tmp_path / "more", objective="causal", init=finished, **more)
    before, after = (read(folder / "config.json") for folder in (finished, tmp_path / "more"))
    assert before == after
    lines = (json.loads(line) for line in (tmp_path / "more" / "metrics.jsonl").read_text().splitlines())
    first = next(line["loss"] for line in lines if line["kind"] == "train")
    assert first < 3
    with pytest.raises(PalavraError, match=r"is a causal language model .llama.: add objective=.causal"):
        palavra.pretrain(corpus, out=tmp_path / "a", init=finished, **more)
    with pytest.raises(PalavraError, match=r"is a masked language model .modernbert.: leave out objective=.causal"):
        palavra.pretrain(corpus, out=tmp_path / "b", init=masked, objective="causal", **more)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"family": "bert"}, 'objective="causal" trains llama or mistral or '),
        ({"family": "llama", "objective": "masked"}, 'not llama: choose another family=, or objective="causal"'),
        (
            {"set": ("masking.mask_rate=0.3",)},
            "masking.mask_rate does not apply to objective causal; it applies to masked",
        ),
    ],
)
def test_what_does_not_go_with_the_objective_is_an_error(
    corpus: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(PalavraError, match=said):
        palavra.pretrain(corpus, out=tmp_path / "m", **{"objective": "causal", "steps": 1, **options})


def test_a_dry_run_only_tells(corpus: Path) -> None:
    plan = palavra.plan(corpus, objective="causal", steps=5, set=TINY)
    assert (plan.steps, plan.recipe.model.family) == (5, "llama")


# The command line


def test_generate_shows_what_the_method_gives(finished: Path, ask: Ask) -> None:
    model = palavra.load(finished, kind="causal", device="cpu")
    settings = ("--max-tokens", 6, "--temperature", 0.7, "--top-k", 20, "--top-p", 0.9, "--min-p", 0.01,
                "--repetition-penalty", 1.1, "--seed", 3, "--device", "cpu")  # fmt: skip
    options: GenerationOptions = {"max_tokens": 6, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.01,
               "repetition_penalty": 1.1, "seed": 3}  # fmt: skip
    one = model.generate("O gato", **options)
    assert ask("generate", finished, "O gato", *settings) == (0, f"O gato{one.text}\n", "")
    first, second = model.generate("O gato", samples=2, **options)
    code, out, _ = ask("generate", finished, "O gato", *settings, "--samples", 2)
    assert (code, out) == (0, f"[1] O gato{first.text}\n[2] O gato{second.text}\n")
    code, out, _ = ask("generate", finished, "O gato", *settings, "--json")
    expected = {"prompt": "O gato", "sample": 1, "text": one.text, "tokens": list(one.tokens), "reason": one.reason}
    assert (code, json.loads(out)) == (0, expected)


def test_generate_reads_prompts_from_a_file_and_stops_where_told(finished: Path, ask: Ask, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("O gato\nUma raposa viu\n", encoding="utf-8")
    code, out, _ = ask("generate", finished, "--file", prompts, "--temperature", 0, "--stop", ".", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["prompt"] for line in lines] == ["O gato", "Uma raposa viu"]
    assert all("." not in line["text"] for line in lines)


@pytest.mark.parametrize("prompt", [[], [""], ["漢字 ☃"]])
def test_any_prompt_is_continued(finished: Path, ask: Ask, prompt: list[str]) -> None:
    code, out, err = ask("generate", finished, *prompt, "--max-tokens", 5)
    assert (code, err) == (0, "")
    assert out.startswith("".join(prompt))


def test_a_long_prompt_is_an_error_unless_the_context_slides(finished: Path, ask: Ask, tmp_path: Path) -> None:
    prompt = " ".join(LINES[:20])
    code, out, err = ask("generate", finished, prompt, "--max-tokens", 5)
    assert (code, out) == (2, "")
    assert "the model's context of 32" in err
    code, out, err = ask("generate", finished, prompt, "--max-tokens", 40, "--overflow", "slide", "--temperature", 0)
    assert (code, err) == (0, "(the model ended the text after 1 of 40 tokens)\n")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"O gato\n{prompt}\n", encoding="utf-8")
    code, out, err = ask("generate", finished, "--file", prompts)
    assert (code, out) == (2, "")
    assert "prompts.txt:2 has" in err


def test_ctrl_c_while_generating_is_no_traceback(finished: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Iterator[str]:
        yield " correu"
        raise KeyboardInterrupt

    monkeypatch.setattr(CausalModel, "stream", interrupted)
    assert ask("generate", finished, "O gato") == (130, "O gato correu\n", "")


def test_each_kind_says_what_to_use_instead(finished: Path, masked: Path, ask: Ask, tmp_path: Path) -> None:
    blanks = tmp_path / "blanks.txt"
    blanks.write_text("O [MASK]\n", encoding="utf-8")
    wrong = [("fill", finished, "O [MASK]"), ("fill", finished, "--file", blanks),
             ("generate", masked, "O"), ("generate", masked, "O", "--json"), ("predict", finished, "O")]  # fmt: skip
    for arguments in wrong:
        code, out, err = ask(*arguments)
        assert (code, out) == (2, ""), arguments
        assert err.startswith("palavra: this is a ")
        assert f"cannot {arguments[0]}: use " in err
        assert len(err.splitlines()) == 1


def test_score_tells_of_both_kinds(finished: Path, masked: Path, ask: Ask, tmp_path: Path) -> None:
    for folder in (finished, masked):
        code, out, _ = ask("score", folder, "O gato correu.", "", "--json", "--per-token", "--device", "cpu")
        first, empty = (json.loads(line) for line in out.splitlines())
        assert code == 0
        loaded = palavra.load(folder, device="cpu")
        assert isinstance(loaded, MaskedModel | CausalModel)
        expected = loaded.score("O gato correu.")
        assert first["log_likelihood"] == pytest.approx(expected.log_likelihood)
        assert sum(token["log_probability"] for token in first["per_token"]) == pytest.approx(first["log_likelihood"])
        assert (empty["tokens"], empty["perplexity"], empty["bits_per_byte"]) == (0, None, None)
    code, out, _ = ask("score", finished, "O gato correu.", "--per-token")
    assert code == 0
    assert len(out.splitlines()) == 2 + first["tokens"]
    texts = tmp_path / "texts.txt"
    texts.write_text("O gato\n" + " ".join(LINES[:20]) + "\n", encoding="utf-8")
    assert ask("score", finished, "--file", texts)[0] == 0
    code, _, err = ask("score", masked, "--file", texts)
    assert code == 2
    assert "texts.txt:2 has" in err
    assert "masks nothing" in ask("score", finished, "O", "--masking", "word")[2]


def test_minimal_pairs_are_compared(finished: Path, ask: Ask, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"sentence_good": line, "sentence_bad": " ".join(reversed(line.split())), "UID": "order"} for line in LINES]
    pairs.write_text("\n".join(map(json.dumps, rows[::20])), encoding="utf-8")
    code, out, _ = ask("compare-pairs", finished, pairs, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["accuracy"] == 1.0
    assert found["phenomena"] == [{"phenomenon": "order", "pairs": len(rows[::20]), "accuracy": 1.0}]
    assert ask("compare-pairs", finished, pairs)[1].splitlines()[0].split() == ["100.0%", "11", "pairs", "order"]
