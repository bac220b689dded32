"""What the method claims of the loss, the head, the optimizer and the vectors: the rows marked exact, one test a row.

Each test is named by the row's id. The numbers are those of the method's worked examples, recomputed by the library.
Where an example rounds or errs, the test holds what is true and says so.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders.claims import SENTENCES, portuguese_model
from builders.models import EveryThird, build_model, layout_of, model_config, random_batch, run, token_losses, unpack
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from palavra.batch import Batch, Sample, pack
from palavra.inference.masked import MaskedModel
from palavra.losses import Loss, cross_entropy, linear_cross_entropy, softmax_gradient, token_loss
from palavra.report import charts
from palavra.training.config import OptimizerConfig
from palavra.training.optimizers import build_optimizers

CAT = "O gato [MASK] correu rapidamente pela casa."


@pytest.fixture(scope="module")
def palavra() -> MaskedModel:
    return portuguese_model()


def distributions(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def one_hot(index: int, size: int) -> Tensor:
    return F.one_hot(torch.tensor(index), size).double()


def rest(*given: float, size: int = 6) -> list[float]:
    """Probabilities that begin with the given ones, the rest of the vocabulary sharing what is left."""
    left = (1 - sum(given)) / (size - len(given))
    return [*given, *[left] * (size - len(given))]


def loss_of(probabilities: Tensor, labels: list[int]) -> Loss:
    """The library's loss of a model that gives these probabilities (M, V)."""
    vocab = probabilities.shape[1]
    logits, identity = torch.log(probabilities), torch.eye(vocab, dtype=probabilities.dtype)
    return linear_cross_entropy(logits, identity, None, torch.tensor(labels))


def softmax_of(logits: Tensor) -> Tensor:
    """The distribution inside the library's own loss: its gradient plus the one-hot truth."""
    labels = torch.zeros(len(logits), dtype=torch.int64)
    _, gradient = softmax_gradient(logits, labels)
    return gradient + F.one_hot(labels, logits.shape[1]).to(gradient.dtype)


PROBABILITIES = st.lists(st.floats(0.001, 1), min_size=2, max_size=8).map(
    lambda weights: torch.tensor(weights, dtype=torch.float64) / sum(weights)
)


def test_cross_entropy_of_the_worked_example__A_H() -> None:
    """ "O cachorro [MASK] correu na rua": 2.30 before training, 0.22 after."""
    truth = one_hot(1, 5)
    before = distributions(rest(0.01, 0.1, 0.05, 0.02, size=5))[0]
    after = distributions(rest(0.001, 0.8, 0.03, 0.002, size=5))[0]
    assert float(cross_entropy(truth, before)) == pytest.approx(2.30, abs=0.005)
    assert float(cross_entropy(truth, after)) == pytest.approx(0.22, abs=0.005)
    for q, probability in ((before, 0.1), (after, 0.8)):
        assert float(cross_entropy(truth, q)) == pytest.approx(-math.log(probability), rel=1e-12)
        assert float(token_loss(q[1])) == pytest.approx(float(cross_entropy(truth, q)), rel=1e-12)
        assert float(loss_of(q[None], [1]).mean) == pytest.approx(float(cross_entropy(truth, q)), rel=1e-12)


@given(PROBABILITIES, st.data())
def test_cross_entropy_of_a_one_hot_target_is_its_negative_log_probability__A_H(q: Tensor, data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(q) - 1))
    found = cross_entropy(one_hot(target, len(q)), q)
    torch.testing.assert_close(found, token_loss(q[target]))
    torch.testing.assert_close(found, loss_of(q[None], [target]).total)


def test_minimizing_the_cross_entropy_maximizes_the_likelihood__A_L4_1() -> None:
    """The loss is minus the log-likelihood of the masked tokens, and so are its gradients."""
    model = build_model(model_config(), torch.float64)
    batch = random_batch([9, 5])
    layout = layout_of(batch)
    loss = EveryThird().loss(model, batch, layout)
    distribution = torch.softmax(model.logits(model(batch, layout)[batch.label_rows]), -1)
    likelihood = distribution[torch.arange(batch.labelled), batch.labels].prod()
    torch.testing.assert_close(loss.total, -torch.log(likelihood))
    parameters = list(model.parameters())
    down = torch.autograd.grad(loss.total, parameters, retain_graph=True)
    up = torch.autograd.grad(torch.log(likelihood), parameters)
    for one, other in zip(down, up, strict=True):
        torch.testing.assert_close(one, -other)


