"""Features, how texts share their room, windows, and the plan of which examples each step sees."""

from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from builders.tasks import trained
from hypothesis import given, settings
from hypothesis import strategies as st

from palavra.data.packing import Cursor
from palavra.errors import PalavraError
from palavra.inference import finetuned
from palavra.inference.finetuned import batches_of
from palavra.tasks.encoded_examples import EncodedExamples, Int64Array, head_of, offsets_of, ranges, share_room, wrap
from palavra.tasks.sampling import BatchSampler, MicroBatch, in_rows, task_probabilities
from palavra.tasks.spec import MixingConfig
from palavra.tasks.text_examples import TextExample, encode_texts
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.template import Template

CLS, SEP = 2, 3
WORDS = ("the", "old", "harbour", "of", "the", "town")
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=12)


def features_of(lengths: list[int], *, windows: list[int] | None = None, segments: bool = True) -> EncodedExamples:
    """Sequences whose tokens, rows and labels say where they are from; `windows` of each example stay together."""
    random = np.random.default_rng(0)
    sizes = np.array(lengths, dtype=np.int64)
    counts = [int(random.integers(1, length + 1)) for length in lengths]
    rows = [np.sort(random.choice(length, count, replace=False)) for length, count in zip(lengths, counts, strict=True)]
    labels = random.integers(0, 3, size=len(lengths))
    return EncodedExamples(
        input_ids=np.arange(sizes.sum(), dtype=np.uint32),
        lengths=sizes,
        segment_ids=(np.arange(sizes.sum()) % 2).astype(np.uint8) if segments else None,
        example=np.arange(len(sizes)) if windows is None else np.repeat(np.arange(len(windows)), windows),
        rows=np.concatenate(rows),
        row_counts=np.array(counts),
        labels=np.arange(labels.sum()),
        label_counts=labels,
        together=windows is not None,
    )


# Features


@given(lengths=LENGTHS, data=st.data())
def test_a_batch_holds_the_sequences_asked_for_in_that_order(lengths: list[int], data: st.DataObject) -> None:
    encoded = features_of(lengths)
    order = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=15)), dtype=np.int64)
    vectors = np.arange(encoded.row_counts.sum(), dtype=np.float32)[:, None] * [1, -1]
    batch = encoded.batch(order, "name", vectors)
    tokens, rows, labels = map(offsets_of, (encoded.lengths, encoded.row_counts, encoded.label_counts))
    bounds = batch.cu_seqlens.tolist()
    assert batch.task == "name"
    assert batch.max_seqlen == max(lengths[i] for i in order)
    assert batch.segment_ids is not None
    assert encoded.segment_ids is not None
    assert batch.features is not None
    places, known, targets = [], [], []
    for number, start, stop in zip(order.tolist(), bounds, bounds[1:], strict=False):
        here = slice(tokens[number], tokens[number + 1])
        assert batch.input_ids[start:stop].tolist() == encoded.input_ids[here].tolist()
        assert batch.segment_ids[start:stop].tolist() == encoded.segment_ids[here].tolist()
        assert batch.position_ids[start:stop].tolist() == list(range(lengths[number]))
        places += (encoded.rows[rows[number] : rows[number + 1]] + start).tolist()
        known += list(range(rows[number], rows[number + 1]))
        targets += list(range(labels[number], labels[number + 1]))
    assert batch.label_rows.tolist() == places
    assert batch.features[:, 0].tolist() == known
    assert batch.labels.tolist() == targets


def test_labels_of_several_columns_stay_numbers_with_a_point() -> None:
    encoded = replace(features_of([3, 4]), labels=np.eye(2), label_counts=np.ones(2, dtype=np.int64))
    batch = encoded.batch(np.array([1, 0]), "task")
    assert batch.labels.tolist() == [[0, 1], [1, 0]]
    assert str(batch.labels.dtype) == "torch.float32"


