"""Output layers of a classification head: from a vector to a distribution over few or very many classes.

`Softmax` computes every class for every row. The others train many classes at less cost: `Hierarchical` with a tree of
binary decisions, `Sampled` with a sample of the classes, `Adaptive` with short vectors for rare classes. These give
exact probabilities; `negative_sampling.NegativeSampling` gives scores. Except in `Adaptive`, no shape in a loss depends
on the labels, so the host never waits for the device.
Legend: M rows, D width, K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palavra.errors import PalavraError
from palavra.model.config import TreeName
from palavra.model.task_outputs.class_trees import Int64Array, build_tree, check_tree, tree_levels, tree_paths

INITIALIZER_RANGE = 0.02  # standard deviation of new weights, BERT's
COVERAGES = (0.8, 0.95)  # fractions of the training rows after which the head and the first tail of Adaptive end
ADAPTIVE_CLASSES = 100  # with fewer classes it has no advantage
LINE_STEPS = 2**40  # steps of one negative on the line that `Sampled` draws from: finer than the rarest class
ADAPTIVE_DIVISOR = 4  # the width of a tail is that of the part before divided by this (Grave et al. 2017)


class ClassifierOutput(nn.Module, ABC):
    """The interface of all output layers.

    `counts` (K,) int64 is saved with the parameters: to load an output, build one from the saved counts first. Products
    run in the autocast dtype if autocast is on; all else in float32, or float64 for float64 input.
    """

    counts: Tensor

    def __init__(self, counts: Int64Array):
        super().__init__()
        self.register_buffer("counts", torch.from_numpy(counts.copy()))
        cast(Any, self).register_load_state_dict_post_hook(_derive_again)

    @property
    def classes(self) -> int:
        """K."""
        return len(self.counts)

    def total_loss(
        self, hidden: Tensor, labels: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
    ) -> Tensor:
        """Return the summed loss of M rows in nats, a scalar in float32 or wider; the number of rows is the count.

        hidden (M, D), labels (M,) int64. `weights` (K,), finite and not negative, scale the rows by their classes; they
        are scaled to a mean of 1 over the training rows, so that the learning rate keeps its meaning. `smoothing` is
        the fraction of each row's target that is spread evenly over the classes (Szegedy et al. 2016,
        arXiv:1512.00567), at the cost of a pass over all K. The spread part is weighted by the row's own class; torch's
        `cross_entropy` weights it by the class it falls on and so trains rows of frequent classes towards rare ones.
        Raises PalavraError for weights of another length and for a smoothing outside [0, 1).
        """
        if not 0 <= smoothing < 1:
            raise PalavraError(f"label smoothing is {smoothing}: it must be at least 0 and below 1")
        wide = _wide(hidden)
        losses = self._losses(wide, labels, smoothing)
        return (losses if weights is None else losses * self.balanced(weights.to(wide))[labels]).sum()

    @property
    def inverse_frequencies(self) -> Tensor:
        """Class weights (K,) float32 that give all classes with training rows the same total weight."""
        return 1 / self.counts.clamp(min=1)

    def balanced(self, weights: Tensor) -> Tensor:
        """Scale class weights (K,) to a mean of 1 over the training rows, or over the classes if there are no rows."""
        if weights.shape != self.counts.shape:
            raise PalavraError(f"there are {len(weights)} class weights for {self.classes} classes: give one for each")
        rows = (self.counts + (self.counts.sum() == 0)).to(weights.dtype)
        return weights * (rows.sum() / (rows @ weights))

    @abstractmethod
    def _losses(self, hidden: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        """Return the unweighted loss of each row (M,), in float32 or wider like `hidden` (M, D)."""

    def _with_smoothing(self, losses: Tensor, hidden: Tensor, smoothing: float) -> Tensor:
        """Return the smoothed losses of rows, given -log p of their labels (M,)."""
        return _smoothed(losses, -self.log_probabilities(hidden).mean(1), smoothing) if smoothing else losses

    @abstractmethod
    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Return the exact log p (of `NegativeSampling`, the log of its scores) of every class: hidden (M, D) ->
        (M, K), float32 or wider."""

    def derive(self) -> None:
        """Recompute the buffers that depend on saved ones, after loading."""


def _derive_again(module: nn.Module, _: object) -> None:
    assert isinstance(module, ClassifierOutput)
    module.derive()


