"""The net, cast a little: the same damaged inputs and stops every time. `make fuzz` casts it wide."""

import os
import subprocess
import sys

import pytest
from builders.pages import ROOT


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
@pytest.mark.parametrize("asked", [["--cases", "10", "--seed", "0"], ["--stops", "2"]], ids=["inputs", "stops"])
def test_nothing_gets_through(asked: list[str]) -> None:
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")])
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", *asked],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "in all" in done.stdout