@given(windows=st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_units_are_examples_where_their_sequences_stay_together(windows: list[int]) -> None:
    encoded = features_of([2] * sum(windows), windows=windows)
    assert encoded.units.tolist() == [0, *np.cumsum(windows).tolist()]
    assert replace(encoded, together=False).units.tolist() == list(range(sum(windows) + 1))


@given(lengths=LENGTHS, budget=st.integers(1, 60))
def test_inference_sees_each_sequence_once_within_its_budget(lengths: list[int], budget: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuned, "BATCH_TOKENS", budget)
        found = list(batches_of(features_of(lengths), "task"))
    assert sorted(np.concatenate([sequences for sequences, _ in found]).tolist()) == list(range(len(lengths)))
    assert all(batch.tokens <= max(budget, max(lengths)) for _, batch in found)


# Room and windows


@given(first=st.integers(0, 80), second=st.integers(0, 80), room=st.integers(1, 90))
def test_two_texts_share_the_room_and_the_longer_gives_first(first: int, second: int, room: int) -> None:
    kept = [int(part[0]) for part in share_room(np.array([first]), np.array([second]), room)]
    assert kept[0] <= first
    assert kept[1] <= second
    assert sum(kept) == min(first + second, room)
    if first + second > room:
        # Only what is longer than half gives, and never more than down to the half.
        assert kept[0] >= min(first, room // 2)
        assert kept[1] >= min(second, room // 2)


def text_of(words: int, start: int = 0) -> str:
    return " ".join(WORDS[(start + i) % len(WORDS)] for i in range(words))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


def examples_of(counts: list[int], second: list[int] | None = None) -> list[TextExample]:
    pairs: list[int | None] = [None] * len(counts) if second is None else list(second)
    return [
        TextExample(first=text_of(a, n), second=None if b is None else text_of(b, n + 1), label=None, where=f"f:{n}")
        for n, (a, b) in enumerate(zip(counts, pairs, strict=True))
    ]


@settings(max_examples=40)
@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=5), context=st.integers(4, 30))
def test_windows_cover_every_token_of_a_long_text(tokenizer: Tokenizer, counts: list[int], context: int) -> None:
    examples = examples_of(counts)
    encoded = encode_texts(examples, tokenizer, context, False, overflow="window")
    assert encoded.lengths.max() <= context
    assert encoded.truncated == 0
    bounds, room = offsets_of(encoded.lengths), context - 2
    for number, example in enumerate(examples):
        ids = tokenizer.encode(example.first)
        here = np.flatnonzero(encoded.example == number)
        parts = [encoded.input_ids[bounds[i] + 1 : bounds[i + 1] - 1].tolist() for i in here]
        assert len(parts) == 1 or len(ids) > room
        step = room - room // 4
        covered = -1
        for place, part in enumerate(parts):
            assert part == ids[place * step : place * step + room]
            assert place * step <= covered + 1
            covered = place * step + len(part) - 1
        assert covered == len(ids) - 1
        # No window is needless: without the last one the end would be missing.
        assert len(parts) == 1 or (len(parts) - 2) * step + room < len(ids)


@settings(max_examples=30)
@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=5), context=st.integers(4, 60))
def test_without_windows_the_beginning_is_kept_and_losses_are_counted(
    tokenizer: Tokenizer, counts: list[int], context: int
) -> None:
    examples = examples_of(counts)
    encoded = encode_texts(examples, tokenizer, context, True, overflow="truncate")
    bounds = offsets_of(encoded.lengths)
    lost = 0
    for (start, stop), example in zip(pairwise(bounds.tolist()), examples, strict=True):
        ids = tokenizer.encode(example.first)
        lost += len(ids) > context - 2
        assert encoded.input_ids[start:stop].tolist() == [tokenizer.cls_id, *ids[: context - 2], tokenizer.sep_id]
    assert encoded.truncated == lost
    assert encoded.segment_ids is None
    assert encoded.rows.tolist() == [0] * len(examples)