@given(PROBABILITIES, st.data())
def test_cross_entropy_is_never_below_the_entropy_nor_zero__A_L4_2(p: Tensor, data: st.DataObject) -> None:
    """H(p, q) = H(p) + KL(p, q). It is zero only for a one-hot p = q, not for every p = q as the method says."""
    weights = data.draw(st.lists(st.floats(0.001, 1), min_size=len(p), max_size=len(p)))
    q = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    entropy, crossed = float(cross_entropy(p, p)), float(cross_entropy(p, q))
    assert entropy >= 0
    assert crossed >= entropy - 1e-12
    divergence = float(F.kl_div(torch.log(q), p, reduction="sum"))
    assert crossed == pytest.approx(entropy + divergence, abs=1e-9)
    if float((p - q).abs().max()) > 1e-3:
        assert crossed > entropy
    assert float(cross_entropy(one_hot(0, len(p)), one_hot(0, len(p)))) == 0.0
    assert entropy > 0


def test_logits_are_hidden_states_times_the_transposed_embedding__A_head() -> None:
    """u = h E^T, then softmax, then the mean over all masked tokens of the batch, not over sequences."""
    model = build_model(model_config("bert"), torch.float64)
    samples = unpack(random_batch([12, 2, 7]))
    batch = pack(samples)
    hidden = model.head(run(model, batch)[batch.label_rows])
    embedding = model.transformer.embeddings.token.weight
    weight, bias = model.unembedding
    assert weight is embedding
    assert bias is not None
    logits = hidden @ embedding.T + bias
    torch.testing.assert_close(model.logits(run(model, batch)[batch.label_rows]), logits)
    terms = token_loss(torch.softmax(logits, -1)[torch.arange(batch.labelled), batch.labels])
    torch.testing.assert_close(token_losses(hidden, weight, bias, batch.labels), terms)
    loss = EveryThird().loss(model, batch, layout_of(batch))
    assert loss.count == batch.labelled == 4 + 1 + 2
    torch.testing.assert_close(loss.mean, terms.mean())
    alone = [EveryThird().loss(model, one, layout_of(one)) for one in (pack([sample]) for sample in samples)]
    torch.testing.assert_close(sum(one.total for one in alone) / sum(one.count for one in alone), loss.mean)
    mean_of_means = sum(float(one.mean.detach()) for one in alone) / len(alone)
    assert abs(mean_of_means - float(loss.mean.detach())) > 0.01


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 100.0, 1e4])
def test_softmax_gives_a_valid_distribution__A_T3(dtype: torch.dtype, size: float) -> None:
    torch.manual_seed(0)
    logits = torch.cat([torch.empty(20, 50).uniform_(-size, size), torch.tensor([[size, -size] * 25, [-size] * 50])])
    found = softmax_of(logits.to(dtype)).double()
    assert torch.isfinite(found).all()
    assert (found >= 0).all()
    # A bfloat16 number has 8 significant bits: 50 of them add up to one within 50 roundings.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(found.sum(-1), torch.ones(22, dtype=torch.float64), atol=tolerance, rtol=0)
    loss = linear_cross_entropy(logits.to(dtype), torch.eye(50, dtype=dtype), None, torch.zeros(22, dtype=torch.int64))
    assert torch.isfinite(loss.total)
    assert float(loss.total) >= 0


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=8), st.data())
def test_gradient_of_the_loss_is_prediction_minus_target__A_T3_1(values: list[float], data: st.DataObject) -> None:
    """d loss / d u = y - p, so a small step against it lowers the loss."""
    target = data.draw(st.integers(0, len(values) - 1))
    u = torch.tensor([values], dtype=torch.float64, requires_grad=True)
    label, identity = torch.tensor([target]), torch.eye(len(values), dtype=torch.float64)
    loss = linear_cross_entropy(u, identity, None, label).total
    (gradient,) = torch.autograd.grad(loss, u)
    expected = torch.softmax(u.detach(), -1) - one_hot(target, len(values))
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(softmax_gradient(u.detach(), label)[1], expected)
    by_definition = cross_entropy(one_hot(target, len(values)), torch.softmax(u, -1)).sum()
    torch.testing.assert_close(torch.autograd.grad(by_definition, u)[0], expected)
    if float(gradient.abs().max()) > 1e-6:
        assert linear_cross_entropy(u.detach() - 0.1 * gradient, identity, None, label).total < loss


@given(PROBABILITIES, st.data())
def test_permuting_the_classes_leaves_the_loss_unchanged__A_T3_2(q: Tensor, data: st.DataObject) -> None:
    order = torch.tensor(data.draw(st.permutations(range(len(q)))))
    p = q.flip(0)
    torch.testing.assert_close(cross_entropy(p[order], q[order]), cross_entropy(p, q))
    target = data.draw(st.integers(0, len(q) - 1))
    moved = int((order == target).nonzero())
    torch.testing.assert_close(loss_of(q[order][None], [moved]).total, loss_of(q[None], [target]).total)


