"""Negative sampling: the loss of a float64 loop, uniform draws of wrong classes, and the order of the probabilities."""

import math

import pytest
import torch
from builders.task_outputs import CLASSES, WIDTH, build, gradients, rows_of
from torch import Tensor

from palavra.model.config import OutputConfig
from palavra.model.task_outputs.negative_sampling import NegativeSampling


def output_with(negatives: int) -> NegativeSampling:
    output = build(OutputConfig(name="negative-sampling", negatives=negatives))
    assert isinstance(output, NegativeSampling)
    return output


def by_hand(output: NegativeSampling, hidden: Tensor, labels: Tensor, drawn: Tensor) -> float:
    """The chapter's binary logistic loss in plain Python floats: the right label against random ones."""
    weight, bias = output.linear.weight.tolist(), output.linear.bias.tolist()
    total = 0.0
    for row, label, wrong in zip(hidden.tolist(), labels.tolist(), drawn.tolist(), strict=True):
        for sign, number in [(1, label), *((-1, each) for each in wrong)]:
            z = math.fsum(h * w for h, w in zip(row, weight[number], strict=True)) + bias[number]
            total -= math.log(1 / (1 + math.exp(-sign * z)))
    return total


def test_the_loss_is_one_right_label_against_k_wrong_ones__E_neg() -> None:
    output = output_with(7).train()
    hidden, labels = rows_of(11)
    torch.manual_seed(3)
    drawn = output.draw(labels)
    assert drawn.shape == (11, 7)
    torch.manual_seed(3)
    assert output.total_loss(hidden, labels).item() == pytest.approx(by_hand(output, hidden, labels, drawn), rel=1e-12)


@pytest.mark.parametrize("negatives", [CLASSES - 1, 10**6])
def test_all_negatives_are_every_wrong_class_once__E_neg(negatives: int) -> None:
    output = output_with(negatives)
    hidden, labels = rows_of(9)
    drawn = output.train().draw(labels)
    for label, wrong in zip(labels.tolist(), drawn.tolist(), strict=True):
        assert sorted([label, *wrong]) == list(range(CLASSES))
    found, expected = output.total_loss(hidden, labels), output.eval().total_loss(hidden, labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(output, found), gradients(output, expected))


def test_draws_are_uniform_over_the_wrong_classes__E_neg() -> None:
    output = output_with(10)
    labels = torch.full((4000,), 17)
    seen = torch.bincount(output.draw(labels).flatten(), minlength=CLASSES).double()
    assert seen[17] == 0
    expected = 40_000 / (CLASSES - 1)
    others = torch.cat([seen[:17], seen[18:]])
    assert ((others - expected).abs() < 5 * math.sqrt(expected)).all()


def test_the_gradient_of_training_is_right_on_average__E_neg() -> None:
    output = output_with(5)
    hidden, labels = rows_of(3)
    expected = torch.cat([each.flatten() for each in gradients(output, output.eval().total_loss(hidden, labels))])
    output.train()
    draws = 2000
    many = [gradients(output, output.total_loss(hidden.repeat(20, 1), labels.repeat(20))) for _ in range(draws // 20)]
    mean = sum(torch.cat([each.flatten() for each in one]) for one in many) / draws
    assert isinstance(mean, Tensor)
    assert (mean - expected).norm() < 0.1 * expected.norm()


def test_scores_keep_the_order_of_the_probabilities_but_are_none__E_neg() -> None:
    """At the optimum of 5 classes with known probabilities, whose frequencies differ much."""
    probabilities = torch.tensor([0.5, 0.25, 0.15, 0.08, 0.02], dtype=torch.float64)
    labels = torch.repeat_interleave(torch.arange(5), (probabilities * 100).long())
    output = NegativeSampling(WIDTH, torch.bincount(labels).numpy(), 2).double().eval()
    hidden = torch.zeros(100, WIDTH, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(output.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = output.total_loss(hidden, labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    scores = output.log_probabilities(hidden[:1])[0].exp().detach()
    torch.testing.assert_close(scores, probabilities / (probabilities + (1 - probabilities) / 2), rtol=1e-3, atol=0)
    assert (scores.diff() < 0).all()
    assert scores.sum() > 1.3
