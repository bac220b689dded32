"""What the method claims of next-word prediction: chapter D's exact rows, each test named by its row's id.

As in `test_claims`, the numbers are those of the worked examples, recomputed by the library.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from builders.models import build_causal_model, layout_of, model_config, random_batch, token_losses, unpack
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from palavra import losses
from palavra.batch import Batch
from palavra.losses import linear_cross_entropy, token_loss
from palavra.model.heads import CausalLanguageModel
from palavra.objectives.causal import CausalObjective, next_tokens


def loss_of(probabilities: list[float], word: int) -> float:
    """The library's loss for a next word, given the distribution over all of them."""
    logits = torch.log(torch.tensor([probabilities], dtype=torch.float64))
    identity = torch.eye(len(probabilities), dtype=torch.float64)
    found = float(linear_cross_entropy(logits, identity, None, torch.tensor([word])).mean)
    assert found == pytest.approx(float(token_loss(logits.exp()[0, word])), rel=1e-12)
    return found


@pytest.fixture(scope="module")
def model() -> CausalLanguageModel:
    return build_causal_model(model_config("llama"), torch.float64)


def sentence(length: int = 9) -> Batch:
    """One random sequence with its next words as labels."""
    return next_tokens(random_batch([length]).input_ids.numpy(), np.array([length]))


def test_causal_cross_entropy_of_the_worked_examples__D_CE() -> None:
    """ "O cão ladra" -> ".": 0.223 with a probability of 0.80, 1.386 with 0.25."""
    assert loss_of([0.05, 0.10, 0.05, 0.80], 3) == pytest.approx(0.223, abs=0.0005)
    assert loss_of([0.25, 0.25, 0.25, 0.25], 3) == pytest.approx(1.386, abs=0.0005)


def test_causal_loss_is_the_negative_log_probability_of_the_next_token__D_CE(model: CausalLanguageModel) -> None:
    batch = sentence()
    y = torch.softmax(model.logits(model(batch, layout_of(batch))), -1)
    following = batch.input_ids[1:]
    expected = -torch.log(y[:-1][torch.arange(len(following)), following]).sum()
    torch.testing.assert_close(CausalObjective().loss(model, batch, layout_of(batch)).total, expected)


def test_minimizing_the_causal_loss_maximizes_the_log_likelihood__D_T2(model: CausalLanguageModel) -> None:
    """The loss is minus the log of the product of the chain rule, and so are its gradients."""
    batch = sentence()
    loss = CausalObjective().loss(model, batch, layout_of(batch)).total
    y = torch.softmax(model.logits(model(batch, layout_of(batch), batch.label_rows)), -1)
    likelihood = y.gather(1, batch.labels[:, None]).prod()
    torch.testing.assert_close(loss, -torch.log(likelihood))
    parameters = list(model.parameters())
    down = torch.autograd.grad(loss, parameters)
    up = torch.autograd.grad(torch.log(likelihood), parameters)
    for a, b in zip(down, up, strict=True):
        torch.testing.assert_close(a, -b)


@given(st.floats(0.001, 1), st.floats(0.001, 1), st.floats(0, 1))
def test_loss_is_convex_in_the_probability__D_T2_1(p: float, q: float, share: float) -> None:
    a, b, between = torch.tensor([p, q, share * p + (1 - share) * q], dtype=torch.float64)
    chord = share * token_loss(a) + (1 - share) * token_loss(b)
    assert float(token_loss(between)) <= float(chord) + 1e-12


@given(st.integers(0, 2**31), st.floats(0, 1))
def test_loss_is_convex_in_the_logits__D_T2_1(seed: int, share: float) -> None:
    random = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 1, 6, dtype=torch.float64, generator=random) * 4
    identity, label = torch.eye(6, dtype=torch.float64), torch.tensor([2])

    def loss(logits: Tensor) -> float:
        return float(linear_cross_entropy(logits, identity, None, label).total)

    assert loss(share * a + (1 - share) * b) <= share * loss(a) + (1 - share) * loss(b) + 1e-9


