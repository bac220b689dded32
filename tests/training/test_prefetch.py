"""Prefetching: the order, the exceptions and the thread of what is prepared ahead."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from palavra.training.loop import prefetch


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_prefetching_keeps_the_order(depth: int, count: int) -> None:
    assert list(prefetch(iter(range(count)), depth)) == list(range(count))
    assert prefetching() == []


def test_prefetching_carries_exceptions_after_what_came_before() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    items = prefetch(broken())
    assert next(items) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    assert prefetching() == []


def test_prefetching_stays_within_its_depth() -> None:
    made: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    items: Any = prefetch(endless(), 2)
    assert next(items) == 0
    time.sleep(0.05)
    assert len(made) <= 4
    items.close()


def test_an_abandoned_prefetch_ends_its_thread() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 0

    items: Any = prefetch(endless())
    next(items)
    assert len(prefetching()) == 1
    items.close()
    assert prefetching() == []


def test_prefetching_starts_with_its_first_item() -> None:
    items = prefetch(iter([1]))
    assert prefetching() == []
    assert list(items) == [1]
