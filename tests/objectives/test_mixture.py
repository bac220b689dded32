"""Two objectives in one run: which steps are whose, what each computes, and a switch that a resumed run makes too."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.evaluation import evaluate
from builders.models import CLS, SEP, Shelf, build_model, layout_of, model_config, vocabulary
from builders.pretraining import keep_only_checkpoint, metrics_of, mixed_run
from hypothesis import given
from hypothesis import strategies as st

import palavra
from palavra.data.loader import Packed
from palavra.data.packing import Cursor, Pieces
from palavra.errors import PalavraError
from palavra.model.compute import choose_compute
from palavra.model.directory import save_model
from palavra.model.heads import CausalLanguageModel
from palavra.objectives.causal import CausalObjective
from palavra.objectives.config import MaskingConfig, MixtureConfig
from palavra.objectives.masked import MaskedObjective
from palavra.objectives.mixture import MixedObjective
from palavra.pretraining.objectives import pretraining_objective
from palavra.pretraining.plan import timing
from palavra.pretraining.plan.corpus_stats import CorpusStats
from palavra.recipe import ModelRecipe, Recipe, TrainConfig
from palavra.report import write_report
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

pytestmark = pytest.mark.usefixtures("without_report")


def packed(lengths: tuple[int, ...] = (9, 5, 12)) -> Packed:
    random = np.random.default_rng(0)
    ids = np.concatenate([np.array([CLS, *random.integers(5, 50, size=n - 2), SEP]) for n in lengths])
    pieces = Pieces.from_table(np.array([[i, 0, n - 2] for i, n in enumerate(lengths)]))
    text = Shelf([part[1:-1] for part in np.split(ids, np.cumsum(lengths)[:-1])])
    return Packed(input_ids=ids, lengths=np.array(lengths), pieces=pieces, cursor=Cursor(), text=text)


def objective(**config: Any) -> MixedObjective:
    masked = MaskedObjective(MaskingConfig(mask_rate=0.4, final_mask_rate=0.2), vocabulary())
    return MixedObjective(CausalObjective(), masked, MixtureConfig(**config), steps=10)


def test_the_first_steps_are_causal_and_the_rest_masked() -> None:
    found = [objective().prepare(packed(), np.random.default_rng(1), step / 10) for step in range(10)]
    assert [[(part.causal, part.sequences) for part in batch.parts] for batch in found] == (
        [[(True, 3)]] * 6 + [[(False, 3)]] * 4
    )
    assert not any(MixtureConfig(causal_fraction=0).causal_fraction_at(step / 10, 10) for step in range(10))
    assert all(MixtureConfig(causal_fraction=1).causal_fraction_at(step / 10, 10) for step in range(10))


@given(st.integers(0, 100), st.integers(1, 2000), st.sampled_from(["first", "throughout"]))
def test_steps_have_their_share_exactly(percent: int, steps: int, when: Any) -> None:
    share = percent / 100
    config = MixtureConfig(causal_fraction=share, when=when)
    found = [config.causal_fraction_at(step / steps, steps) for step in range(steps)]
    assert set(found) <= {0.0, 1.0}
    assert abs(sum(found) - share * steps) < 1
    if when == "throughout":
        assert np.all(np.abs(np.cumsum(found) - share * np.arange(1, steps + 1)) < 1)


@pytest.mark.parametrize("when", ["first", "throughout", "together"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("steps", [10, 1000])
def test_a_typical_step_of_each_kind_is_known_with_its_share(when: Any, share: float, steps: int) -> None:
    config = MixtureConfig(causal_fraction=share, when=when)
    kinds = config.kinds_of_steps(steps)
    assert sum(part for _, part in kinds) == pytest.approx(1)
    causal = sum(part * config.causal_fraction_at(progress, steps) for progress, part in kinds)
    assert causal == pytest.approx(share)
    assert all(0 <= progress < 1 for progress, _ in kinds)


def test_what_changes_over_masked_training_changes_over_its_part_of_the_run() -> None:
    """The share of hidden tokens goes from 0.4 to 0.2 in the masked steps, though they are the last fifth."""
    lengths = (60,) * 20
    for when, progress, share in (("first", 0.8, 0.4), ("first", 0.9, 0.3), ("together", 0.9, 0.22)):
        (part,) = objective(causal_fraction=0.8 if when == "first" else 0.0, when=when).prepare(
            packed(lengths), np.random.default_rng(0), progress
        ).parts  # fmt: skip
        assert part.labelled == round(share * 20 * 58)
    recipe = Recipe(objective="causal+masked", train=TrainConfig(steps=10))
    recipe = replace(
        recipe, mixture=MixtureConfig(causal_fraction=0.8), masking=MaskingConfig(mask_rate=0.4, final_mask_rate=0.2)
    )
    assert pretraining_objective(recipe).step_values(recipe, 0.8) == pytest.approx({"causal": 0.0, "mask_rate": 0.4})
    assert pretraining_objective(recipe).step_values(recipe, 0.9) == pytest.approx({"causal": 0.0, "mask_rate": 0.3})


def test_the_measured_step_is_that_of_both_kinds_at_their_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A causal step takes 1 s here and a masked one 5."""
    sizes = ModelRecipe(hidden_size=16, num_layers=1, num_heads=1, context=16)
    recipe = Recipe(objective="causal+masked", model=sizes, train=TrainConfig(batch_tokens=64)).of_size("nano")
    text = CorpusStats(tokens=1000, vocab_size=32)
    seen: list[float] = []

    def times(model: object, at: Any, progress: float, *more: object) -> list[float]:
        batch = at.prepare(next(text.batches(recipe)), np.random.default_rng(0), progress)
        (part,) = batch.parts
        seen.append(float(part.causal))
        return [9.0, 9.0, 9.0, *[1.0 if seen[-1] else 5.0] * 4]

    monkeypatch.setattr(timing, "_step_times", times)
    found = timing.step_seconds(recipe, text, choose_compute("cpu", "float32", "off"))
    assert seen == [1.0, 0.0]
    assert found == pytest.approx(0.6 * 1 + 0.4 * 5)


