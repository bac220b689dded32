"""Trees over classes: what they are, how deep, and that damaged ones are refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from palavra.errors import PalavraError
from palavra.model.task_outputs.class_trees import (
    Int64Array,
    balanced_tree,
    check_tree,
    huffman_tree,
    prefix_tree,
    tree_levels,
    tree_paths,
)


def depths_of(tree: Int64Array) -> Int64Array:
    depths: Int64Array = (tree_paths(tree) > 0).sum(1)
    return depths


def test_a_tree_and_its_paths() -> None:
    """Class 2 hangs left from the root, 0 and 1 from the node on the right."""
    tree = np.array([-1, 2, -1, 0, 1])
    check_tree(tree)
    assert tree_paths(tree).tolist() == [[3, 2], [4, 2], [1, 0]]
    assert [level.tolist() for level in tree_levels(tree)] == [[0], [1]]


@pytest.mark.parametrize("tree", [[0, -1, 1], [-1, 0, 0], [-1, 0, -1, -1, 2], [0, 1, -1]])
def test_what_is_no_tree_is_refused(tree: list[int]) -> None:
    with pytest.raises(PalavraError, match="damaged"):
        check_tree(np.array(tree))


def test_a_bottomless_tree_is_refused() -> None:
    chain = np.array([-1, *(x for k in range(298) for x in (k, -1)), 298, 299])
    check_tree(chain)
    with pytest.raises(PalavraError, match="damaged"):
        tree_paths(chain)


@given(counts=st.lists(st.one_of(st.integers(0, 50), st.sampled_from([0, 1, 10**6])), min_size=2, max_size=40))
def test_huffman_is_within_a_bit_of_the_entropy(counts: list[int]) -> None:
    frequencies = np.array(counts)
    tree = huffman_tree(frequencies)
    check_tree(tree)
    depths = depths_of(tree)
    assert sum(0.5 ** int(depth) for depth in depths) == 1  # Kraft: a full binary tree
    if any(counts):
        shares = frequencies / frequencies.sum()
        bits = entropy(shares, base=2)
        assert bits - 1e-9 <= shares @ depths <= bits + 1
        balanced = depths_of(balanced_tree(len(counts)))
        assert shares @ depths <= shares @ balanced + 1e-9


@given(classes=st.integers(2, 300))
def test_balanced_depth_is_log_k(classes: int) -> None:
    tree = balanced_tree(classes)
    check_tree(tree)
    depths = depths_of(tree)
    assert {int(depth) for depth in depths} <= {math.floor(math.log2(classes)), math.ceil(math.log2(classes))}
    assert (np.diff(depths) <= 0).all()  # ids from left to right, the deepest leaves on the left


def test_classes_without_rows_share_a_balanced_part() -> None:
    counts = np.array([100, 50] + [0] * 64)
    assert depths_of(huffman_tree(counts)).tolist() == [1, 2] + [2 + 6] * 64


def test_a_huge_count_fits_the_deepest_tree() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 90:
        fibonacci.append(sum(fibonacci[-2:]))
    depths = depths_of(huffman_tree(np.array(fibonacci)))
    assert depths.max() == 89


def leaves_of(tree: Int64Array, vertex: int) -> list[int]:
    """The classes below a vertex, from left to right."""
    if tree[vertex] >= 0:
        return [int(tree[vertex])]
    left = 2 * int((tree[:vertex] < 0).sum()) + 1
    return leaves_of(tree, left) + leaves_of(tree, left + 1)


def test_the_prefix_tree_parts_codes_between_their_chapters() -> None:
    labels = ["A01", "A02", "A03", "B01", "B02", "C01", "C11", "C12"]
    tree = prefix_tree(labels)
    check_tree(tree)
    assert leaves_of(tree, 0) == list(range(8))
    # The middle would be inside B; of its two ends the first one is nearer.
    assert [[labels[k] for k in leaves_of(tree, vertex)] for vertex in (1, 2)] == [labels[:3], labels[3:]]
    assert [labels[k] for k in leaves_of(tree, 5)] == ["B01", "B02"]


@given(labels=st.lists(st.text("ab1", max_size=6), min_size=2, max_size=120, unique=True).map(sorted))
def test_a_prefix_tree_is_a_tree_of_bounded_depth(labels: list[str]) -> None:
    tree = prefix_tree(labels)
    check_tree(tree)
    assert leaves_of(tree, 0) == list(range(len(labels)))
    assert depths_of(tree).max() <= 2 + math.log(len(labels), 4 / 3)
    alike = prefix_tree([f"{number:03}" for number in range(8)])
    assert depths_of(alike).tolist() == [3] * 8
