"""What is held out of the labelled examples, and how examples are told apart."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.finetuning import spec, write
from builders.tasks import answers_of, fit
from hypothesis import given, settings
from hypothesis import strategies as st

from palavra.data.squad import Answer, Question
from palavra.errors import PalavraError
from palavra.finetuning.splits import examples_hash, read_split
from palavra.finetuning.stratification import fold_of, groups_of, hold_out
from palavra.tasks.registry import KINDS
from palavra.tasks.spec import Columns, TaskSpec
from palavra.tasks.text_examples import TextExample


def test_what_is_held_out_has_the_shares_of_all(tmp_path: Path) -> None:
    lines = [f"w{n},{'abc'[0 if n % 10 < 6 else 1 if n % 10 < 9 else 2]}" for n in range(200)]
    source = write(tmp_path / "t.csv", "text,label\n" + "\n".join(lines) + "\n")
    wanted = TaskSpec(kind="classification", train=source, valid_fraction=0.2)
    split = read_split(wanted, 0)
    assert [len(split.train), len(split.valid), len(split.test)] == [160, 40, 0]
    assert {one.where for one in split.train}.isdisjoint(one.where for one in split.valid)
    found = [sum(one.label == (label,) for one in split.valid) for label in "abc"]
    assert np.abs(np.array(found) - [24, 12, 4]).max() <= 1
    order = [int(one.where.rpartition(":")[2]) for one in split.train]
    assert order == sorted(order)
    again, other = read_split(wanted, 0), read_split(wanted, 1)
    assert again.valid == split.valid
    assert other.valid != split.valid


@pytest.mark.parametrize("size", [3, 5])
def test_the_smallest_data_can_be_held_out_of(tmp_path: Path, size: int) -> None:
    lines = [f"w{n},{'ab'[n % 2]}" for n in range(size)]
    source = write(tmp_path / "t.csv", "text,label\n" + "\n".join(lines) + "\n")
    split = read_split(TaskSpec(kind="classification", train=source), 0)
    assert (len(split.train), len(split.valid)) == (size - 1, 1)


def test_data_that_nothing_can_be_held_out_of_asks_for_a_file(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", "text,label\na,x\nb,y\n")
    with pytest.raises(PalavraError, match="too few examples to hold some out: give valid="):
        read_split(TaskSpec(kind="classification", train=source), 0)


def test_folds_hold_out_each_example_once(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    split = read_split(spec(reviews, valid=None), 0)
    folds = split.in_folds(5, 0)
    held = [example.where for fold in folds for example in fold.valid]
    assert sorted(held) == sorted(example.where for example in [*split.train, *split.valid])
    for fold in folds:
        assert not {e.where for e in fold.valid} & {e.where for e in fold.train}
        assert {e.label for e in fold.valid} == {e.label for e in fold.train}


def test_what_a_task_counts_is_of_the_examples_it_trains_on(tmp_path: Path) -> None:
    """Class weights, trees and the scale of a regression may not know what is held out."""
    lines = [f"w{n},{'ab'[n % 5 == 0]},{n**2}" for n in range(60)]
    source = write(tmp_path / "t.csv", "text,label,size\n" + "\n".join(lines) + "\n")
    classes = read_split(TaskSpec(kind="classification", train=source, valid_fraction=0.3), 0)
    targets = TaskSpec(kind="regression", train=source, valid_fraction=0.3, columns=Columns(label=("size",)))
    sizes = read_split(targets, 0)
    for split in (classes, classes.in_folds(3, 0)[0], classes.in_folds(3, 0)[1]):
        output: Any = split.task.output
        assert output.counts == tuple(sum(one.label == (label,) for one in split.train) for label in "ab")
        assert output.examples == len(split.train) < 60
    tagged = write(tmp_path / "t.conll", "".join(f"x {'B-X' if n % 5 else 'B-Y'}\ny O\n\n" for n in range(60)))
    words = read_split(TaskSpec(kind="token-classification", train=tagged, valid_fraction=0.3), 0)
    for split in (words, words.in_folds(3, 0)[0]):
        every = [label for one in split.train for label in one.labels]
        assert len(every) < 120
        output = split.task.output
        assert output.counts == tuple(every.count(label) for label in output.labels)
    for split in (sizes, sizes.in_folds(3, 0)[2]):
        values = [one.label[0] for one in split.train]
        output = split.task.output
        assert [*output.mean, *output.deviation] == pytest.approx([np.mean(values), np.std(values)])


def test_a_label_s_only_example_is_never_held_out(reviews: Path) -> None:
    split = read_split(spec(reviews, valid=None, valid_fraction=0.5), 0)
    rare = [replace(split.train[0], label=(f"only {i}",)) for i in range(20)]
    held = hold_out(split.task.reader, [*split.train, *rare], 0.5, 0)
    assert held[: len(split.train)].any()
    assert not held[len(split.train) :].any()


def labelled(sets: Sequence[tuple[str, ...]]) -> tuple[Any, list[TextExample]]:
    examples = [TextExample(first=f"w{n}", second=None, label=of, where=f"t:{n}") for n, of in enumerate(sets)]
    return fit(TaskSpec(kind="classification", multilabel=True), examples), examples


def frequent_sets(count: int, seed: int) -> list[tuple[str, ...]]:
    """Sets of labels of very different frequency, most of them like no other."""
    random = np.random.default_rng(seed)
    chances = 0.6 / np.arange(1, 13)
    return [tuple(f"l{k:02}" for k in np.flatnonzero(random.random(12) < chances)) for _ in range(count)]


@pytest.mark.parametrize("seed", range(4))
def test_each_of_several_labels_has_its_share_in_both_parts(seed: int) -> None:
    task, examples = labelled(frequent_sets(400, seed))
    held = hold_out(task.reader, examples, 0.2, seed)
    assert held.sum() == pytest.approx(80, abs=4)
    for label in task.output.labels:
        has = np.array([label in one.label for one in examples])
        assert (held & has).sum() == pytest.approx(0.2 * has.sum(), abs=2)
    assert hold_out(task.reader, examples, 0.2, seed).tolist() == held.tolist()
    assert hold_out(task.reader, examples, 0.2, seed + 1).tolist() != held.tolist()


def test_rare_labels_are_held_out_at_their_share() -> None:
    """Four examples a label, of which a tenth is less than one: some labels have one held out, most none."""
    task, examples = labelled([*((f"t{n // 4:03}",) for n in range(600)), *((),) * 400])
    held = hold_out(task.reader, examples, 0.1, 0)
    assert held.sum() == pytest.approx(100, abs=12)
    assert held[:600].sum() == pytest.approx(60, abs=15)
    assert held[600:].sum() == pytest.approx(40, abs=15)
    assert np.bincount(np.arange(600)[held[:600]] // 4, minlength=150).max() == 1
    fold = fold_of(task.reader, examples, 5, 0)
    assert np.bincount(fold, minlength=5) == pytest.approx([200] * 5, abs=15)


def test_sets_that_are_like_no_other_are_held_out_too() -> None:
    """But never the only example of a label."""
    sets = [tuple(f"l{k}" for k in range(7) if n >> k & 1) for n in range(128)]
    task, examples = labelled([*sets, ("l0", "only"), ("l1", "l2", "alone")])
    held = hold_out(task.reader, examples, 0.1, 0)
    assert held.sum() == pytest.approx(13, abs=4)
    assert not held[128:].any()
    few, pair = labelled([("a", "b"), ("a",), ("b",), ("a", "c")])
    assert hold_out(few.reader, pair, 0.01, 0).sum() == 1
    none, single = labelled([("a", "b"), ("c", "d")])
    assert not hold_out(none.reader, single, 0.5, 0).any()


def test_folds_part_the_examples_by_their_labels() -> None:
    task, examples = labelled(frequent_sets(300, 0))
    fold = fold_of(task.reader, examples, 5, 0)
    assert np.bincount(fold, minlength=5) == pytest.approx([60] * 5, abs=4)
    for label in task.output.labels:
        has = np.array([label in one.label for one in examples])
        assert np.bincount(fold[has], minlength=5) == pytest.approx([has.sum() / 5] * 5, abs=3)
    single = [TextExample(first="", second=None, label=("ab"[n % 3 == 0],), where="") for n in range(30)]
    one = fit(TaskSpec(kind="classification"), single)
    for label in "ab":
        has = np.array([example.label == (label,) for example in single])
        assert set(np.bincount(fold_of(one.reader, single, 5, 0)[has])) == {has.sum() // 5}


@settings(max_examples=30)
@given(count=st.integers(2, 60), labels=st.integers(1, 80), folds=st.integers(2, 10), seed=st.integers(0, 5))
def test_no_fold_is_larger_than_another_by_more_than_one(count: int, labels: int, folds: int, seed: int) -> None:
    """However many labels there are, all of them rare."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, min(4, labels + 1), size=max(count, folds)).tolist()
    sets = [tuple(f"l{k}" for k in random.permutation(labels)[:size]) for size in sizes]
    task, examples = labelled([*sets, ("a",), ("b",)])
    found = np.bincount(fold_of(task.reader, examples, folds, seed), minlength=folds)
    assert 0 < found.min() >= found.max() - 1