@settings(max_examples=30)
@given(data=st.data(), context=st.integers(6, 60))
def test_pairs_are_wrapped_with_segments(tokenizer: Tokenizer, data: st.DataObject, context: int) -> None:
    counts = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=4))
    others = data.draw(st.lists(st.integers(1, 30), min_size=len(counts), max_size=len(counts)))
    examples = examples_of(counts, others)
    encoded = encode_texts(examples, tokenizer, context, True, overflow="truncate")
    assert encoded.segment_ids is not None
    bounds, lost = offsets_of(encoded.lengths), 0
    for (start, stop), example in zip(pairwise(bounds.tolist()), examples, strict=True):
        first, second = tokenizer.encode(example.first), tokenizer.encode(example.second or "")
        kept = [int(n[0]) for n in share_room(np.array([len(first)]), np.array([len(second)]), context - 3)]
        lost += kept != [len(first), len(second)]
        a, b = first[: kept[0]], second[: kept[1]]
        ids = [tokenizer.cls_id, *a, tokenizer.sep_id, *b, tokenizer.sep_id]
        assert encoded.input_ids[start:stop].tolist() == ids
        assert encoded.segment_ids[start:stop].tolist() == [0] * (kept[0] + 2) + [1] * (kept[1] + 1)
        assert stop - start <= context
    assert encoded.truncated == lost
    assert encode_texts(examples, tokenizer, context, False, overflow="truncate").segment_ids is None


SINGLE = Template((CLS,), (), (SEP,), (0, 0, 0, 0, 0))
PAIR = Template((CLS,), (SEP,), (SEP,))


def test_wrapping_says_where_the_last_text_begins() -> None:
    part = (np.array([7, 8, 9, 10], dtype=np.uint32), np.array([1, 3]))
    other = (np.array([20, 21], dtype=np.uint32), np.array([2, 0]))
    single, pair = wrap([part], SINGLE), wrap([part, other], PAIR)
    assert single.input_ids.tolist() == [CLS, 7, SEP, CLS, 8, 9, 10, SEP]
    assert single.starts.tolist() == [1, 1]
    assert pair.input_ids.tolist() == [CLS, 7, SEP, 20, 21, SEP, CLS, 8, 9, 10, SEP, SEP]
    assert pair.segment_ids.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1]
    assert pair.starts.tolist() == [3, 5]
    assert wrap([(np.empty(0, np.uint32), np.empty(0, np.int64))], SINGLE).lengths.tolist() == []
    bare = wrap([part, other], Template((), (), ()))
    assert bare.input_ids.tolist() == [7, 20, 21, 8, 9, 10]
    assert bare.starts.tolist() == [1, 3]
    with pytest.raises(PalavraError, match="a text has no tokens"):
        wrap([other], Template((), (), ()))


def test_ranges_and_heads() -> None:
    assert ranges(np.array([5, 0, 3]), np.array([2, 0, 3])).tolist() == [5, 6, 3, 4, 5]
    assert ranges(np.empty(0, np.int64), np.empty(0, np.int64)).tolist() == []
    assert head_of(np.arange(6, dtype=np.uint32), np.array([4, 2]), np.array([1, 2])).tolist() == [0, 4, 5]


# The plan


def sampler_of(
    encoded: dict[str, EncodedExamples], batch_size: int = 4, budget: int = 40, seed: int = 0, **mixing: Any
) -> BatchSampler:
    return BatchSampler(encoded=encoded, batch_size=batch_size, micro_batch_tokens=budget, seed=seed,
                mixing=MixingConfig(**mixing))  # fmt: skip


def steps_of(plan: BatchSampler, count: int, start: int = 0) -> list[list[MicroBatch]]:
    return list(islice(plan.micro_batches(Cursor(batch=start)), count))