def test_loss_of_the_masked_word_preto__A_ex2() -> None:
    """y = [0.02, 0.01, 0.93, 0.01, 0.03], "preto" third: 0.07."""
    y = distributions([0.02, 0.01, 0.93, 0.01, 0.03])[0]
    assert float(y.sum()) == pytest.approx(1.0)
    loss = cross_entropy(one_hot(2, 5), y)
    assert float(loss) == pytest.approx(0.07, abs=0.005)
    assert float(loss) == pytest.approx(float(token_loss(y[2])))
    assert float(loss) == pytest.approx(float(loss_of(y[None], [2]).mean))


def test_softmax_of_the_example_logits__A_ex2() -> None:
    """The y of the example is not the softmax of its u, which gives "preto" 0.37, though it puts it first too."""
    u = distributions([0.1, 0.05, 0.9, 0.02, 0.03])
    y = softmax_of(u)[0]
    exponentials = [math.exp(value) for value in u[0].tolist()]
    assert y.tolist() == pytest.approx([e / sum(exponentials) for e in exponentials])
    assert int(y.argmax()) == 2
    assert float(y[2]) == pytest.approx(0.369, abs=0.0005)
    identity = torch.eye(5, dtype=torch.float64)
    loss = float(linear_cross_entropy(u, identity, None, torch.tensor([2])).mean)
    assert loss == pytest.approx(0.997, abs=0.0005)
    assert loss == pytest.approx(float(token_loss(y[2])))


def test_gradient_step_of_the_worked_example__A_adam() -> None:
    """W_Q[i, j] = 0.5, gradient 0.01, rate 0.001: plain gradient descent gives 0.49999."""
    weight = nn.Parameter(torch.tensor([[0.5]], dtype=torch.float64))
    weight.grad = torch.tensor([[0.01]], dtype=torch.float64)
    config = OptimizerConfig(name="sgd", learning_rate=0.001, momentum=0.0, weight_decay=0.0)
    build_optimizers([("w", weight)], config).step()
    assert weight.item() == pytest.approx(0.49999, abs=1e-15)


def test_adam_updates_equal_a_float64_loop__A_adam() -> None:
    """Kingma and Ba 2015, algorithm 1, on the masked-language-model loss of a small model."""
    model, twin = (build_model(model_config(), torch.float64) for _ in range(2))
    optimizers = build_optimizers(
        model.named_parameters(), OptimizerConfig(name="adam", learning_rate=0.01, beta2=0.999, weight_decay=0.0)
    )
    theta = list(twin.parameters())
    m, v = ([torch.zeros_like(p) for p in theta] for _ in range(2))
    batch = random_batch([9, 5])
    for t in range(1, 4):
        optimizers.zero_grad()
        torch.autograd.backward(EveryThird().loss(model, batch, layout_of(batch)).mean)
        optimizers.step()
        gradients = torch.autograd.grad(EveryThird().loss(twin, batch, layout_of(batch)).mean, theta)
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(theta, gradients, strict=True)):
                m[i] = 0.9 * m[i] + 0.1 * g
                v[i] = 0.999 * v[i] + 0.001 * g**2
                p.sub_(0.01 * (m[i] / (1 - 0.9**t)) / ((v[i] / (1 - 0.999**t)).sqrt() + 1e-8))
    start = build_model(model_config(), torch.float64)
    moved = zip(model.named_parameters(), theta, start.parameters(), strict=True)
    for (name, found), expected, before in moved:
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-7)
        # The embedding of a token that is nowhere in the batch moves too: it is also a row of the head.
        assert bool((found != before).all() if found.ndim == 1 else (found != before).any()), name


def test_any_masked_token_gets_a_distribution__A_dist(palavra: MaskedModel) -> None:
    """Over the whole vocabulary, summing to one; the proposals are its best, sorted."""
    text = "O [MASK] preto correu [MASK] pela [MASK]."
    found = palavra.distribution(text)
    assert found.shape == (3, palavra.tokenizer.vocab_size)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(-1), torch.ones(3))
    blanks = palavra.fill(text, top=palavra.tokenizer.vocab_size)
    assert [blank.index for blank in blanks] == [0, 1, 2]
    ordinary = [i for i in range(palavra.tokenizer.vocab_size) if i not in palavra.tokenizer.special_ids]
    for blank, probabilities in zip(blanks, found, strict=True):
        shown = [fill.probability for fill in blank.fills]
        assert shown == pytest.approx(sorted(probabilities[ordinary].tolist(), reverse=True), rel=1e-5)
        best = int(probabilities[ordinary].argmax())
        assert blank.fills[0].token == palavra.tokenizer.token(ordinary[best])
        assert all(first >= second for first, second in pairwise(shown))


