"""Too little memory is one line and exit code 1, wherever a library says so."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.commands import Ask

from palavra.cli.app import LEAST_ADDRESS_SPACE
from palavra.errors import PalavraError, lack_of_memory
from palavra.inference import loading

SAID = "palavra: the memory does not suffice ("


class SafetensorLike(Exception):
    pass


def from_cause() -> None:
    try:
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")
    except ImportError as error:
        raise ImportError("numpy:\nplease read this") from error


def hidden() -> None:
    try:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")
    except OSError:
        raise PalavraError("shard.arrow: not a readable shard") from None


def raised(error: Exception) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    "fail",
    [
        raised(MemoryError()),
        raised(MemoryError("Unable to allocate 3 GiB")),
        raised(
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        ),
        raised(RuntimeError("can't start new thread")),
        raised(RuntimeError("could not create a primitive")),
        raised(SystemError("error return without exception set")),
        raised(RuntimeError("Unknown error: Failed to launch worker thread: Resource temporarily unavailable")),
        raised(RuntimeError("std::bad_alloc")),
        raised(SafetensorLike("Error while mapping: Cannot allocate memory (os error 12)")),
        raised(ImportError("libarrow.so.2600: failed to map segment from shared object")),
        from_cause,
        hidden,
    ],
)
def test_want_of_memory_is_one_line(fail: Callable[[], None], ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load", lambda *_arguments, **_options: fail())
    code, out, err = ask("embed", "model", "a text")
    assert (code, out) == (1, "")
    assert err.startswith(SAID)
    assert err.count("\n") == 1


def test_other_errors_stay_what_they_are(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lack_of_memory(ValueError("x")) is None
    monkeypatch.setattr(loading, "load", lambda *_arguments, **_options: raised(PalavraError("m is no folder"))())
    assert ask("embed", "model", "a text") == (2, "", "palavra: m is no folder\n")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are those of Linux")
@pytest.mark.parametrize("command", [["embed", "model", "a text"], ["pretrain", "text.txt", "--out", "run"]])
def test_a_limit_below_what_the_libraries_need(command: list[str], tmp_path: Path) -> None:
    limited = f'ulimit -v {LEAST_ADDRESS_SPACE // 2048}; exec "$@"'
    started = ["sh", "-c", limited, "sh", sys.executable, "-m", "palavra"]
    done = subprocess.run([*started, *command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(SAID)
    assert done.stderr.count("\n") == 1
    assert "1,073,741,824 are needed" in done.stderr
    helped = subprocess.run([*started, command[0], "--help"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (helped.returncode, helped.stderr) == (0, "")
