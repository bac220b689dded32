import numpy as np
import numpy.typing as npt
import pytest
import torch
from builders.models import unpack
from hypothesis import given
from hypothesis import strategies as st

from palavra.batch import Sample, from_arrays, pack, positions

Ids = npt.NDArray[np.int64]


def ids(values: list[int]) -> Ids:
    return np.array(values, dtype=np.int64)


@st.composite
def samples(draw: st.DrawFn, segments: bool) -> Sample:
    tokens = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=12))
    rows = sorted(draw(st.sets(st.integers(0, len(tokens) - 1))))
    labels = draw(st.lists(st.integers(0, 1000), min_size=len(rows), max_size=len(rows)))
    kinds = draw(st.lists(st.integers(0, 1), min_size=len(tokens), max_size=len(tokens))) if segments else None
    return Sample(
        input_ids=ids(tokens),
        label_rows=ids(rows),
        labels=ids(labels),
        segment_ids=None if kinds is None else ids(kinds),
    )


@given(st.booleans().flatmap(lambda segments: st.lists(samples(segments), min_size=1, max_size=6)))
def test_unpack_inverts_pack(given: list[Sample]) -> None:
    batch = pack(given)
    assert batch.tokens == sum(len(sample.input_ids) for sample in given)
    assert batch.sequences == len(given)
    assert batch.max_seqlen == max(len(sample.input_ids) for sample in given)
    for before, after in zip(given, unpack(batch), strict=True):
        for name in ("input_ids", "label_rows", "labels", "segment_ids"):
            expected, found = getattr(before, name), getattr(after, name)
            assert (expected is None) == (found is None)
            assert expected is None or np.array_equal(expected, found)


def test_shapes_and_types_of_a_batch() -> None:
    batch = pack([Sample(input_ids=ids([7, 8, 9])), Sample(input_ids=ids([5]), label_rows=ids([0]), labels=ids([6]))])
    assert batch.input_ids.tolist() == [7, 8, 9, 5]
    assert batch.position_ids.tolist() == [0, 1, 2, 0]
    assert batch.cu_seqlens.tolist() == [0, 3, 4]
    assert batch.label_rows.tolist() == [3]
    assert batch.labels.tolist() == [6]
    assert (batch.tokens, batch.sequences, batch.labelled, batch.max_seqlen) == (4, 2, 1, 3)
    assert batch.cu_seqlens.dtype == torch.int32
    assert {t.dtype for t in (batch.input_ids, batch.position_ids, batch.label_rows, batch.labels)} == {torch.int64}
    assert batch.to(torch.device("cpu")) is batch


def test_segments_are_kept_only_when_every_sample_has_them() -> None:
    with_segments = Sample(input_ids=ids([1, 2]), segment_ids=ids([0, 1]))
    kept = pack([with_segments, with_segments]).segment_ids
    assert kept is not None
    assert kept.tolist() == [0, 1, 0, 1]
    assert pack([with_segments, Sample(input_ids=ids([3]))]).segment_ids is None


@given(st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_positions_restart_in_each_sequence(lengths: list[int]) -> None:
    expected = [place for length in lengths for place in range(length)]
    assert positions(ids(lengths)).tolist() == expected


@pytest.mark.parametrize("lengths", [[], [2], [4], [3, 0], [4, -1]])
def test_lengths_must_be_positive_and_add_up(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="add up"):
        from_arrays(ids([1, 2, 3]), ids(lengths), ids([]), ids([]))


def test_a_batch_needs_a_sample() -> None:
    with pytest.raises(ValueError, match="at least one"):
        pack([])
