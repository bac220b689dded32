"""Keep computing on a CPU fast while other programs use its cores.

Threads that compute a product together wait for the slowest of them, and GNU's OpenMP, which torch uses on Linux, waits
by spinning. If another program keeps a core busy, the spinning threads use up their share of it, the one that all wait
for gets no core for milliseconds at a time, and a step takes several times as long. Threads that sleep while they wait
get a core as soon as they are woken, but on a quiet machine waking them costs a fifth of a step or more.

So the choice follows the machine. A background thread reads how long this process's threads are kept waiting for a
core, and lets OpenMP's threads sleep while that is long. OpenMP spins only briefly if its threads outnumber the cores
(libgomp manual, GOMP_SPINCOUNT), so a few idle ones are added. The number of threads that compute stays the same, and
so does every result.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_INTERVAL = 0.25  # seconds between two looks
# Seconds kept waiting per second, summed over threads: above the first they sleep, below the second they spin again.
# Alone on its cores a process has up to 0.08; beside a program that keeps one core busy, 0.4 to 0.7.
_CROWDED, _ALONE = 0.25, 0.12
# Where few of many cores compute, the system moves threads to free ones, and more idle teams would be needed.
_MOST_IDLE_TEAMS = 4
_ELEMENTS_A_THREAD = 2**15  # fewer, and torch does not give a thread of its own to them

_starting = threading.Lock()
_watcher: threading.Thread | None = None


def set_threads(asked: int | None) -> int:
    """Let this process compute with the `asked` number of threads, or leave it as it is, and return the number."""
    if asked is not None:
        torch.set_num_threads(asked)
    return torch.get_num_threads()


def share_cores() -> None:
    """Let this process's OpenMP threads sleep while they wait, whenever other programs want the cores.

    The first call starts the background thread. Does nothing where torch uses another OpenMP than GNU's, or the system
    is not Linux.
    """
    global _watcher
    with _starting:
        # A thread does not survive a fork.
        if (_watcher is None or not _watcher.is_alive()) and _has_gnu_openmp():
            _watcher = threading.Thread(target=_watch, name="share-cores", daemon=True)
            _watcher.start()


def seconds_kept_waiting() -> dict[str, float]:
    """Return for each living thread of this process the seconds that it could have run but had no core (Linux,
    `schedstat`); empty if the system does not tell."""
    found = {}
    with suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError, IndexError, ValueError):  # a thread may have ended
                found[thread] = int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[1]) / 1e9
    return found


@contextmanager
def sleeping_while_waiting() -> Iterator[None]:
    """Let OpenMP's threads sleep while they wait for each other, as long as the block runs."""
    done = threading.Event()
    teams = [
        threading.Thread(target=_keep_team, args=(done,), name=f"idle-team-{number}", daemon=True)
        for number in range(_idle_teams())
    ]
    for team in teams:
        team.start()
    try:
        yield
    finally:
        done.set()
        for team in teams:
            team.join()


def _has_gnu_openmp() -> bool:
    try:
        return "libgomp" in Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return False


def _watch() -> None:
    shares = _shares_kept_waiting()
    while True:
        next(share for share in shares if share > _CROWDED)
        with sleeping_while_waiting():
            next(share for share in shares if share < _ALONE)


def _shares_kept_waiting() -> Iterator[float]:
    """Yield the seconds kept waiting per second, summed over the threads, at every interval."""
    before, at = seconds_kept_waiting(), time.monotonic()
    while True:
        time.sleep(_INTERVAL)
        after, now = seconds_kept_waiting(), time.monotonic()
        yield sum(waited - before[thread] for thread, waited in after.items() if thread in before) / (now - at)
        before, at = after, now


def _idle_teams() -> int:
    """Return how many idle teams make OpenMP's threads outnumber the cores: each adds all its threads but one."""
    threads, cores = torch.get_num_threads(), len(os.sched_getaffinity(0))
    if threads == 1:
        return 0
    needed = -(-(cores + 1 - threads) // (threads - 1))
    return needed if needed <= _MOST_IDLE_TEAMS else 0


def _keep_team(done: threading.Event) -> None:
    """Have OpenMP make a team for this thread, and keep it until `done`."""
    torch.zeros(_ELEMENTS_A_THREAD * torch.get_num_threads()).add_(1)
    done.wait()