def test_many_rare_labels_do_not_hold_out_more_than_was_asked_for() -> None:
    random = np.random.default_rng(0)
    task, examples = labelled([tuple(f"l{k}" for k in random.choice(1500, 3, replace=False)) for _ in range(2000)])
    assert hold_out(task.reader, examples, 0.1, 0).sum() == 200


def test_questions_on_one_passage_stay_together() -> None:
    questions = [
        Question(id=f"{i}", question="who?", context=f"it is me {i // 4}", answers=(Answer("me", 6),), where=f"q:{i}")
        for i in range(40)
    ]
    task = answers_of(TaskSpec(kind="question-answering"), False)
    held = hold_out(task.reader, questions, 0.2, 0)
    assert 0 < held.sum() < 40
    assert (held.reshape(10, 4).all(1) | ~held.reshape(10, 4).any(1)).all()
    for folds in (5, 10):
        fold = fold_of(task.reader, questions, folds, 0).reshape(10, 4)
        assert (fold == fold[:, :1]).all()
        assert (np.bincount(fold[:, 0], minlength=folds) == 10 // folds).all()
    with pytest.raises(PalavraError, match="40 examples are on 10 passages, each of which stays whole: lower it"):
        fold_of(task.reader, questions, 11, 0)
    with pytest.raises(PalavraError, match="4 examples are on 1 passage, each of which stays whole: leave it out"):
        fold_of(task.reader, questions[:4], 2, 0)
    with pytest.raises(PalavraError, match="only 4 examples"):
        fold_of(task.reader, questions[::10], 5, 0)


def grouped(names: Sequence[str | None]) -> list[Question]:
    """Questions, those of a name on one passage, which is the name."""
    return [Question(id=f"{i}", question="?", context=name or "", answers=(), where="") for i, name in enumerate(names)]


def test_groups_are_numbered_by_their_names_without_a_table_of_all_passages() -> None:
    """The numbers are those of the sorted names, those that are alone first, so that splits stay what they were; but
    one long passage does not make every other one as long."""
    reader = KINDS["question-answering"].reader(TaskSpec(kind="question-answering"))
    reader = replace(reader, group=lambda example: example.context or None)
    names = [None if i % 7 == 0 else f"{'áb c'[i % 4]}{i % 13}" for i in range(60)]
    said = [f"alone {i}" if name is None else f"group {name}" for i, name in enumerate(names)]
    assert groups_of(reader, grouped(names)).tolist() == np.unique(said, return_inverse=True)[1].tolist()
    long = grouped(["a" * 20_000, *(f"{i}" for i in range(500))])
    tracemalloc.start()
    try:
        assert len(set(groups_of(reader, long).tolist())) == 501
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_examples_are_told_apart_by_what_they_say_not_by_their_file(reviews: Path, tmp_path: Path) -> None:
    moved = write(tmp_path / "other.csv", (reviews / "train.csv").read_text().replace("\n", "\n\n"))
    here, there = read_split(spec(reviews), 0), read_split(spec(reviews, train=moved), 0)
    assert here.train[5].where != there.train[5].where
    assert examples_hash([here]) == examples_hash([there])
    first = here.train[0]
    others = [
        replace(here, train=[replace(first, first="another"), *here.train[1:]]),
        replace(here, train=[replace(first, label=("another",)), *here.train[1:]]),
        replace(here, train=here.train[:-1], valid=[here.train[-1], *here.valid]),
    ]
    assert len({examples_hash([one]) for one in [here, *others]}) == 4


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_two_texts_are_read_where_the_columns_say_so(kind: Any, tmp_path: Path) -> None:
    """Nothing is asked of a person that the columns say, and what was named stays."""
    rows = "".join(f"w{n},v{n},{'01'[n % 2]},x\n" for n in range(12))
    pairs = write(tmp_path / "pairs.csv", "text_a,text_b,label,other\n" + rows)
    split = read_split(TaskSpec(kind=kind, train=pairs), 0)
    assert (split.train[0].first[1:], split.train[0].second[0]) == (split.train[0].second[1:], "v")
    assert (split.task.spec.columns.text_a, split.task.spec.columns.text_b) == ("text_a", "text_b")
    assert split.task.reader.parts == 2
    named = read_split(TaskSpec(kind=kind, train=pairs, columns=Columns(text="other")), 0)
    assert named.train[0].second is None
    first = read_split(TaskSpec(kind=kind, train=pairs, columns=Columns(text_a="text_a")), 0)
    assert first.train[0].second is None
    single = write(tmp_path / "single.csv", "text_a,text_b,label,text\n" + rows)
    assert read_split(TaskSpec(kind=kind, train=single), 0).train[0].first == "x"