def test_each_step_computes_what_its_objective_does() -> None:
    mixed, model = objective(), build_model(model_config())
    for progress, single in ((0.2, mixed.causal), (0.8, mixed.masked)):
        (batch,) = mixed.prepare(packed(), np.random.default_rng(3), progress).parts
        alone = single.prepare(packed(), np.random.default_rng(3), mixed.config.masked_progress(progress))
        assert torch.equal(batch.input_ids, alone.input_ids)
        assert torch.equal(batch.label_rows, alone.label_rows)
        found, expected = mixed.loss(model, batch, layout_of(batch)), single.loss(model, alone, layout_of(alone))
        assert torch.equal(found.total, expected.total)
        assert found.count == expected.count


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_a_causal_step_of_an_encoder_sees_nothing_to_the_right(family: str) -> None:
    mixed, model = objective(), build_model(model_config(family))
    (batch,) = mixed.prepare(packed(), np.random.default_rng(3), 0.0).parts
    changed = batch.input_ids.clone()
    changed[6:9] = torch.tensor([40, 41, 42])
    seen = [model(replace(batch, input_ids=ids), layout_of(batch), causal=True) for ids in (batch.input_ids, changed)]
    torch.testing.assert_close(seen[0][:6], seen[1][:6])
    assert not torch.allclose(seen[0][6:9], seen[1][6:9])
    loss = mixed.loss(model, batch, layout_of(batch))
    logits = torch.log_softmax(model.logits(seen[0]), -1)[batch.label_rows]
    torch.testing.assert_close(loss.total, -logits.gather(1, batch.labels[:, None]).sum(), atol=1e-3, rtol=1e-5)
    assert not isinstance(model, CausalLanguageModel)


