"""Files: whole or not at all, and one process at a time in a folder that says so."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from palavra import distributed, files
from palavra.errors import PalavraError
from palavra.output import claimed
from palavra.training.run_directory import RunDirectory

HOLD = """
import sys
from pathlib import Path

from palavra.output import claimed

with claimed(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another(directory: Path) -> "Iterator[subprocess.Popen[str]]":
    """Another process that holds the folder until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        try:
            yield other
        finally:
            if other.poll() is None:
                other.communicate("")


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_a_second_process_is_refused_in_one_line_that_names_the_first(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with held_by_another(run.path) as other:
        with pytest.raises(PalavraError, match=rf"written by another process \({other.pid}\)") as caught, run.locked():
            pass
        assert "\n" not in str(caught.value)
    with run.locked():
        pass
    run.check_free()


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_a_killed_process_leaves_nothing_locked(tmp_path: Path) -> None:
    with held_by_another(tmp_path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert (tmp_path / ".lock").exists()
        with claimed(tmp_path, "run"):
            assert (tmp_path / ".lock").read_text() == str(os.getpid())


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_ending_badly_unlocks_and_another_thread_is_refused_too(tmp_path: Path) -> None:
    def claim() -> None:
        with claimed(tmp_path, "run"):
            pass

    with ThreadPoolExecutor(1) as threads, claimed(tmp_path, "run"):
        claim()  # the thread that holds it may do so again
        with pytest.raises(PalavraError, match="another process"):
            threads.submit(claim).result()
    with pytest.raises(KeyError), claimed(tmp_path, "run"):
        raise KeyError
    with claimed(tmp_path, "run"):
        pass


def test_the_ranks_of_one_run_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunDirectory(tmp_path).locked():
        monkeypatch.setattr(distributed, "rank", lambda: 1)
        with RunDirectory(tmp_path).locked():
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_a_file_system_without_locks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def unknown(*arguments: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with claimed(tmp_path, "run"), claimed(tmp_path, "run"):
        pass


def test_a_place_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PalavraError, match="cannot be written"), claimed(tmp_path / "file" / "run", "run"):
        pass


def test_the_lock_outlives_clearing_up(tmp_path: Path) -> None:
    with claimed(tmp_path, "run"):
        (tmp_path / ".a.txt.0123abcd.partial").write_text("half")
        files.remove_partial(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {".lock", ".palavra"}
