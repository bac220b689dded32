"""Records to JSON and back: nothing changes on the way, and what does not fit is named."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palavra.errors import PalavraError
from palavra.run_records.training import MetricLine
from palavra.typed_json import DEEPEST, Count, Rate, from_json, json_text, other_keys, read_json, to_json


@dataclass(frozen=True, kw_only=True)
class Leaf:
    count: Count
    rate: Rate | None = None


@dataclass(frozen=True, kw_only=True)
class Tree:
    kind: Literal["oak", "ash"]
    height: float
    alive: bool
    leaves: tuple[Leaf, ...] = ()
    pair: tuple[int, str] | None = None
    named: Mapping[str, Leaf | str] = field(default_factory=dict)
    any: object = None
    others: Mapping[str, int] = other_keys()


leaves = st.builds(Leaf, count=st.integers(0, 2**60), rate=st.none() | st.floats(0, 1))
trees = st.builds(
    Tree,
    kind=st.sampled_from(["oak", "ash"]),
    height=st.floats(allow_nan=False, allow_infinity=False),
    alive=st.booleans(),
    leaves=st.lists(leaves, max_size=3).map(tuple),
    pair=st.none() | st.tuples(st.integers(), st.text()),
    named=st.dictionaries(st.text(), leaves | st.text(), max_size=3),
    any=st.none() | st.text() | st.lists(st.integers()),
    others=st.dictionaries(st.sampled_from("xyz"), st.integers(), max_size=3),
)


@given(trees)
def test_a_record_comes_back_as_it_was(tree: Tree) -> None:
    assert from_json(Tree, json.loads(json.dumps(to_json(tree), allow_nan=False)), "tree.json") == tree


def test_defaults_are_not_written_and_other_keys_stand_beside() -> None:
    tree = Tree(kind="oak", height=2, alive=True, others={"rings": 9})
    assert to_json(tree) == {"kind": "oak", "height": 2, "alive": True, "rings": 9}
    line = MetricLine(kind="train", step=3, values={"loss": 2.5, "peak_share": None})
    assert to_json(line) == {"kind": "train", "step": 3, "loss": 2.5, "peak_share": None}


GOOD = {"kind": "oak", "height": 2, "alive": True}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "the file must be an object, not []"),
        ({"height": 2, "alive": True}, "kind is missing"),
        (GOOD | {"kind": "elm"}, "kind must be one of 'oak', 'ash', not 'elm'"),
        (GOOD | {"height": math.nan}, "height must be a finite number, not nan"),
        (GOOD | {"height": math.inf}, "height must be a finite number, not inf"),
        (GOOD | {"height": 10**400}, "height must be a finite number, not 1000"),
        (GOOD | {"height": True}, "height must be a finite number, not True"),
        (GOOD | {"alive": 1}, "alive must be true or false, not 1"),
        (GOOD | {"leaves": {}}, "leaves must be a list, not {}"),
        (GOOD | {"leaves": [{"count": 1}, {"count": -1}]}, "leaves[1].count must be a whole number from 0, not -1"),
        (GOOD | {"leaves": [{"count": 1.0}]}, "leaves[0].count must be a whole number, not 1.0"),
        (GOOD | {"leaves": [{"count": 1, "rate": 1.5}]}, "leaves[0].rate must be a finite number from 0 to 1, not 1.5"),
        (GOOD | {"pair": [1]}, "pair must be a list, not [1]"),
        (GOOD | {"named": {"a": 3}}, "named.a must be an object or text, not 3"),
        (GOOD | {"rings": "many"}, "rings must be a whole number, not 'many'"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(value: object, problem: str) -> None:
    with pytest.raises(PalavraError) as caught:
        from_json(Tree, value, "tree.json")
    assert str(caught.value).startswith(f"tree.json: {problem}")
    assert "\n" not in str(caught.value)


def test_what_is_written_is_json_whatever_it_holds() -> None:
    value = {"a": [math.nan, math.inf, 1.5], "b": "\ud83d", "c": "é"}
    text = json_text(value)
    text.encode()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [None, None, 1.5], "b": "\ud83d", "c": "é"}
    assert json_text({"c": "é"}) == '{"c": "é"}'
    assert json.loads(json_text(Leaf(count=1, rate=math.nan))) == {"count": 1, "rate": None}


def test_values_of_any_kind_are_finite_too() -> None:
    for value in (math.nan, [math.inf], {"a": [{"b": -math.inf}]}):
        with pytest.raises(PalavraError, match="must be a finite number"):
            from_json(Tree, GOOD | {"any": value}, "tree.json")


def test_unknown_keys_of_a_later_version_are_ignored() -> None:
    assert from_json(Leaf, {"count": 1, "colour": {"new": []}}, "leaf.json") == Leaf(count=1)


@dataclass(frozen=True, kw_only=True)
class Nested:
    inner: "Nested | None" = None


def test_nesting_is_bounded() -> None:
    value: dict[str, object] = {}
    for _ in range(DEEPEST + 1):
        value = {"inner": value}
    with pytest.raises(PalavraError, match="levels deep"):
        from_json(Nested, value, "nested.json")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"\xff", "is not UTF-8"),
        (b'{"count": 1', ":1: not valid JSON"),
        (b"[" * 100_000, ":1: not readable JSON"),
        (b"[" * 300 + b"]" * 300, ":1: nested more than"),
        (b'{"count": ' + b"1" * 5000 + b"}", ":1: not readable JSON"),
        (b'{"count": "x"}', "count must be a whole number from 0, not 'x'"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "leaf.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PalavraError) as caught:
        read_json(Leaf, path)
    assert str(path) in str(caught.value)
    assert problem in str(caught.value)