def _wide(values: Tensor) -> Tensor:
    """Convert to float32, unless wider already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _smoothed(losses: Tensor, means: Tensor, smoothing: float) -> Tensor:
    """Combine the losses of the labels (M,) with the mean losses over all classes (M,)."""
    return (1 - smoothing) * losses + smoothing * means


class Softmax(ClassifierOutput):
    """A linear layer (D K + K parameters) and the softmax over all classes."""

    def __init__(self, width: int, counts: Int64Array):
        super().__init__(counts)
        self.linear = nn.Linear(width, len(counts))
        nn.init.normal_(self.linear.weight, std=INITIALIZER_RANGE)
        nn.init.zeros_(self.linear.bias)

    def _losses(self, hidden: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        losses: Tensor = F.cross_entropy(
            _wide(self.linear(hidden)), labels, label_smoothing=smoothing, reduction="none"
        )
        return losses

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """See `ClassifierOutput`."""
        return torch.log_softmax(_wide(self.linear(_wide(hidden))), 1)


class Sampled(Softmax):
    """`Softmax` trained on a sample of the classes (Bengio and Senecal 2008; Jean et al. 2015, arXiv:1412.2007).

    In evaluation it equals `Softmax`, including the loss. All rows of a step share the negatives. Class k, with n_k
    training rows, is drawn pi_k = min(1, c (n_k + 1)) times on average, with c such that these sum to `samples`. The
    classes form a line of that length, on which class k has length pi_k, and one point is drawn uniformly from each
    unit (stratified sampling with torch's global generator), so classes with pi_k = 1 are always drawn. log pi_k is
    subtracted from each negative's logit, and a row's gold class counts once, so the sum of exponentials is unbiased.
    Its logarithm, and so the gradient, is biased: less with more samples, and not at all if all classes are drawn.
    """

    inclusion: Tensor
    line: Tensor
    ends: Tensor

    def __init__(self, width: int, counts: Int64Array, samples: int):
        super().__init__(width, counts)
        self.samples = min(samples, len(counts))
        self.derive()

    def derive(self) -> None:
        """Set `inclusion` (K,) float32: pi; `line` (K,): the classes in their order on the line, the certain ones
        first; and `ends` (K,): where each ends, in steps of 1 / `LINE_STEPS`."""
        found = inclusion_probabilities(self.counts.cpu().numpy() + 1.0, self.samples)
        line = np.argsort(-found, kind="stable")
        # Integers, so that a conversion of the module's dtype does not round them.
        ends = np.rint(np.cumsum(found[line]) * LINE_STEPS).astype(np.int64)
        ends[-1] = self.samples * LINE_STEPS
        for name, values in {"inclusion": found.astype(np.float32), "line": line, "ends": ends}.items():
            self.register_buffer(name, torch.from_numpy(values).to(self.counts.device), persistent=False)

    def draw(self) -> Tensor:
        """Draw the ids of a step's negatives (samples,) int64; a class can occur more than once."""
        units = torch.arange(self.samples, device=self.ends.device) * LINE_STEPS
        points = units + torch.randint(LINE_STEPS, units.shape, device=self.ends.device)
        return self.line[torch.searchsorted(self.ends, points, right=True)]

    def _losses(self, hidden: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        if not self.training:
            return super()._losses(hidden, labels, smoothing)
        weight, bias = self.linear.weight, self.linear.bias
        drawn = self.draw()
        # One gather for both: the gradient of each is as large as the layer.
        ids = torch.cat([labels, drawn])
        parts = len(labels), len(drawn)
        gold_vectors, vectors = F.embedding(ids, weight).split(parts)
        gold_bias, biases = bias.index_select(0, ids).split(parts)
        gold: Tensor = (hidden * gold_vectors).sum(1) + gold_bias
        logits = _wide(F.linear(hidden, vectors)) + (biases - self.inclusion[drawn].to(hidden).log())
        logits = logits.masked_fill(labels[:, None] == drawn, -torch.inf)
        log_sum: Tensor = torch.logsumexp(torch.cat([gold[:, None], logits], 1), 1)
        if not smoothing:
            return log_sum - gold
        # The mean of all logits is the logit of the mean vector.
        mean = (hidden * weight.mean(0)).sum(1) + bias.mean()
        return _smoothed(log_sum - gold, log_sum - mean, smoothing)


def inclusion_probabilities(sizes: npt.NDArray[np.float64], samples: int) -> npt.NDArray[np.float64]:
    """Return min(1, c sizes) with c such that they sum to `samples`, or all 1 if K <= samples; sizes (K,) > 0."""
    if samples >= len(sizes):
        return np.ones(len(sizes))
    ordered = np.sort(sizes)[::-1]
    rest = np.cumsum(ordered[::-1])[::-1]
    scales = (samples - np.arange(samples)) / rest[:samples]
    # The largest classes are certain; c spreads the remainder over the others once none of them exceeds 1.
    certain = np.argmax(scales * ordered[:samples] <= 1)
    found: npt.NDArray[np.float64] = np.minimum(1.0, scales[certain] * sizes)
    return found


class Hierarchical(ClassifierOutput):
    """A binary tree whose leaves are the classes (Morin and Bengio 2005): K - 1 nodes of D + 1 parameters.

    p(class) is the product, along its path from the root, of sigmoid(v_n h + b_n) for a left turn at node n and
    sigmoid(-v_n h - b_n) for a right turn. A path has about log2 K nodes in a balanced tree, and on average at most one
    more than the entropy of the classes in a Huffman tree (Mikolov et al. 2013, arXiv:1310.4546). Every path of a batch
    costs as much as the longest. The gradient of the nodes is dense, because torch's Adam and AdamW take no other; for
    large K it dominates a training step.

    A node separates two sets of classes by a plane, so similar classes should be close (Mnih and Hinton 2008). The
    balanced tree keeps the order of the ids, the prefix tree splits it at the shortest common prefix, and the Huffman
    tree keeps it only among equally frequent classes. `tree` (2K - 1,) int64 is described in `class_trees`.
    """

    tree: Tensor
    nodes: Tensor
    signs: Tensor
    leaves: Tensor
    parents: Tensor

    def __init__(self, width: int, counts: Int64Array, tree: TreeName, labels: Sequence[str] | None = None):
        super().__init__(counts)
        self.weight = nn.Parameter(torch.empty(len(counts) - 1, width))
        self.bias = nn.Parameter(torch.zeros(len(counts) - 1))
        nn.init.normal_(self.weight, std=INITIALIZER_RANGE)
        self.register_buffer("tree", torch.from_numpy(build_tree(tree, counts, labels)))
        self.derive()

    def derive(self) -> None:
        """Set the buffers of a tree of depth L. Raises PalavraError for a damaged tree.

        `nodes` (K, L) int32: the path from each class to the root; `signs` (K, L) int8: 1 for a left turn there, -1 for
        a right one, 0 beyond the root; `leaves` (K,): the vertex of each class; `parents` (K - 1,): the place of each
        node in its level, `level_nodes` of them in each.
        """
        tree = self.tree.cpu().numpy()
        check_tree(tree)
        paths = tree_paths(tree)
        # Beyond the root, repeat the first node of the path, which was already read; its gradient gets zeros.
        nodes = (np.where(paths > 0, paths, paths[:, :1]) - 1) // 2
        levels = list(tree_levels(tree))
        self.level_nodes = [len(level) for level in levels]
        derived = {
            "nodes": nodes.astype(np.int32),
            "signs": np.where(paths > 0, 2 * (paths % 2) - 1, 0).astype(np.int8),
            "leaves": paths[:, 0].copy(),
            "parents": np.concatenate(levels),
        }
        for name, values in derived.items():
            self.register_buffer(name, torch.from_numpy(values).to(self.tree.device), persistent=False)

    def _losses(self, hidden: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        nodes, signs = self.nodes[labels], self.signs[labels].to(self.weight)
        # Products of gathered vectors: a matrix product of all rows and all their nodes would be mostly unused.
        products = (F.embedding(nodes, self.weight) * hidden[:, None]).sum(2)
        biases = F.embedding(nodes, self.bias[:, None]).squeeze(2)
        losses = (F.softplus(-signs * (products + biases)) * signs.abs()).sum(1)
        return self._with_smoothing(losses, hidden, smoothing)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """See `ClassifierOutput`. Works level by level, in O(M K D), like `Softmax`."""
        logits = _wide(F.linear(_wide(hidden), self.weight, self.bias))
        decisions = torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], 2)
        level = logits.new_zeros(len(hidden), 1)
        found = [level]
        for parents, steps in zip(
            self.parents.split(self.level_nodes), decisions.split(self.level_nodes, 1), strict=True
        ):
            level = (level.index_select(1, parents)[:, :, None] + steps).flatten(1)
            found.append(level)
        return torch.cat(found, 1).index_select(1, self.leaves)


class Adaptive(ClassifierOutput):
    """torch's `AdaptiveLogSoftmaxWithLoss` (Grave et al. 2017, arXiv:1609.04309) over classes sorted by frequency.

    The head holds the classes of 80% of the training rows; two tails hold those of the next 15% and the last 5%, with
    vectors of D / 4 and D / 16. It gains little if all classes are equally frequent. The rows of each tail depend on
    the labels, so the host waits for the device once per loss. `ids` (K,) int64: the classes from frequent to rare.
    """

    ids: Tensor
    ranks: Tensor
    bounds: Tensor

    def __init__(self, width: int, counts: Int64Array):
        super().__init__(counts)
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(
            width, len(counts), adaptive_cutoffs(counts, width), div_value=ADAPTIVE_DIVISOR, head_bias=True
        )
        self.register_buffer("ids", torch.from_numpy(np.argsort(-counts, kind="stable")))
        self.derive()

    def derive(self) -> None:
        """Set `ranks` (K,), positions in `ids`, and `bounds`, ends of parts. Raises PalavraError for damaged ids."""
        ranks = torch.argsort(self.ids)
        if not torch.equal(self.ids[ranks], torch.arange(self.classes, device=self.ids.device)):
            raise PalavraError("the ids of the adaptive softmax are damaged: take the model from another checkpoint")
        self.register_buffer("ranks", ranks, persistent=False)
        self.register_buffer("bounds", torch.tensor(self.softmax.cutoffs, device=ranks.device), persistent=False)

    def _losses(self, hidden: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        # Like torch's forward, except that a tail without rows gets a gradient of zeros instead of None: the parameters
        # that an optimizer or an all-reduce sees must not depend on the batch.
        # Rows are sorted by rank, so that those of each tail are contiguous and one transfer reads all their counts.
        ranks, order = self.ranks[labels].sort()
        ordered = hidden.index_select(0, order)
        sizes = np.diff(torch.searchsorted(ranks, self.bounds).tolist(), prepend=0).tolist()
        parts = zip(
            self.softmax.cutoffs, self.softmax.tail, ordered.split(sizes)[1:], ranks.split(sizes)[1:], strict=False
        )
        inside = [ordered.new_zeros(sizes[0], dtype=_wide(ordered).dtype)]
        for low, tail, rows, theirs in parts:
            log_p = torch.log_softmax(_wide(tail(rows)), 1)
            inside.append(log_p.gather(1, (theirs - low)[:, None]).squeeze(1))
        head = torch.log_softmax(_wide(self.softmax.head(ordered)), 1)
        number = torch.bucketize(ranks, self.bounds[:-1], right=True)
        column = torch.where(number > 0, self.softmax.shortlist_size + number - 1, ranks)
        total = torch.cat(inside) + head.gather(1, column[:, None]).squeeze(1)
        return self._with_smoothing(-total.index_select(0, order.argsort()), hidden, smoothing)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """See `ClassifierOutput`; includes all tails."""
        wide = _wide(hidden)
        short = self.softmax.shortlist_size
        head = torch.log_softmax(_wide(self.softmax.head(wide)), 1)
        tails = [torch.log_softmax(_wide(tail(wide)), 1) for tail in self.softmax.tail]
        found = [head[:, :short], *(head[:, short + i, None] + tail for i, tail in enumerate(tails))]
        return torch.cat(found, 1)[:, self.ranks]


def adaptive_cutoffs(counts: Int64Array, width: int) -> list[int]:
    """Return the ranks where the head and the first tail end: the fewest classes that reach the `COVERAGES`.

    Raises PalavraError for too few classes or too short vectors.
    """
    classes, narrowest = len(counts), ADAPTIVE_DIVISOR ** len(COVERAGES)
    if classes < ADAPTIVE_CLASSES or width < narrowest:
        raise PalavraError(
            f"output.name is 'adaptive' for {classes} classes of width {width}: it needs {ADAPTIVE_CLASSES} classes "
            f"and width {narrowest} at least; use 'softmax'"
        )
    rows = np.sort(counts if counts.any() else np.ones_like(counts))[::-1].cumsum()
    first, second = (int(np.searchsorted(rows, fraction * rows[-1])) + 1 for fraction in COVERAGES)
    first = min(first, classes - 2)
    return [first, min(max(second, first + 1), classes - 1)]
