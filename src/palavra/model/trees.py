"""Binary trees over classes, for the hierarchical softmax.

A tree of K classes is one array (2K - 1,) int64 of its vertices in breadth-first order: a class id for a leaf, -1 for
a node. The children of the j-th node are the vertices 2j + 1 (left) and 2j + 2, so nothing else is needed.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from palavra.errors import PalavraError

TreeName = Literal["huffman", "balanced"]
Int64Array = npt.NDArray[np.int64]

DEEPEST = 128  # Huffman's tree of counts that fit int64 is not as deep; a tree from elsewhere may pretend to be
DAMAGED = "the tree of the hierarchical softmax is damaged: take the model from another checkpoint"


def balanced_tree(counts: Int64Array) -> Int64Array:
    """The complete binary tree, ids from left to right: depths differ by at most 1. See the module."""
    classes = len(counts)
    # Breadth-first, the leaves of the last but one level come first, and they stand to the right of the deepest.
    shallow = 2 ** int(classes - 1).bit_length() - classes
    return np.concatenate(
        [np.full(classes - 1, -1), np.arange(classes - shallow, classes), np.arange(classes - shallow)]
    )


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


TREES: dict[TreeName, Callable[[Int64Array], Int64Array]] = {"huffman": huffman_tree, "balanced": balanced_tree}