def test_an_evaluation_may_slide_over_what_is_read_from_left_to_right(tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text("O gato viu o rei e o mar. " * 30, encoding="utf-8")
    tokenizer = Tokenizer.train([text.read_text(encoding="utf-8")], TokenizerConfig(vocab_size=280))
    model, folder = build_model(model_config(vocab_size=tokenizer.vocab_size, context=32)), tmp_path / "m"
    save_model(model, folder, {"pretraining_objective": "causal+masked"})
    tokenizer.save(folder)
    cut, sliding = (evaluate(folder, text, device="cpu", sliding=value) for value in (None, True))
    assert cut.masked == sliding.masked
    assert cut.beside["causal"].tokens == sliding.beside["causal"].tokens
    assert (cut.beside["causal"].sliding, sliding.beside["causal"].sliding) == (False, True)
    assert cut.beside["causal"].loss != sliding.beside["causal"].loss
    save_model(model, folder)
    with pytest.raises(
        PalavraError, match=r"sliding=True means nothing here: .* has not learned to predict next tokens"
    ):
        evaluate(folder, text, device="cpu", sliding=True)


# Whole runs


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    words = ["gato", "rei", "mar", "livro", "sol", "rato"]
    path.write_text("".join(f"O {a} viu o {b} e o {c}.\n" for a in words for b in words for c in words))
    return path


@pytest.mark.parametrize("when", ["first", "throughout"])
def test_a_resumed_run_switches_where_a_straight_one_does(corpus: Path, tmp_path: Path, when: str) -> None:
    out = tmp_path / "m"
    lines = mixed_run(corpus, out, 12, f"mixture.when={when}", "mixture.causal_fraction=0.5")
    causal = [line["causal"] for line in lines if line["kind"] == "train"]
    assert {0.0, 1.0} == set(causal)
    if when == "first":
        assert causal == [1.0] * 6 + [0.0] * 6
    expected = {name: (out / name).read_bytes() for name in ("model.safetensors", "evaluation.json")}
    keep_only_checkpoint(out, 4)
    palavra.pretrain(out=out, resume=True)  # from step 4, over the switch
    assert {name: (out / name).read_bytes() for name in expected} == expected
    again = metrics_of(out)
    assert [line["loss"] for line in again if "loss" in line] == [line["loss"] for line in lines if "loss" in line]


def test_what_comes_out_is_an_encoder_that_has_learned_both(corpus: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    lines = mixed_run(corpus, tmp_path / "m", 50, "optimizer.learning_rate=0.02", "mixture.causal_fraction=0.3")
    valid = [line for line in lines if line["kind"] == "valid"]
    assert {"loss", "accuracy", "causal_loss"} <= set(valid[0])
    assert min(line["causal_loss"] for line in valid) < np.log(300) - 2
    assert valid[-1]["loss"] < valid[0]["loss"] - 2
    evaluation = json.loads((tmp_path / "m" / "evaluation.json").read_text())
    assert set(evaluation) == {"masked", "causal"}
    assert {"loss", "accuracy", "bands", "corruption"} <= set(evaluation["masked"])
    assert evaluation["causal"]["bits_per_byte"] > 0
    shown = write_report(tmp_path / "m").read_text(encoding="utf-8")
    assert all(
        name in shown for name in ("Masked accuracy", "Causal loss", "Causal perplexity", "Causal bits per byte")
    )
    found = evaluated(tmp_path / "m", evaluation)
    assert "causal" in found.lines()
    assert any(line.startswith("  bits per byte") for line in found.lines())
    assert palavra.load(tmp_path / "m", kind="masked", device="cpu").fill("O gato viu o [MASK].")
    AutoModelForMaskedLM.from_pretrained(tmp_path / "m")


def evaluated(out: Path, written: dict[str, Any]) -> Any:
    """What `palavra.evaluate` finds in a run's own folder, which is what its run wrote down."""
    found = evaluate(out, device="cpu")
    for name, part in written.items():
        again = found.to_json()[name]
        assert set(again) == set(part)
        assert again["loss"] == pytest.approx(part["loss"], rel=1e-4)
    return found


def test_a_mixture_of_another_objective_is_an_error(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(
        PalavraError, match=r"mixture\.\w+ does not apply to objective \S+; it applies to causal\+masked: leave it out"
    ):
        mixed_run(corpus, tmp_path / "m", 1, "mixture.causal_fraction=0.5", objective="masked")
    with pytest.raises(PalavraError, match=r"mixture.causal_fraction is 2"):
        mixed_run(corpus, tmp_path / "m", 1, "mixture.causal_fraction=2")
    with pytest.raises(PalavraError, match="not llama"):
        mixed_run(corpus, tmp_path / "m", 1, family="llama")
