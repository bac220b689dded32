"""Threads on a CPU: asleep while they wait when other programs want the cores, and the same results either way."""

import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from palavra.model import cpu_threads
from palavra.model.compute import choose_compute

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("threads", "cores", "teams"), [(1, 2, 0), (2, 2, 1), (4, 4, 1), (4, 8, 2), (2, 4, 3), (2, 64, 0), (3, 2, 0)]
)
def test_idle_teams_make_the_threads_outnumber_the_cores(
    monkeypatch: pytest.MonkeyPatch, threads: int, cores: int, teams: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores), raising=False)
    assert cpu_threads._idle_teams() == teams
    if teams > 0:
        assert threads + teams * (threads - 1) > cores >= threads + (teams - 1) * (threads - 1)


@linux
def test_results_are_the_same_bits_while_threads_sleep(two_threads: None) -> None:
    a, b = torch.randn(300, 257), torch.randn(257, 130)
    spinning = a @ b, a.sum(), torch.softmax(a, -1)
    with cpu_threads.sleeping_while_waiting():
        assert torch.get_num_threads() == 2
        asleep = a @ b, a.sum(), torch.softmax(a, -1)
    assert all(map(torch.equal, spinning, asleep))


@linux
def test_threads_sleep_from_the_crowded_look_to_the_lonely_one(
    monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    holding: list[int] = []

    def looks() -> Iterator[float]:
        for share in (0.1, 0.3, 0.2, 0.05, 0.2, 0.6, 0.1):
            holding.append(sum(thread.name.startswith("idle-team") for thread in threading.enumerate()))
            yield share

    monkeypatch.setattr(cpu_threads, "_idle_teams", lambda: 2)
    monkeypatch.setattr(cpu_threads, "_shares_kept_waiting", looks)
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(iter(_as_generator()))
    assert holding == [0, 0, 2, 2, 0, 0, 2]


def _as_generator() -> Iterator[None]:
    """The watcher ends where the looks do, with StopIteration, which a generator turns into a RuntimeError."""
    cpu_threads._watch()
    yield


@linux
def test_every_thread_tells_how_long_it_was_kept_waiting() -> None:
    before = cpu_threads.seconds_kept_waiting()
    assert str(threading.get_native_id()) in before
    after = cpu_threads.seconds_kept_waiting()
    assert all(after[thread] >= waited >= 0 for thread, waited in before.items() if thread in after)


def test_the_share_counts_only_threads_that_were_there_before(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([{"1": 5.0, "2": 1.0}, {"1": 5.5, "3": 9.0}])
    times = iter([10.0, 12.0])
    monkeypatch.setattr(cpu_threads, "seconds_kept_waiting", lambda: next(looks))
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert next(cpu_threads._shares_kept_waiting()) == 0.25


@linux
def test_choosing_the_cpu_starts_one_watcher(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = threading.Event()
    started: list[str] = []

    def watch() -> None:
        started.append(threading.current_thread().name)
        watched.wait()

    monkeypatch.setattr(cpu_threads, "_watcher", None)
    monkeypatch.setattr(cpu_threads, "_watch", watch)
    choose_compute("cpu", "float32", "off")
    choose_compute("cpu", "float32", "off")
    assert started == ["share-cores"]
    watched.set()
    first = cpu_threads._watcher
    assert first is not None
    first.join()
    choose_compute("cpu", "float32", "off")  # as after a fork, which no thread survives
    assert started == ["share-cores"] * 2