def test_loss_is_not_convex_in_the_weights__D_T2_1(model: CausalLanguageModel) -> None:
    """Two networks that differ in the order of their hidden units alone are equally good; halfway is not."""
    other = build_causal_model(model_config("llama"), torch.float64)
    half = build_causal_model(model_config("llama"), torch.float64)
    batch = sentence(40)
    with torch.no_grad():
        own, mixed = other.state_dict(), half.state_dict()
        for name in own:
            order = torch.randperm(24)
            if name.endswith("mlp.up.weight"):
                down = name.replace("up", "down")
                own[name].copy_(torch.cat([part[order] for part in own[name].chunk(2)]))
                own[down].copy_(own[down][:, order])
        for name in own:
            mixed[name].copy_((mixed[name] + own[name]) / 2)
        # Of the text that the first one finds likeliest, so that there is something to lose.
        batch = replace(batch, labels=model.logits(model(batch, layout_of(batch), batch.label_rows)).argmax(-1))
        each = [float(CausalObjective().loss(m, batch, layout_of(batch)).mean) for m in (model, other, half)]
    assert each[0] == pytest.approx(each[1], rel=1e-9)
    assert each[2] > each[0] + 0.01


@given(st.floats(0.001, 1))
def test_derivative_of_the_loss_in_the_probability__D_L2_1(probability: float) -> None:
    y = torch.tensor(probability, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(token_loss(y), y)
    assert float(slope) == pytest.approx(-1 / probability, rel=1e-12)


class Largest(TorchDispatchMode):
    """The most elements of any floating-point tensor that is made inside, and whether a one-hot vector is."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements, self.one_hot = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.one_hot |= "one_hot" in str(func)
        made = [t for t in (out if isinstance(out, tuple | list) else [out]) if isinstance(t, Tensor)]
        self.elements = max([self.elements, *(t.numel() for t in made if t.is_floating_point())])
        return out


def test_loss_allocates_no_one_hot_targets_and_no_dense_logits__D_idx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward never make N x V numbers, and index the right probability."""
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 20_000)
    model = build_causal_model(model_config("llama", vocab_size=2000, context=256))
    batch = next_tokens(random_batch([200], vocab_size=2000).input_ids.numpy(), np.array([200]))
    with Largest() as seen:
        CausalObjective().loss(model, batch, layout_of(batch)).total.backward()
    assert not seen.one_hot
    assert seen.elements <= 2 * 200 * 200  # the attention of its two heads; all logits would be 398,000
    with Largest() as all_logits:
        token_losses(model(batch, layout_of(batch), batch.label_rows), *model.unembedding, batch.labels)
    assert all_logits.elements == 199 * 2000


def test_teacher_forcing_of_the_worked_examples__D_tf() -> None:
    """ "O sol" -> "brilha": 1.204 with a probability of 0.3, 2.303 with 0.1, although "forte" was given 0.6."""
    assert loss_of([0.1, 0.2, 0.3, 0.2, 0.2], 2) == pytest.approx(1.204, abs=0.0005)
    assert loss_of([0.05, 0.05, 0.1, 0.6, 0.2], 2) == pytest.approx(2.303, abs=0.0005)


def test_teacher_forcing_feeds_the_true_prefix_at_every_step__D_tf(model: CausalLanguageModel) -> None:
    """One parallel pass gives, word by word, the losses of feeding each true prefix alone, whatever is predicted."""
    batch = sentence()
    (sample,) = unpack(batch)
    at_once = token_losses(model(batch, layout_of(batch), batch.label_rows), *model.unembedding, batch.labels)
    for stop, together in enumerate(at_once, start=1):
        prefix = next_tokens(sample.input_ids[:stop], np.array([stop]))
        vectors = model(prefix, layout_of(prefix))[-1:]
        alone = token_losses(vectors, *model.unembedding, torch.tensor(sample.input_ids[stop : stop + 1]))
        torch.testing.assert_close(alone[0], together)