def test_distribution_is_the_softmax_of_the_logits_at_the_mask__A_dist(palavra: MaskedModel) -> None:
    tokenizer, model = palavra.tokenizer, palavra.model
    ids = [tokenizer.cls_id, *tokenizer.encode_prompt(CAT), tokenizer.sep_id]
    place = ids.index(tokenizer.mask_id)
    batch = tokens(ids)
    with torch.inference_mode():
        expected = torch.softmax(model.logits(run(model, batch, "reference"))[place], -1)
    torch.testing.assert_close(palavra.distribution(CAT)[0], expected)


def tokens(ids: list[int]) -> Batch:
    """One sequence of these ids."""
    return pack([Sample(input_ids=np.array(ids))])


def test_any_token_has_a_contextual_embedding__A_emb(palavra: MaskedModel) -> None:
    """The vectors of the last layer, one a token; a text's is the mean of all, with [CLS] and [SEP], or that of
    [CLS]."""
    tokenizer = palavra.tokenizer
    found = palavra.embed(SENTENCES[0], pooling="token")
    ids = tokenizer.encode(SENTENCES[0])
    with torch.inference_mode():
        hidden = run(palavra.model, tokens([tokenizer.cls_id, *ids, tokenizer.sep_id]), "reference").numpy()
    assert found.vectors.shape == (len(ids), 32)
    assert len(found.offsets) == len(ids)
    np.testing.assert_allclose(found.vectors, hidden[1:-1], atol=1e-5)
    np.testing.assert_allclose(palavra.embed(SENTENCES[0]).vectors, hidden.mean(0), atol=1e-5)
    np.testing.assert_allclose(palavra.embed(SENTENCES[0], "cls").vectors, hidden[0], atol=1e-5)


def test_embedding_of_a_text_does_not_depend_on_its_batch__A_emb(palavra: MaskedModel) -> None:
    """Texts embedded together get the vectors they get alone, in their own order."""
    for pooling in ("mean", "token"):
        together = palavra.embed(SENTENCES, pooling)
        for text, one in zip(SENTENCES, together, strict=True):
            assert one.text == text
            np.testing.assert_allclose(one.vectors, palavra.embed(text, pooling).vectors, atol=1e-5)


def test_same_word_has_another_embedding_in_another_context__A_C4(palavra: MaskedModel) -> None:
    """ "banco" of the square and "banco" of the money; the same sentence gives the same vectors."""

    def banco(text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        found = palavra.embed(text, pooling="token")
        start = text.index("banco")
        inside = [i for i, (a, b) in enumerate(found.offsets) if a >= start and b <= start + len("banco")]
        assert inside
        mean: np.ndarray[tuple[int], np.dtype[np.float32]] = found.vectors[inside].mean(0)
        return mean

    square, money = banco("Sentei no banco da praça."), banco("O dinheiro ficou no banco.")
    assert np.abs(square - money).max() > 0.1
    np.testing.assert_array_equal(square, banco("Sentei no banco da praça."))


def test_masked_loss_of_the_worked_examples__B_loss() -> None:
    """ "A [MASK] voa alto no céu verde": 0.36 and 0.91, mean 0.6365; then 0.11 and 0.36, mean 0.2310.

    The method averages the rounded losses, which gives 0.635 and 0.235.
    """
    first = distributions(rest(0.7, 0.1, 0.05), rest(0.1, 0.05, 0.05, 0.4))
    second = distributions(rest(0.9, 0.05, 0.01), rest(0.1, 0.05, 0.05, 0.7))
    labels = [0, 3]
    identity = torch.eye(6, dtype=torch.float64)
    for probabilities, terms, mean, published in (
        (first, [0.36, 0.91], 0.6365, 0.635),
        (second, [0.11, 0.36], 0.2310, 0.235),
    ):
        loss = loss_of(probabilities, labels)
        assert loss.count == 2
        assert float(loss.mean) == pytest.approx(mean, abs=5e-5)
        assert float(loss.mean) == pytest.approx(published, abs=5e-3)
        each = token_losses(torch.log(probabilities), identity, None, torch.tensor(labels))
        assert each.tolist() == pytest.approx(terms, abs=0.01)
        assert token_loss(probabilities[[0, 1], labels]).tolist() == pytest.approx(each.tolist())
    assert loss_of(second, labels).mean < loss_of(first, labels).mean


def test_loss_against_the_probability_is_its_logarithm__B_plot() -> None:
    """The report draws -log p; 0.7 is a low loss, 0.4 a high one."""
    probability = np.linspace(0.001, 1, 500)
    drawn = charts.negative_log(probability)
    np.testing.assert_allclose(drawn, token_loss(torch.from_numpy(probability)).numpy(), atol=1e-12)
    assert (np.diff(drawn) < 0).all()
