import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from palavra import distributed

WORKER = """
import sys
import torch
from palavra import distributed

def work():
    rank = distributed.rank()
    mine = torch.tensor([1.0, 10.0 * rank])
    total = distributed.all_reduce_sum(mine)
    assert total.tolist() == [2.0, 10.0], total
    assert mine.tolist() == [1.0, 10.0 * rank], mine
    print(rank, distributed.world_size(), distributed.is_main())

if sys.argv[1:]:
    meeting_point, rank = sys.argv[1:]
    where = f"file://{meeting_point}"
    group = distributed.distributed("gloo", init_method=where, rank=int(rank), world_size=2)
else:
    group = distributed.distributed("gloo")
with group:
    work()
assert distributed.world_size() == 1
"""


def two_workers(arguments: list[list[str]], environments: list[dict[str, str]]) -> list[str]:
    loopback = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *extra],
            env={**loopback, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for extra, environment in zip(arguments, environments, strict=True)
    ]
    try:
        results = [worker.communicate(timeout=60) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (_, errors) in zip(workers, results, strict=True):
        assert worker.returncode == 0, errors
    return [output.strip() for output, _ in results]


def test_alone() -> None:
    tensor = torch.tensor([1, 2])
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.all_reduce_sum(tensor) is tensor


def test_nothing_is_joined_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (distributed.rank(), distributed.world_size()) == (0, 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names the loopback interface as Linux does")
def test_two_processes_sum(tmp_path: Path) -> None:
    meeting_point = str(tmp_path / "meeting-point")
    outputs = two_workers([[meeting_point, "0"], [meeting_point, "1"]], [{}, {}])
    assert outputs == ["0 2 True", "1 2 False"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names the loopback interface as Linux does")
def test_two_processes_as_torchrun_starts_them() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    outputs = two_workers([[], []], [{**common, "RANK": "0"}, {**common, "RANK": "1"}])
    assert outputs == ["0 2 True", "1 2 False"]
