"""Binary trees over classes, for the hierarchical softmax.

A tree of K classes is one array (2K - 1,) int64 of its vertices in breadth-first order: a class id for a leaf, -1 for a
node. The children of the j-th node are the vertices 2j + 1 (left) and 2j + 2, so the array needs nothing else.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile

import numpy as np
import numpy.typing as npt

from palavra.errors import PalavraError
from palavra.model.config import TreeName

Int64Array = npt.NDArray[np.int64]

DEEPEST = 128  # a Huffman tree of int64 counts is less deep; a damaged tree may not be
SMALLER_SIDE = 0.25  # least fraction of a node's classes on each side in `prefix_tree`
DAMAGED = "the tree of the hierarchical softmax is damaged: take the model from another checkpoint"


def build_tree(name: TreeName, counts: Int64Array, labels: Sequence[str] | None) -> Int64Array:
    """Build the named tree over classes with these training frequencies (K,); "prefix" needs their `labels` (K,)."""
    match name:
        case "huffman":
            return huffman_tree(counts)
        case "balanced":
            return balanced_tree(len(counts))
        case "prefix":
            if labels is None:
                raise ValueError("the tree 'prefix' needs the labels")
            return prefix_tree(labels)


def balanced_tree(classes: int) -> Int64Array:
    """Build the complete binary tree with ids from left to right; depths differ by at most 1."""
    # Breadth-first, the leaves of the second-to-last level come first; they are to the right of the deepest.
    shallow = 2 ** int(classes - 1).bit_length() - classes
    return np.concatenate(
        [np.full(classes - 1, -1), np.arange(classes - shallow, classes), np.arange(classes - shallow)]
    )


def prefix_tree(labels: Sequence[str]) -> Int64Array:
    """Build a tree with ids from left to right, split between neighbours with the shortest common prefix.

    If labels are codes, that is between two chapters, not inside one. Each side has at least a quarter of a node's
    classes, so that the depth is a small multiple of log K. Ties are split nearest to the middle.
    """
    alike = np.array([_common_prefix(one, next_one) for one, next_one in pairwise(labels)])
    tree: list[int] = []
    level = [(0, len(labels))]
    while level:
        below = []
        for first, end in level:
            size = end - first
            if size == 1:
                tree.append(first)
                continue
            least = max(1, int(SMALLER_SIDE * size))
            places = np.arange(first + least, end - least + 1)
            how_alike = alike[places - 1]
            best = places[how_alike == how_alike.min()]
            place = int(best[np.abs(2 * best - first - end).argmin()])
            tree.append(-1)
            below += [(first, place), (place, end)]
        level = below
    return np.array(tree, dtype=np.int64)


def _common_prefix(one: str, other: str) -> int:
    """Return the length of the common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def huffman_tree(counts: Int64Array) -> Int64Array:
    """Build Huffman's tree (1952) with two queues (van Leeuwen 1976): frequent classes have short paths.

    For equal counts, a class comes before a joined node and a lower id before a higher one, so that the tree is
    deterministic and classes without rows form a balanced part of it.
    """
    classes = len(counts)
    order = np.argsort(counts, kind="stable")
    sizes = counts[order].tolist()
    children = np.empty((classes - 1, 2), dtype=np.int64)
    joined: list[int] = []
    leaf = node = 0
    for made in range(classes - 1):
        size = 0
        for side in (0, 1):
            if leaf < classes and (node == len(joined) or sizes[leaf] <= joined[node]):
                children[made, side], size, leaf = order[leaf], size + sizes[leaf], leaf + 1
            else:
                children[made, side], size, node = classes + node, size + joined[node], node + 1
        joined.append(size)
    level, levels = np.array([2 * classes - 2]), []
    while len(level):
        levels.append(np.where(level < classes, level, -1))
        level = children[level[level >= classes] - classes].reshape(-1)
    return np.concatenate(levels)


def tree_paths(tree: Int64Array) -> Int64Array:
    """Return for each class the vertices from its leaf up to the child of the root, then zeros: (K, depth).

    Raises PalavraError for a tree deeper than `DEEPEST`.
    """
    nodes, leaves = np.flatnonzero(tree < 0), np.flatnonzero(tree >= 0)
    vertex = np.empty(len(leaves), dtype=np.int64)
    vertex[tree[leaves]] = leaves
    steps: list[Int64Array] = []
    while vertex.any():
        if len(steps) == DEEPEST:
            raise PalavraError(DAMAGED)
        steps.append(vertex)
        vertex = np.where(vertex > 0, nodes[(vertex - 1) // 2], 0)
    return np.stack(steps, 1)


def tree_levels(tree: Int64Array) -> Iterator[Int64Array]:
    """Yield, for each level from the root down, the positions of its inner nodes among its vertices."""
    inside, start, size = tree < 0, 0, 1
    while len(nodes := np.flatnonzero(inside[start : start + size])):
        yield nodes
        start, size = start + size, 2 * len(nodes)


def check_tree(tree: Int64Array) -> None:
    """Raise PalavraError unless the array is a tree over the classes 0 to K - 1."""
    inside = tree < 0
    known = np.cumsum(inside)[:-1]
    complete = np.array_equal(np.sort(tree[~inside]), np.arange((len(tree) + 1) // 2))
    # Every vertex below the root comes after its parent.
    if not complete or not (known > np.arange(len(tree) - 1) // 2).all():
        raise PalavraError(DAMAGED)
