"""Negative sampling: a binary decision for the right class against some wrong ones (Mikolov et al. 2013)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from palavra.errors import PalavraError
from palavra.model.task_outputs.class_trees import Int64Array
from palavra.model.task_outputs.layers import Softmax, _wide


class NegativeSampling(Softmax):
    """A linear layer trained by logistic regression: each row's class y against k others (arXiv:1310.4546, equation 4).

    The loss of a row is -log sigmoid(z_y) - sum_j log sigmoid(-z_j), over k classes j that are drawn uniformly, with
    replacement, from the K - 1 wrong ones; if k >= K - 1, over all of them, once each. In evaluation the sum is its
    expectation, k / (K - 1) times the sum over all wrong classes. At the optimum sigmoid(z_c) = p_c / (p_c + (1 - p_c)
    k / (K - 1)): it puts the classes in the order of their probabilities p_c, but is none of them itself, and does not
    sum to 1. Drawing frequent classes more often, as for word vectors, would not keep that order.
    """

    def __init__(self, width: int, counts: Int64Array, negatives: int):
        super().__init__(width, counts)
        self.negatives = min(negatives, len(counts) - 1)

    def draw(self, labels: Tensor) -> Tensor:
        """Draw wrong classes for each of the labels (M,): (M, k) int64."""
        others = self.classes - 1
        if self.negatives == others:
            drawn = torch.arange(others, device=labels.device).expand(len(labels), others)
        else:
            drawn = torch.randint(others, (len(labels), self.negatives), device=labels.device)
        # The wrong classes are all but the label: those from it on are one further.
        return drawn + (drawn >= labels[:, None])

    def _losses(self, hidden: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        if smoothing:
            raise PalavraError("label smoothing does not apply to output negative-sampling: leave it out")
        if not self.training:
            return expected_losses(_wide(self.linear(hidden)), labels, self.negatives)
        # One gather for both: the gradient of each is as large as the layer.
        ids = torch.cat([labels[:, None], self.draw(labels)], 1)
        vectors, biases = F.embedding(ids, self.linear.weight), self.linear.bias[ids]
        logits = _wide(torch.einsum("md,mkd->mk", hidden, vectors.to(hidden)) + biases)
        right, wrong = F.softplus(-logits[:, 0]), F.softplus(logits[:, 1:]).sum(1)
        found: Tensor = right + wrong
        return found

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Return the logarithm of the score of every class, log sigmoid(z): (M, D) -> (M, K)."""
        return F.logsigmoid(_wide(self.linear(_wide(hidden))))


def expected_losses(logits: Tensor, labels: Tensor, negatives: int) -> Tensor:
    """Return the mean loss of each row (M,) over all draws of `negatives`, from logits (M, K) and labels (M,)."""
    wrong = F.softplus(logits)
    own = logits.gather(1, labels[:, None])[:, 0]
    found: Tensor = F.softplus(-own) + (wrong.sum(1) - F.softplus(own)) * (negatives / (logits.shape[1] - 1))
    return found