@settings(max_examples=60)
@given(lengths=LENGTHS, batch_size=st.integers(1, 5), budget=st.integers(1, 60), seed=st.integers(0, 3))
def test_an_epoch_sees_every_example_once_within_the_budget(
    lengths: list[int], batch_size: int, budget: int, seed: int
) -> None:
    plan = sampler_of({"task": features_of(lengths)}, batch_size, budget, seed)
    assert plan.epoch_steps == -(-len(lengths) // batch_size)
    epochs = []
    steps = steps_of(plan, 2 * plan.epoch_steps)
    for epoch in (steps[: plan.epoch_steps], steps[plan.epoch_steps :]):
        seen = [np.concatenate([micro.sequences for micro in step]).tolist() for step in epoch]
        assert sorted(np.concatenate(seen).tolist()) == list(range(len(lengths)))
        assert all(len(step) <= batch_size for step in seen)
        epochs.append(seen)
    for step in steps:
        for micro in step:
            sizes = [lengths[i] for i in micro.sequences]
            assert sum(sizes) <= budget or len(sizes) == 1 or sum(sizes) <= max(lengths)
    if len(lengths) > 8:
        assert epochs[0] != epochs[1]


@given(windows=st.lists(st.integers(1, 4), min_size=1, max_size=8), budget=st.integers(1, 30))
def test_sequences_of_one_example_stay_together_and_in_order(windows: list[int], budget: int) -> None:
    random = np.random.default_rng(1)
    encoded = features_of(random.integers(1, 6, size=sum(windows)).tolist(), windows=windows)
    plan = sampler_of({"task": encoded}, 3, budget)
    seen = []
    for step in steps_of(plan, plan.epoch_steps):
        for micro in step:
            for example in dict.fromkeys(micro.documents.tolist()):
                here = micro.sequences[micro.documents == example].tolist()
                assert here == np.flatnonzero(encoded.example == example).tolist()
                seen.append(example)
    assert sorted(seen) == list(range(len(windows)))


def as_lists(steps: list[list[MicroBatch]]) -> list[Any]:
    return [[(m.task, m.sequences.tolist(), m.cursor.batch) for m in step] for step in steps]


@pytest.mark.parametrize("sampling", ["proportional", "uniform", "temperature"])
def test_a_plan_goes_on_from_a_cursor_as_it_would_have(sampling: str) -> None:
    plan = sampler_of({"one": features_of([3] * 23), "two": features_of([4] * 7)}, sampling=sampling)
    straight = steps_of(plan, 30)
    assert as_lists(straight[11:]) == as_lists(steps_of(plan, 19, start=11))
    assert [step[0].cursor.batch for step in straight] == list(range(1, 31))
    assert as_lists(steps_of(replace(plan, seed=1), 30)) != as_lists(straight)


@given(lengths=LENGTHS)
def test_rows_are_a_rearrangement(lengths: list[int]) -> None:
    sizes = np.array(lengths)
    chosen = np.arange(len(lengths))[::-1].copy()
    assert sorted(in_rows(chosen, sizes).tolist()) == sorted(chosen.tolist())


# Several tasks


@pytest.mark.parametrize(
    ("mixing", "expected"),
    [
        (MixingConfig(), [0.9, 0.1]),
        (MixingConfig(sampling="uniform"), [0.5, 0.5]),
        (MixingConfig(sampling="temperature", temperature=2.0), [0.75, 0.25]),
        (MixingConfig(sampling="temperature", temperature=1.0), [0.9, 0.1]),
    ],
)
def test_tasks_are_drawn_by_their_shares(mixing: MixingConfig, expected: list[float]) -> None:
    np.testing.assert_allclose(task_probabilities(mixing, [900, 100]), expected)
    sizes = {"large": features_of([2] * 900), "small": features_of([2] * 100)}
    plan = BatchSampler(encoded=sizes, batch_size=10, micro_batch_tokens=64, seed=0, mixing=mixing)
    assert plan.epoch_steps == 100
    drawn: list[str] = [step[0].task for step in steps_of(plan, 1000)]
    assert abs(drawn.count("large") / 1000 - expected[0]) < 0.05


def test_each_task_is_seen_in_whole_epochs_of_its_own() -> None:
    sizes = {"one": features_of([3] * 12), "two": features_of([4] * 6)}
    plan = sampler_of(sizes, batch_size=3, sampling="uniform")
    order: dict[str, list[Int64Array]] = {"one": [], "two": []}
    for step in steps_of(plan, 60):
        assert len({micro.task for micro in step}) == 1
        order[step[0].task] += [micro.sequences for micro in step]
    for name, size in (("one", 12), ("two", 6)):
        seen: npt.NDArray[np.int64] = np.concatenate(order[name])
        whole = seen[: len(seen) // size * size].reshape(-1, size)
        assert len(whole) > 1
        assert (np.sort(whole, 1) == np.arange(size)).all()


def test_a_temperature_below_one_is_an_error() -> None:
    with pytest.raises(PalavraError, match=r"^mixing\.temperature is 0\.5: .*$"):
        MixingConfig(temperature=0.5)
