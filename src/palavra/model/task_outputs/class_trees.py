"""Binary trees over classes, for the hierarchical softmax.

A tree of K classes is one array (2K - 1,) int64 of its vertices in breadth-first order: a class id for a leaf, -1 for
a node. The children of the j-th node are the vertices 2j + 1 (left) and 2j + 2, so nothing else is needed.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile

import numpy as np
import numpy.typing as npt

from palavra.errors import PalavraError
from palavra.model.config import TreeName

Int64Array = npt.NDArray[np.int64]

DEEPEST = 128  # Huffman's tree of counts that fit int64 is not as deep; a tree from elsewhere may pretend to be
SMALLER_SIDE = 0.25  # of a node of `prefix_tree`, at least: the share of its classes
DAMAGED = "the tree of the hierarchical softmax is damaged: take the model from another checkpoint"


def build_tree(name: TreeName, counts: Int64Array, labels: Sequence[str] | None) -> Int64Array:
    """The tree of a name over classes of these training frequencies (K,); "prefix" needs their `labels` (K,). See the
    module."""
    match name:
        case "huffman":
            return huffman_tree(counts)
        case "balanced":
            return balanced_tree(len(counts))
        case "prefix":
            if labels is None:
                raise ValueError("the tree 'prefix' is made of the labels")
            return prefix_tree(labels)


def balanced_tree(classes: int) -> Int64Array:
    """The complete binary tree, ids from left to right: depths differ by at most 1. See the module."""
    # Breadth-first, the leaves of the last but one level come first, and they stand to the right of the deepest.
    shallow = 2 ** int(classes - 1).bit_length() - classes
    return np.concatenate(
        [np.full(classes - 1, -1), np.arange(classes - shallow, classes), np.arange(classes - shallow)]
    )


def prefix_tree(labels: Sequence[str]) -> Int64Array:
    """Ids from left to right, as in the balanced tree, but parted where neighbouring labels begin least alike: between
    two chapters rather than inside one, where labels are codes. Each side has a quarter of a node's classes or more, so
    that the depth stays a small multiple of log K. Of equally good places the one nearest to the middle. See the
    module."""
    alike = np.array([_beginning_alike(one, next_one) for one, next_one in pairwise(labels)])
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


def _beginning_alike(one: str, other: str) -> int:
    """Characters at the beginning that are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def huffman_tree(counts: Int64Array) -> Int64Array:
    """Huffman's tree (1952), by two queues (van Leeuwen 1976): frequent classes have short paths.

    Of equal counts the class goes before the joined node and the lower id before the higher, so that the tree
    is the same everywhere and the classes without rows make a balanced part of it. See the module.
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
    """For each class the vertices from its leaf up to the child of the root, (K, depth of the tree); then zeros.

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
    """From the root down, the places in each level of vertices that are nodes, as long as there are any."""
    inside, start, size = tree < 0, 0, 1
    while len(nodes := np.flatnonzero(inside[start : start + size])):
        yield nodes
        start, size = start + size, 2 * len(nodes)


def check_tree(tree: Int64Array) -> None:
    """Raises PalavraError for an array that is no tree over the classes 0 to K - 1."""
    inside = tree < 0
    known = np.cumsum(inside)[:-1]
    complete = np.array_equal(np.sort(tree[~inside]), np.arange((len(tree) + 1) // 2))
    # Every vertex below the root follows the node it hangs from.
    if not complete or not (known > np.arange(len(tree) - 1) // 2).all():
        raise PalavraError(DAMAGED)
