"""Both kinds of sequences in every batch, and hidden tokens predicted from the vectors before them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.models import CLS, CPU, SEP, Shelf, build_model, layout_of, model_config, vocabulary
from builders.pretraining import TINY, keep_only_checkpoint, metrics_of, mixed_run
from hypothesis import given
from hypothesis import strategies as st

import palavra
from palavra.data.loader import Packed, packed_batches
from palavra.data.packing import Cursor, Packer, Pieces
from palavra.errors import PalavraError
from palavra.inference.evaluation import EvalSet, evaluate_masked
from palavra.inference.scoring import masked_copies
from palavra.model.heads import MaskedLanguageModel
from palavra.objectives.causal import CausalObjective
from palavra.objectives.config import MaskingConfig, MixtureConfig
from palavra.objectives.hybrid import HybridBatch, ObjectiveBatch, parted
from palavra.objectives.masked import MaskedObjective
from palavra.objectives.mixture import MixedObjective
from palavra.training.config import ScheduleConfig
from palavra.training.loop import LoopConfig, in_steps, prepare_steps
from palavra.training.run_length import RunLength

pytestmark = pytest.mark.usefixtures("without_report")

LENGTHS = (9, 5, 12, 3, 7, 20, 4, 6, 11, 8)


def packed(lengths: Sequence[int] = LENGTHS, seed: int = 0) -> Packed:
    random = np.random.default_rng(seed)
    ids = np.concatenate([np.array([CLS, *random.integers(5, 50, size=n - 2), SEP]) for n in lengths])
    pieces = Pieces.from_table(np.array([[i, 0, n - 2] for i, n in enumerate(lengths)]))
    text = Shelf([part[1:-1] for part in np.split(ids, np.cumsum(lengths)[:-1])])
    return Packed(input_ids=ids, lengths=np.array(lengths), pieces=pieces, cursor=Cursor(), text=text)


def objective(causal_fraction: float = 0.4, *, mntp: bool = True) -> MixedObjective:
    masked = MaskedObjective(MaskingConfig(mask_rate=0.4), vocabulary())
    config = MixtureConfig(causal_fraction=causal_fraction, when="together", mntp=mntp)
    return MixedObjective(CausalObjective(), masked, config, steps=10)


def prepared(causal_fraction: float = 0.4, **options: Any) -> HybridBatch:
    return objective(causal_fraction, **options).prepare(packed(), np.random.default_rng(3))


@given(st.lists(st.integers(3, 12), min_size=1, max_size=20), st.floats(0, 1), st.integers(0, 99))
def test_a_batch_is_parted_without_loss_near_its_share(lengths: list[int], share: float, seed: int) -> None:
    whole = packed(lengths)
    parts = [part for part in parted(whole, share, np.random.default_rng(seed)) if part is not None]
    first = parted(whole, share, np.random.default_rng(seed))[0]
    assert abs((0 if first is None else len(first.lengths)) - share * len(lengths)) < 1
    bounds = np.cumsum([0, *lengths])
    for part in parts:
        ends = np.cumsum(part.lengths)
        for document, start, stop in zip(part.documents, ends - part.lengths, ends, strict=True):
            own = whole.input_ids[bounds[document] : bounds[document + 1]]
            assert part.input_ids[start:stop].tolist() == own.tolist()
    assert sorted(np.concatenate([part.documents for part in parts])) == list(range(len(lengths)))


def test_every_sequence_is_causal_as_often_as_its_share() -> None:
    counts = np.zeros(len(LENGTHS))
    for seed in range(2000):
        first, _ = parted(packed(), 0.37, np.random.default_rng(seed))
        if first is not None:
            counts[first.documents] += 1
    assert np.abs(counts / 2000 - 0.37).max() < 0.05


def test_labels_are_the_next_token_and_the_hidden_one_of_the_same_sequence() -> None:
    originals = [part.input_ids for part in parted(packed(), 0.4, np.random.default_rng(3)) if part is not None]
    parts, plain = prepared().parts, prepared(mntp=False).parts
    assert [(part.causal, part.sequences) for part in parts] == [(True, 4), (False, 6)]
    causal, ids = parts[0], originals[0]
    # Documents that were not cut: each token after [CLS] is predicted, the [SEP] at their ends included.
    assert np.array_equal(causal.input_ids.numpy(), ids[ids != SEP])
    assert np.array_equal(causal.labels.numpy(), ids[ids != CLS])
    assert np.array_equal(causal.label_rows.numpy(), np.arange(causal.tokens))
    rows, labels = parts[1].label_rows.numpy(), parts[1].labels.numpy()
    # Shifted, both kinds predict the token after their row.
    assert np.array_equal(labels, originals[1][rows + 1])
    sequence = np.repeat(np.arange(parts[1].sequences), np.diff(parts[1].cu_seqlens.numpy()))
    assert np.array_equal(sequence[rows], sequence[rows + 1])
    hidden = parts[1].label_rows.numpy() + 1
    assert set(np.flatnonzero(parts[1].input_ids.numpy() != originals[1])) <= set(hidden)
    assert not {CLS, SEP} & set(parts[1].labels.tolist())
    assert np.array_equal(plain[1].label_rows, hidden)
    assert torch.equal(plain[1].input_ids, parts[1].input_ids)


def test_a_first_token_is_never_predicted_from_another_sequence() -> None:
    lengths = np.array([4] * 30)
    ids = np.random.default_rng(0).integers(5, 50, size=120)  # no [CLS]: the random tokens that are measured
    none = Pieces.from_table(np.zeros((30, 3), dtype=np.int64))
    bare = Packed(input_ids=ids, lengths=lengths, pieces=none, cursor=Cursor(), text=Shelf([ids]))
    (batch,) = objective(0.0).prepare(bare, np.random.default_rng(0)).parts
    assert 0 < batch.labelled < round(0.4 * 120)
    assert batch.label_rows.min() >= 0
    assert set((batch.label_rows % 4).tolist()) == {0, 1, 2}
    assert np.array_equal(batch.labels.numpy(), ids[batch.label_rows.numpy() + 1])


def test_the_loss_is_the_means_of_both_kinds_by_their_shares() -> None:
    model, share = build_model(model_config()), 0.25
    lengths = [20] * 200  # so many that the step's numbers are near the average ones
    batch = objective(share).prepare(packed(lengths), np.random.default_rng(0))
    first, second = ((part, layout_of(part)) for part in batch.parts)
    causal, masked = CausalObjective().loss(model, *first), objective().masked.loss(model, *second)
    losses = [objective(share).loss(model, *part) for part in (first, second)]
    found = torch.stack([loss.total for loss in losses]).sum() / sum(loss.count for loss in losses)
    expected = share * causal.mean + (1 - share) * masked.mean
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0)
    assert causal.count > 0.5 * masked.count, "counted alike, a causal sequence would be worth more"


def some_of(part: ObjectiveBatch, first: int, last: int) -> ObjectiveBatch:
    """The sequences `first` to `last` of a part."""
    start, stop = int(part.cu_seqlens[first]), int(part.cu_seqlens[last])
    labelled = (part.label_rows >= start) & (part.label_rows < stop)
    return replace(
        part, input_ids=part.input_ids[start:stop], position_ids=part.position_ids[start:stop],
        cu_seqlens=part.cu_seqlens[first : last + 1] - start, label_rows=part.label_rows[labelled] - start,
        labels=part.labels[labelled],
    )  # fmt: skip


def gradients(model: MaskedLanguageModel, parts: Sequence[ObjectiveBatch]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    losses = [objective().loss(model, part, layout_of(part)) for part in parts]
    torch.autograd.backward([loss.total for loss in losses])
    count = sum(loss.count for loss in losses)
    assert count == sum(part.labelled for part in parts)
    return {name: p.grad / count for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("cuts", [(2,), (1, 3)])
def test_any_split_of_a_batch_gives_the_same_gradient(cuts: tuple[int, ...]) -> None:
    model, parts = build_model(model_config(), torch.float64), prepared().parts
    whole = gradients(model, parts)
    split = gradients(
        model, [some_of(part, a, b) for part in parts for a, b in pairwise([0, *cuts, part.sequences])]
    )  # fmt: skip
    assert set(whole) == set(split)
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, atol=1e-9, rtol=1e-6)


def test_a_step_reads_each_part_in_its_own_way() -> None:
    """What the loop prepares: two parts of each micro-batch, each with its own layout, and what both count."""
    shelf = Shelf.random([9, 14, 3, 30, 11, 6, 8, 25])
    packer = Packer(lengths=shelf.lengths, context=16, batch_tokens=64, seed=0)
    config = LoopConfig(length=RunLength(steps=1), schedule=ScheduleConfig(), clip=0.0, seed=0, row_width=16)
    (step,) = prepare_steps(in_steps(packed_batches(shelf, packer, CLS, SEP), 2), objective(), config, CPU, 0)
    assert step.micro_batches == 2
    assert [part.causal for part, _ in step.parts if isinstance(part, ObjectiveBatch)] == [True, False] * 2
    assert step.count == sum(part.labelled for part, _ in step.parts)
    assert step.tokens == sum(part.tokens for part, _ in step.parts)
    model = build_model(model_config())
    for part, layout in step.parts:
        assert isinstance(part, ObjectiveBatch)
        weighed = objective().loss(model, part, layout).total / part.weight
        hidden = model(part, layout_of(part), causal=part.causal)[part.label_rows]
        scores = torch.log_softmax(model.logits(hidden), -1).gather(1, part.labels[:, None])
        torch.testing.assert_close(weighed, -scores.sum(), atol=1e-3, rtol=1e-5)


def test_a_batch_of_one_sequence_is_of_one_kind() -> None:
    model, kinds = build_model(model_config()), set()
    for seed in range(20):
        (part,) = objective().prepare(packed([9]), np.random.default_rng(seed)).parts
        kinds.add(part.causal)
        assert torch.isfinite(objective().loss(model, part, layout_of(part)).total)
    assert kinds == {False, True}


# What reads a shifted model


def test_an_evaluation_reads_the_row_before() -> None:
    shelf = Shelf.random([20, 30, 9])
    held_out = EvalSet(documents=shelf, lengths=shelf.lengths, cls_id=CLS, sep_id=SEP)
    model = build_model(model_config(mntp=True))
    found = evaluate_masked(model, held_out, vocabulary(), CPU)
    losses = []
    for batch in held_out.batches(vocabulary(), model.config.context, None):
        scores = torch.log_softmax(model.logits(model(batch, layout_of(batch))), -1).detach()
        losses += [-float(scores[row - 1, label]) for row, label in zip(batch.label_rows, batch.labels, strict=True)]
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.tokens == len(losses)


HYBRID = ("mixture.when=together", "mixture.causal_fraction=0.5", "mixture.mntp=true")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    words = ["gato", "rei", "mar", "livro", "sol", "rato"]
    path.write_text("".join(f"O {a} viu o {b} e o {c}.\n" for a in words for b in words for c in words))
    return path


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "m"
    mixed_run(corpus, out, 60, *HYBRID, "optimizer.learning_rate=0.02", "train.eval_every=60", "train.save_every=60")
    return out


def test_one_model_has_learned_both_kinds(trained: Path) -> None:
    lines = metrics_of(trained)
    valid = [line for line in lines if line["kind"] == "valid"]
    assert valid[-1]["loss"] < np.log(300) - 2.5
    assert valid[-1]["causal_loss"] < np.log(300) - 2.5
    steps = [line for line in lines if line["kind"] == "train"]
    assert {line["causal"] for line in steps} == {0.5}
    assert steps[0]["mask_rate"] == pytest.approx(0.2)
    found = palavra.evaluate(trained, device="cpu").to_json()
    written = json.loads((trained / "evaluation.json").read_text(encoding="utf-8"))
    assert found["masked"]["loss"] == pytest.approx(written["masked"]["loss"], rel=1e-4)
    assert found["causal"]["loss"] == pytest.approx(written["causal"]["loss"], rel=1e-4)
    best = palavra.load(trained, kind="masked", device="cpu").fill("O gato viu o rei e [MASK] mar.", top=1)[0].fills[0]
    assert best.token.strip() == "o"
    assert best.probability > 0.8


def test_a_saved_model_says_that_it_is_shifted_and_transformers_reads_the_token_before(trained: Path) -> None:
    from transformers import AutoModelForMaskedLM

    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    assert config["masked_next_token_prediction"] is True
    assert config["pretraining_objective"] == "causal+masked"
    assert "only Palavra knows" in (trained / "train.log").read_text(encoding="utf-8")
    ours = palavra.load(trained, kind="masked", device="cpu")
    theirs = AutoModelForMaskedLM.from_pretrained(trained, attn_implementation="eager").eval()
    tokenizer, text = ours.tokenizer, "[MASK] gato viu o [MASK] e o mar."
    ids = torch.tensor([[tokenizer.cls_id, *tokenizer.encode_prompt(text), tokenizer.sep_id]])
    masks = torch.nonzero(ids[0] == tokenizer.mask_id)[:, 0]
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits[0, masks - 1].softmax(-1)
    assert masks[0] == 1
    torch.testing.assert_close(ours.distribution(text), expected, atol=1e-4, rtol=1e-3)
    score = ours.score("O gato viu o rei.", per_token=True)
    for i, sample in enumerate(masked_copies(tokenizer.encode("O gato viu o rei."), tokenizer, "word")):
        assert sample.labels is not None
        with torch.no_grad():
            logits = theirs(input_ids=torch.from_numpy(sample.input_ids)[None]).logits[0, i].log_softmax(-1)
        assert score.per_token[i].log_probability == pytest.approx(float(logits[sample.labels[0]]), abs=1e-3)


def test_a_run_of_both_kinds_resumes_bit_for_bit(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    lines = mixed_run(corpus, out, 8, *HYBRID)
    expected = {name: (out / name).read_bytes() for name in ("model.safetensors", "evaluation.json", "config.json")}
    keep_only_checkpoint(out, 4)
    palavra.pretrain(out=out, resume=True)
    assert {name: (out / name).read_bytes() for name in expected} == expected
    with pytest.raises(PalavraError, match=r"did not begin with mixture\.mntp=false"):
        palavra.pretrain(out=out, resume=True, set=("mixture.mntp=false",))
    assert [line["loss"] for line in metrics_of(out) if "loss" in line] == [x["loss"] for x in lines if "loss" in x]


def test_a_shifted_model_is_continued_as_one(corpus: Path, trained: Path, tmp_path: Path) -> None:
    small = tuple(setting for setting in TINY if not setting.startswith("model"))
    options: dict[str, Any] = {"init": trained, "steps": 2, "documents": "line"}
    for objective_name in ("masked", "causal+masked"):
        with pytest.raises(PalavraError, match=r"add objective=.causal\+masked. set=.mixture.mntp=true"):
            palavra.pretrain(corpus, out=tmp_path / "no", objective=objective_name, set=small, **options)
    more = (*small, "mixture.mntp=true", "model.context=32")
    palavra.pretrain(corpus, out=tmp_path / "more", objective="causal+masked", set=more, **options)
    assert metrics_of(tmp_path / "more")[0]["loss"] < np.log(300) - 2
    assert palavra.load(tmp_path / "more", device="cpu").model.config.mntp


def test_what_config_json_says_of_shifting_must_be_true_or_false(trained: Path, tmp_path: Path) -> None:
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"masked_next_token_prediction": "yes"}))
    with pytest.raises(PalavraError, match="masked_next_token_prediction is 'yes'"):
        palavra.load(tmp_path, device="cpu")
